"""docs/protocol.md: the tables of the protocol and the fence, as the code holds them, with the rules around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.model import EventType, State
from coordinator.protocol import TABLE
from lockstep_kit import fence
from lockstep_kit.registry import GATE_ROLES

INTRODUCTION = """\
# The protocol

This page is generated from the tables that the services run (`make docs`). The coordinator's table is
`services/coordinator/src/coordinator/protocol.py`; the fence, which every participant runs, is
`libs/kit/src/lockstep_kit/fence.py`.

A plan is prepared by all its participants, decided once, executed, validated by a person, notarised and sealed. Before the
decision everything can be given up; after COMMIT everything goes forward. A time-out, a lost connection and any gRPC error
say nothing: only a participant's signed report is an outcome.
"""

KEYS = """\
## Decision keys

In the transaction that writes DRAFT the coordinator draws a key k for the plan and seals it to its service key and to an offline
recovery key. Each leg's key is HMAC-SHA256(k, "lockstep/key/v1" | plan_id | leg_id), the parts parted by the byte 0x1f; its
SHA-256 is the leg's lock. CreatePlan returns the locks, token payers sign over them, and they travel with Prepare into the escrow
and the bank message. A leg is given its own key, and no other, with its Commit. A key alone moves nothing: contract and bank also
authenticate the caller.

## Decision certificate

Every Commit carries the maker's, approver's and releaser's signatures, every leg's signed YES, the decision and when it was
written. A participant checks all of it against its own registry before any effect: who signed, in which role, that they are
different persons, that the releaser signed over exactly these votes, that its own vote is among them, that no promise had lapsed,
that the key opens its lock, and that the leg's Merkle path leads to the plan's `legs_root`. While the decision is delegated, only the delegated leg
may execute; every other leg needs that leg's signed Done. Releasing a prepared leg needs a signed NO, a signed refusal or release, a
signed REJECT or CANCEL, or the plan's deadline passed by the participant's own clock.
"""

FENCE = """\
## Fence

One row per plan and leg. A command is first compared with the row's digest (plan digest, leg and lock) and epoch; then this table
decides. A leg that is not known has no row. *replay* changes nothing and answers what stands; a rejection changes nothing and is
never an outcome.
"""

FINDINGS = """\
What a participant finds out by itself moves a leg like this; what is not here contradicts what was found before, and is told to
people.
"""


def page() -> str:
    """The page's text."""
    parts = [INTRODUCTION, diagram(), transitions(), gates(), KEYS, FENCE, commands(), FINDINGS, findings(), events()]
    return "\n".join(parts)


def diagram() -> str:
    """The states and the ways between them."""
    ways = sorted({(left.value, arc.state.value) for (left, _, _), arc in TABLE.items() if left is not arc.state})
    lines = [f"    {left} --> {entered}" for left, entered in ways]
    return "\n".join(
        ["## States", "", "```mermaid", "stateDiagram-v2", "    [*] --> DRAFT", *lines, "    CLOSED --> [*]", "```", ""]
    )


def transitions() -> str:
    """The coordinator's table."""
    order = list(State)
    rows = [
        (
            left.value,
            decision.value if decision else "",
            cause.value,
            arc.state.value,
            arc.decision.value if arc.decision else "",
            arc.event.value,
            "yes" if arc.escalates else "",
        )
        for (left, decision, cause), arc in sorted(
            TABLE.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or "", item[0][2])
        )
    ]
    return "## Transitions\n\n" + table(
        ("state", "decision", "cause", "to state", "decision after", "journal event", "escalates"), rows
    )


def gates() -> str:
    """Who may open which gate."""
    rows = [(gate.value, ", ".join(sorted(role.value for role in roles))) for gate, roles in GATE_ROLES.items()]
    return (
        "## Gates\n\nA gate is opened or refused by an Ed25519 signature of a registered person with one of these roles. Maker, approver,\n"
        "releaser and validator are four different persons.\n\n" + table(("gate", "roles"), rows)
    )


def commands() -> str:
    """The fence's table."""
    rows = []
    for phase in (None, *fence.Phase):
        cells = [phase.value if phase else "(not known)"]
        for command in fence.Command:
            told = fence.TABLE[phase, command]
            if isinstance(told, fence.Phase):
                cells.append(f"begin: {told.value}")
            else:
                cells.append("replay" if isinstance(told, fence.Action) else f"rejected: {told.value}")
        rows.append(cells)
    return table(("phase", *(command.value for command in fence.Command)), rows)


def findings() -> str:
    """The fence's other table."""
    rows = [(phase.value, finding.value, entered.value) for (phase, finding), entered in fence.FINDINGS.items()]
    return table(("phase", "finding", "to phase"), rows)


def events() -> str:
    """The journal's event types."""
    names = "\n".join(f"- `{each.value}`" for each in EventType)
    return f"## Journal events\n\nEvery transition is recorded by exactly one event. There are these types, and no others:\n\n{names}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines) + "\n"
