"""The parts of the search. Together they cover every row of production's tables; each alone can be searched to its end in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coordinator.model import State
from lockstep_kit.plan import LegKind, Policy
from lockstep_kit.statements import Gate, Promise, Refusal, Verdict
from model.world import BRIEF, FIRM, NO, SOFT, Config, Fault, Shape

YES: Final = Verdict.APPROVE
REJECT: Final = Verdict.REJECT
GO: Final = frozenset({(Gate.APPROVE, YES), (Gate.RELEASE, YES), (Gate.VALIDATE, YES)})
STOP: Final = frozenset({(Gate.APPROVE, REJECT), (Gate.RELEASE, REJECT), (Gate.CANCEL, YES)})

TOKENS: Final = Shape("tokens", LegKind.TOKEN_TRANSFER)
CASH: Final = Shape("cash", LegKind.CREDIT_TRANSFER)
NOTARY: Final = Shape("notarisation", LegKind.NOTARISATION, (FIRM,), prompt=True)
JOURNAL: Final = Shape("journal", LegKind.JOURNAL, (FIRM,), prompt=True)


CANCEL: Final = frozenset({(Gate.CANCEL, YES)})
REJECTED: Final = frozenset({(Gate.VALIDATE, REJECT)})


def leg(shape: Shape, *answers: Promise | Refusal, after: tuple[str, ...] = (), prompt: bool = False) -> Shape:
    """A leg that votes so, YES unless told otherwise."""
    return replace(shape, answers=answers or (FIRM,), depends_on=after, prompt=prompt)


SURE_TOKENS: Final = leg(TOKENS)
SURE_CASH: Final = leg(CASH)
SOFT_CASH: Final = leg(CASH, SOFT)
SLOW_NOTARY: Final = leg(NOTARY)
SLOW_JOURNAL: Final = leg(JOURNAL)
FEES: Final = Shape("fees", LegKind.CREDIT_TRANSFER, (FIRM,))
GUARANTEE: Final = Shape("guarantee", LegKind.ISSUE_INSTRUMENT, (FIRM,))
PREPARED: Final = State.PREPARED

CONFIGS: Final = (
    # Before the decision: every way to it, and every way out.
    Config("drafting", (leg(TOKENS, prompt=True), leg(CASH, prompt=True), JOURNAL), GO | STOP, start=State.DRAFT),
    Config("voting", (leg(TOKENS, FIRM, NO), leg(CASH, FIRM, NO), JOURNAL), GO | CANCEL),
    Config("voting-crash", (leg(TOKENS, FIRM, NO), leg(CASH, prompt=True), JOURNAL), CANCEL, {Fault.CRASH: 1}, working_heard=True),
    Config("voting-crashes", (leg(TOKENS, FIRM, NO), JOURNAL), CANCEL, {Fault.CRASH: 2}, working_heard=True, skew=True),
    Config("promises", (leg(TOKENS, FIRM, SOFT, prompt=True), leg(CASH, SOFT, BRIEF), JOURNAL), GO, {Fault.LAPSE: 1}),
    # The decision, and after it.
    Config(
        "closing",
        (SURE_TOKENS, SURE_CASH, SLOW_NOTARY, SLOW_JOURNAL),
        GO | STOP | REJECTED,
        {Fault.BREAK: 1, Fault.LATE: 1, Fault.CRASH: 1},
        start=PREPARED,
    ),
    Config(
        "executing",
        (SURE_TOKENS, SURE_CASH, JOURNAL),
        GO | CANCEL,
        {Fault.CRASH: 2, Fault.BREAK: 1, Fault.LAPSE: 1},
        start=PREPARED,
        working_heard=True,
        skew=True,
    ),
    Config(
        "three",
        (SURE_TOKENS, leg(CASH, after=("tokens",)), FEES, NOTARY, JOURNAL),
        GO | CANCEL,
        {Fault.CRASH: 2, Fault.BREAK: 1},
        start=PREPARED,
    ),
    Config(
        "delegated",
        (SURE_TOKENS, SOFT_CASH, JOURNAL),
        GO | CANCEL,
        {Fault.CRASH: 2, Fault.BREAK: 1, Fault.LAPSE: 1},
        start=PREPARED,
        working_heard=True,
        skew=True,
    ),
    Config(
        "delegated-three",
        (SURE_TOKENS, SOFT_CASH, FEES, JOURNAL),
        GO | CANCEL,
        {Fault.CRASH: 1, Fault.BREAK: 1},
        start=PREPARED,
        skew=True,
    ),
    Config(
        "irrevocable",
        (GUARANTEE, SURE_TOKENS, JOURNAL),
        GO | CANCEL,
        {Fault.CRASH: 1, Fault.BREAK: 1},
        start=PREPARED,
    ),
    Config(
        "risky",
        (leg(TOKENS, SOFT), SOFT_CASH, FEES, JOURNAL),
        GO,
        {Fault.CRASH: 1, Fault.LAPSE: 1},
        policy=Policy(accept_expiry_risk=True),
        start=PREPARED,
        skew=True,
    ),
    # What is stuck, and what operators do about it.
    Config(
        "operators",
        (SURE_TOKENS, SURE_CASH, JOURNAL),
        GO,
        {Fault.BREAK: 1, Fault.VERB: 2, Fault.LATE: 1},
        start=PREPARED,
    ),
    Config(
        "contradicted",
        (SURE_TOKENS, SURE_CASH, JOURNAL),
        GO | CANCEL,
        {Fault.ROGUE: 1, Fault.LAPSE: 1, Fault.STUCK: 1, Fault.VERB: 1},
        start=PREPARED,
    ),
    Config("returned", (SURE_TOKENS, SURE_CASH, NOTARY, JOURNAL), GO, {Fault.RETURN: 1, Fault.VERB: 1}, start=PREPARED),
    Config(
        "unwinding",
        (SURE_TOKENS, SURE_CASH, FEES, JOURNAL),
        GO,
        {Fault.BREAK: 1, Fault.CRASH: 1, Fault.STUCK: 1},
        policy=Policy(unwind_automatically=True),
        start=PREPARED,
    ),
    # What is set back, and who lies.
    Config("forgetful", (SURE_TOKENS, SURE_CASH, JOURNAL), GO | CANCEL, {Fault.LOSE: 1, Fault.CRASH: 1}, start=PREPARED),
    Config("restored", (SURE_TOKENS, SURE_CASH, JOURNAL), GO | CANCEL, {Fault.RESTORE: 1, Fault.CRASH: 1}, start=PREPARED),
    Config(
        "restored-delegated",
        (SURE_TOKENS, SOFT_CASH, JOURNAL),
        GO | CANCEL,
        {Fault.RESTORE: 1, Fault.BREAK: 1},
        start=PREPARED,
        skew=True,
    ),
    Config("hostile", (leg(TOKENS, FIRM, NO), leg(CASH, prompt=True), JOURNAL), GO, {Fault.HOSTILE: 1}, thrifty=False),
)
