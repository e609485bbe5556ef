"""What the monitor keeps between two runs: how far it has read, the tree over that, and what it has raised.

The file is written beside its place, synced, and moved there, so that a monitor that is killed at any moment finds the one before or the one after. A monitor
that was killed before it was written reads again what it had read, and raises nothing twice: the same finding has the same id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lockstep_kit.durable_files import write_durably
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest
from lockstep_monitor.log import Tree

FORMAT: Final = "lockstep/monitor-state/v1"
_Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Annotated[str, StringConstraints(pattern="^lockstep/monitor-state/v1$")]
    log_id: str
    resume_token: str
    size: Annotated[int, Field(ge=0)]
    peaks: list[_Hash]
    shown: Annotated[int, Field(ge=0)]
    open_plans: list[str]
    raised: list[str]


@dataclass(slots=True)
class State:
    """How far the monitor has got."""

    #: Log that positions are of, or "" before the first message.
    log_id: str = ""
    #: The journal goes on behind it.
    resume_token: str = ""
    #: Tree over what was read.
    tree: Tree = field(default_factory=Tree)
    #: Entries under the largest checkpoint that the journal has shown.
    shown: int = 0
    #: Plans that were not sealed.
    open_plans: list[str] = field(default_factory=list)
    #: Ids of findings that were raised.
    raised: set[str] = field(default_factory=set)


def read_state(path: Path) -> State:
    """The state in a file; the beginning where there is none.

    Raises:
        FieldInvalid: the file is of another form: it is looked at by a person, and never taken for the beginning.
    """
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return State()
    try:
        told = _File.model_validate_json(octets)
    except ValidationError as error:
        raise FieldInvalid("state_file", f"must be a state of the monitor: {error.errors()[0]['msg']}") from None
    if told.size.bit_count() != len(told.peaks):
        raise FieldInvalid("state_file", "must be a state of the monitor: the tree's hashes are not those of its size")
    tree = Tree.of(told.size, [Digest(bytes.fromhex(each)) for each in told.peaks])
    return State(told.log_id, told.resume_token, tree, told.shown, list(told.open_plans), set(told.raised))


def write_state(path: Path, state: State) -> None:
    """Keep the state, durably."""
    document = {
        "format": FORMAT,
        "log_id": state.log_id,
        "resume_token": state.resume_token,
        "size": state.tree.size,
        "peaks": [] if state.tree.peaks is None else [each.hex() for each in state.tree.peaks.listed()],
        "shown": state.shown,
        "open_plans": state.open_plans,
        "raised": sorted(state.raised),
    }
    write_durably(path, json.dumps(document).encode(), mode=0o666)
