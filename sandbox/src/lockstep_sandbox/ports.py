"""Free ports on loopback, and whether something listens there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
#: Below what the kernel gives to outgoing connections: a port stays free while the program that owns it is being restarted.
FIRST, BEFORE_EPHEMERAL = 20_000, 32_000
ATTEMPTS_MAX = 200
#: What this process gave out. A port is not given twice, even before its owner listens, nor by two processes: as long as this one lives it holds a name
#: for each, in Linux' abstract namespace, where two cannot have the same, and which keeps nothing of a process that is gone.
_given: dict[int, socket.socket] = {}


def free_ports(count: int) -> list[int]:
    """Distinct ports on which nothing listens now, and that were not given out before.

    Raises:
        OSError: No free port was found.
    """
    with contextlib.ExitStack() as held:
        return [_hold_one(held) for _ in range(count)]


def _hold_one(held: contextlib.ExitStack) -> int:
    end = max(min(BEFORE_EPHEMERAL, _first_ephemeral()), FIRST + 1000)
    for _ in range(ATTEMPTS_MAX):
        port = random.randrange(FIRST, end)  # noqa: S311 - spreads sandboxes that start at the same time; guards nothing
        probe = held.enter_context(socket.socket())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            if port not in _given and (name := _named(port)) is not None:
                _given[port] = name
                return port
    raise OSError(f"no free port between {FIRST} and {end}")


def _named(port: int) -> socket.socket | None:
    """What holds a port's name; None where another process does."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0lockstep-port-{port}")
    except OSError:
        name.close()
        return None
    return name


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return BEFORE_EPHEMERAL


async def listens(port: int) -> bool:
    """Whether a connection to the port on loopback is accepted."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
