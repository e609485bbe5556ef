"""What `make bench` promises, and whether a result keeps it. Pure."""

from __future__ import annotations

from typing import Any, Final

UP_SECONDS_MAX: Final = 20.0
COMMITTED_SECONDS_MAX: Final = 4.0
CLOSED_SECONDS_MAX: Final = 5.0
RESIDENT_MIB_MAX: Final = 1.2 * 2**10
#: Up to so many plans at a time; more take more connections to Postgres, each a process of its own.
RESIDENT_CONCURRENCY_MAX: Final = 16
#: Twice as much is asked for, and as much is done as before, but for what a short measurement is off.
DELIVERED_SHARE_MIN: Final = 0.9


def broken(result: dict[str, Any]) -> list[str]:
    """Stated limits that do not hold; those of latency are for one plan alone, in the median."""
    most = [("everything up, seconds", result["up_seconds"], UP_SECONDS_MAX)]
    least: list[tuple[str, float, float]] = []
    for each in result["levels"]:
        name = each["load"]
        if each["concurrency"] == 1:
            most.append(("COMMITTED, median alone, seconds", each["committed_p50_ms"] / 1000, COMMITTED_SECONDS_MAX))
            most.append(("CLOSED, median alone, seconds", each["closed_p50_ms"] / 1000, CLOSED_SECONDS_MAX))
        if each["concurrency"] is not None and each["concurrency"] <= RESIDENT_CONCURRENCY_MAX:
            most.append((f"{name}: resident, MiB", each["resident_total_mib"], RESIDENT_MIB_MAX))
        least.append((f"{name}: settlements", each["settlements"], 1))
        most.append((f"{name}: failed", each["failed"], 0))
        most.append((f"{name}: unfinished", each["unfinished"], 0))
        if not each.get("overload"):
            most.append((f"{name}: turned away", each["turned_away"], 0))
        else:
            least.append((f"{name}: delivered of what was sustained", each["delivered_share"], DELIVERED_SHARE_MIN))
    found = [f"{name}: {value} of at most {limit:g}" for name, value, limit in most if value > limit]
    return found + [f"{name}: {value} of at least {limit:g}" for name, value, limit in least if value < limit]
