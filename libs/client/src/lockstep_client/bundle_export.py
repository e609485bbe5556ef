"""Gathers a plan's evidence from journal, notary and coordinator, and writes it as one file."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from lockstep_client.bundle_document import Gathered, Witnessed, sealed_as
from lockstep_client.client import LockstepClient
from lockstep_client.readers import JournalClient, NotaryClient
from lockstep_kit.errors import LockstepError

_T = TypeVar("_T")

PENDING: Final = "CHECKPOINT_PENDING"
ALARM: Final = "WITNESS_ALARM"
#: How the services say that there is no such thing, or not yet.
_ABSENT: Final = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION})
_PAUSE_SECONDS: Final = 0.5


async def gather(
    plan_id: str, coordinator: LockstepClient, journal: JournalClient, notary: NotaryClient, *, wait_seconds: float
) -> Gathered:
    """All that is shown of a plan. A checkpoint that is still to be made or witnessed is waited for, at most so long; an anchor is not.

    Raises:
        LockstepError: nothing is known of the plan, a service cannot be reached, or the journal's checkpoint did not come.
    """
    until = time.monotonic() + wait_seconds
    exported = await _once_there(lambda: journal.export_bundle(plan_id), until)
    ended = sealed_as(exported)
    log = b""
    if ended is not None and ended[0] != "COMMITTED":
        shown = await _or_none(lambda: coordinator.get_abort_audit_log(plan_id, ended[1]))
        log = shown.log if shown is not None else b""
    witnessed, alarm = None, ""
    try:
        witnessed = await _witnessed(journal, notary, exported.checkpoint.tree_size, until)
    except LockstepError as error:
        # The witness refuses what the journal shows: that is said, and the rest of the evidence is worth having all the more.
        if error.reason != ALARM:
            raise
        alarm = error.message
    return Gathered(
        plan=await coordinator.get_plan(plan_id),
        journal=exported,
        keys=await journal.key_history(),
        witnessed=witnessed,
        alarm=alarm,
        notarisation=await _or_none(lambda: notary.get_notarisation(plan_id)),
        audit_log=log,
    )


async def _witnessed(journal: JournalClient, notary: NotaryClient, size: int, until: float) -> Witnessed | None:
    """The witness's checkpoint that holds all entries: the smallest one that is anchored, else the smallest one."""
    found = await _or_none(lambda: notary.witnessed_checkpoint(size, anchored=True))
    if found is None:
        found = await _or_none(lambda: _once_there(lambda: notary.witnessed_checkpoint(size, anchored=False), until))
    if found is None:
        return None
    # Where the journal shows less than its witness saw, that is what the bundle must tell: an empty path proves nothing.
    path = await _or_none(lambda: journal.consistency_path(size, found.tree_size)) if found.tree_size > size else ()
    return Witnessed(found, path or ())


async def _once_there(ask: Callable[[], Awaitable[_T]], until: float) -> _T:
    """The answer, asked for again as long as the checkpoint is still to come, and until then at the most."""
    while True:
        try:
            return await ask()
        except LockstepError as error:
            if error.reason != PENDING or time.monotonic() >= until:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _or_none(ask: Callable[[], Awaitable[_T]]) -> _T | None:
    try:
        return await ask()
    except LockstepError as error:
        if error.code not in _ABSENT or error.reason == ALARM:
            raise
        return None


def write_new(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document to a new file: the whole of it is there, or nothing.

    Raises:
        FileExistsError: there is such a file already.
    """
    descriptor, drafted = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(drafted).chmod(0o644)
        path.hardlink_to(drafted)
    finally:
        Path(drafted).unlink()
