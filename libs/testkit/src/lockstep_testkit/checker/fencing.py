"""I7: a command with an epoch older than one that a participant has seen is Rejected EPOCH_STALE, and changes nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lockstep_testkit.checker.evidence import Evidence, Violation


def check_fencing(evidence: Evidence) -> Iterator[Violation]:
    """Every old command that was taken."""
    for each in evidence.probes:
        if (each.verdict, each.reason) != ("REJECTED", "EPOCH_STALE"):
            text = f"{each.participant} answers an old {each.command} with {each.verdict} {each.reason}".rstrip()
            yield Violation("I7", each.plan_id, each.leg_id, text)
        if each.before != each.after:
            yield Violation("I7", each.plan_id, each.leg_id, f"an old {each.command} changed the leg's row at {each.participant}")
    yield from _epochs(evidence)


def _epochs(evidence: Evidence) -> Iterator[Violation]:
    """Whoever was asked has seen no epoch that is none."""
    for name, row in evidence.judged_rows:
        if min(row.fence.epoch) < 1:
            yield Violation("I7", row.plan_id, row.leg_id, f"{name} has the epoch {row.fence.epoch}, which nobody draws")
