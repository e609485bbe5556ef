"""docs/protocol.md: the tables of the protocol and the fence, as the code holds them, with the rules around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.model import EventType, State
from coordinator.operators import ENDS, Ends, Standing, moves
from coordinator.protocol import TABLE
from lockstep_kit import fence
from lockstep_kit.sod import OPENING, PLURAL, SIGNATURES_MAX
from lockstep_kit.statements import Gate

INTRODUCTION = """\
# The protocol

This page is generated from the tables that the services run (`make docs`). The coordinator's table is
`services/coordinator/src/coordinator/protocol.py`; the fence, which every participant runs, is
`libs/kit/src/lockstep_kit/fence.py`.

A plan is prepared by all its participants, decided once, executed, validated by a person, notarised and sealed. Before the
decision everything can be given up; after COMMIT everything goes forward. A time-out, a lost connection and any gRPC error
say nothing: only a participant's signed report is an outcome.
"""

GATES = """\
## Gates

A gate is opened or refused by an Ed25519 signature of a registered actor. Which roles open which gate, who must differ from whom, from
which amount on a gate takes several persons, and whether and up to which amount agents sign, is the *matrix of duties*: data, in
versions, one of which every plan names in its head (`sod_version`). The coordinator and every participant have matrices, actors, roles
and limits in a registry of their own; a version that a registry does not have is refused by name, at CreatePlan and at Prepare.

Whatever a matrix says, maker, approver, releaser and validator are different persons, an auditor opens nothing, and agents stay below
the amount from which a gate takes several persons: a matrix that says less is not loaded.

Amounts are minor units by asset: the coordinator judges by the sums over all legs, a participant by its own leg. Limits and thresholds
are monotone, so that with equal registries no participant refuses a decision that the coordinator let through. A role that signs for
amounts has limits or says `unlimited`; an asset that is not among its limits is not allowed. To refuse a gate or to cancel takes the
role alone.

A gate that takes several signatures is open while so many different persons' unexpired approvals stand; `Plan.waiting` says how many
are missing and who can give them, and the certificate carries all of them.

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
that the key opens its lock, and that the leg's Merkle path leads to the plan's `legs_root`. While the decision is delegated, only
the delegated leg may execute; every other leg needs that leg's signed Done. The votes say which leg that is: the first whose
promise can lapse. A Done names the digest of the decision that its participant was told, so that the journal shows whether all
were told the same ([monitor.md](monitor.md)).
Releasing a prepared leg needs a signed NO, a signed refusal, release or reversal, a
signed REJECT or CANCEL, or the plan's deadline passed by the participant's own clock.
"""

RESOLUTIONS = """\
## Resolutions

An escalation is resolved by two operators who sign the same (`lockstep.type.v1.Resolution`) and have signed none of the plan's gates. A
resolution takes effect once, in the transaction of the second signature; to do the same again is another resolution, with another sentence.
What may be done follows from the plan's state and from how the ticket's leg stands:

- *KNOWN*: every order about a settling leg is answered; *UNKNOWN*: nobody can say what became of the ticket's leg;
  *UNKNOWN_ELSEWHERE*: of another leg; *REVERSING*, *REVERSING_ELSEWHERE*: only reversals are unanswered, of the ticket's leg or of another;
  *DENIED*: nothing but operators' own word says that the ticket's leg took no effect; *SETTLED_OUTSIDE*: operators said so, and the plan is
  MIXED for ever.
- RETRY sends again now what waits, dead letters included. A plan that is PARTIALLY_EXECUTED / COMMIT goes on with it where nothing is refused for good
  and nothing is contradicted; its evidence is validated anew. RETRY_LEG names the leg, and takes the operators' own denial back.
- REVERSE unwinds: what was executed is reversed, what is held is released. It waits until it is known of every leg whether it took effect; a
  new order takes the place of one whose reversal was refused, ran out, or stays unanswered.
- RESOLVE_LEG names the leg, says whether it took effect, and shows it: that is the answer from then on. A later report of its participant that says
  otherwise calls operators again. What a participant has answered is never answered by operators.
- RESOLVE_PLAN names no leg: the plan was settled outside.
"""

ENDINGS = """\
A ticket stays open whatever else two operators decide; FORGET alone closes it, where its matter is over. So a plan of which one leg took effect and
another did not is never without an open ticket, unless it is MIXED. After CLOSED every ticket can be closed.
"""

FENCE = """\
## Fence

One row per plan and leg. A command is first compared with the row's digest (plan digest, leg and lock) and epoch; then this table
decides. A leg that is not known has no row. *replay* changes nothing and answers what stands; a rejection changes nothing and is
never an outcome. A Reverse under an order that the row has seen is a replay in every phase.
"""

FINDINGS = """\
What a participant finds out by itself moves a leg like this; what is not here contradicts what was found before, and is told to
people.
"""

REVERSAL = """\
## Reversal

What a leg brought about is undone only in UNWIND_PENDING, and only by an order that the participant checks itself: the signatures of two
operators over the same resolution REVERSE, neither of whom opened a gate of the plan by the certificate that the participant keeps; or,
where the signed plan says `unwind_automatically`, the signed REFUSED of another of its legs. `LegReport.outcome` stays DONE; the signed answer,
REVERSED or REVERSAL_REFUSED, stands beside it in `LegReport.reversal` and names the order that it answers.

An order is named by what was signed (a plan's policy gives one order only), and each is carried out or refused once: a copy that comes late,
after the plan was completed because its reversal had been refused, is a replay. So the coordinator gives no plan a way to its end while an
order is unanswered, and none after a leg was undone. Signatures run out: an order that its participant hears of too late is Rejected, and a
new one takes its place, in UNWIND_PENDING too. A participant that cannot reverse says so in a signed REVERSAL_REFUSED (`REVERSAL_UNSUPPORTED`).
`Describe` tells which assets are reversible; a plan that unwinds by itself and moves a token that is not fails its checks.
"""


def page() -> str:
    """The page's text."""
    parts = [
        INTRODUCTION,
        diagram(),
        transitions(),
        gates(),
        RESOLUTIONS,
        resolutions(),
        ENDINGS,
        endings(),
        KEYS,
        FENCE,
        commands(),
        FINDINGS,
        findings(),
        REVERSAL,
        events(),
    ]
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
    rows = [
        (
            gate.value,
            "yes" if gate in OPENING else "",
            f"1 to {SIGNATURES_MAX}" if gate in PLURAL else "1",
            "yes" if gate in OPENING else "",
        )
        for gate in Gate
    ]
    return GATES + table(("gate", "by different persons", "signatures", "limits apply"), rows)


def resolutions() -> str:
    """What operators may do, where."""
    rows = []
    for state in State:
        for decision in sorted({key[1] for key in TABLE if key[0] is state} or {None}, key=str):
            found = [moves(state, decision, standing) for standing in Standing]
            cells = [", ".join(sorted(each.value for each in every)) for every in found]
            rows.append((state.value, decision.value if decision else "", *cells))
    return table(("state", "decision", *(each.value for each in Standing)), rows)


def endings() -> str:
    """When a ticket's matter is over."""
    rows = []
    for each in Ends:
        named = sorted(reason for reason, found in ENDS.items() if found is each)
        rows.append((each.value, ", ".join(named) or "every other: those that came with the transition that stopped the plan"))
    return table(("over when", "reasons"), rows)


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
