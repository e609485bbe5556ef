"""Random events about one plan: the tests' own module."""

from __future__ import annotations

import random
from datetime import timedelta

from protocol_drive import DEADLINE, LEGS, NO, NOW, SETTLING, SOFT, Drive

from coordinator import facts
from coordinator.model import (
    ChecksBegun,
    ChecksPassed,
    Event,
    ExecuteAsked,
    GateRecord,
    GateSigned,
    LegNews,
    OperatorsAnswered,
    OperatorsEvidence,
    OperatorsForgot,
    OperatorsRedrove,
    OperatorsSettled,
    Order,
    PersonNeeded,
    Tick,
)
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId, LegId, sha256
from lockstep_kit.reversals import OperatorsResolution, order_digest
from lockstep_kit.statements import Gate, OutcomeKind, SignedOutcome, Verdict
from lockstep_testkit.factories import SIGNERS, delivery_versus_payment, evidence_of


class Anything:
    """Random events about one plan; signed statements are made once."""

    def __init__(self) -> None:
        self.case = delivery_versus_payment(deadline=DEADLINE)
        self.votes = {leg: [self.case.vote(leg), self.case.vote(leg, SOFT), self.case.vote(leg, NO)] for leg in LEGS}
        self.outcomes = {leg: {kind: self.case.outcome(leg, kind) for kind in OutcomeKind} for leg in LEGS}
        self.gates = [
            GateRecord(self.case.gate(gate, verdict=verdict), ActorId(SIGNERS[gate]), NOW)
            for gate in Gate
            for verdict in Verdict
            if gate is not Gate.MAKE and not (gate is Gate.CANCEL and verdict is Verdict.REJECT)
        ]
        self.evidence = {leg: evidence_of(self.case.leg(leg)) for leg in LEGS}
        self.unwound = Drive(self.case).unwound()
        order = order_digest(OperatorsResolution(self.unwound.mandate.signatures))
        self.reversals: dict[str, dict[Phase, list[SignedOutcome | None]]] = {
            leg: {
                Phase.REVERSED: [self.case.outcome(leg, OutcomeKind.REVERSED, order=order)],
                Phase.COMMITTED: [
                    None,
                    self.case.outcome(leg, OutcomeKind.REVERSAL_REFUSED, order=order),
                    self.case.outcome(leg, OutcomeKind.REVERSAL_REFUSED, order=sha256(b"older")),
                ],
            }
            for leg in SETTLING
        }

    def event(self, rng: random.Random, drive: Drive) -> Event:
        leg_id = LegId(rng.choice(LEGS))
        kind = rng.randrange(20)
        if kind < 11:
            return self.news(rng, drive, leg_id)
        if kind < 14:
            return GateSigned(rng.choice(self.gates[: 1 if rng.random() < 0.3 else None]))
        if kind < 17:
            asked: list[Event] = [ExecuteAsked(), ChecksBegun(), ChecksPassed()]
            return rng.choice(asked)
        if kind == 17:
            drive.now += timedelta(seconds=rng.choice([1, 400, 2_000]))
            return Tick()
        settling = LegId(rng.choice(SETTLING))
        told: list[Event] = [
            OperatorsRedrove(settling),
            OperatorsRedrove(),
            *(OperatorsForgot(each) for each in drive.plan.tickets[:1]),
            self.unwound,
            self.unwound,
            OperatorsSettled("by hand"),
            OperatorsAnswered(settling, OperatorsEvidence(rng.random() < 0.5, self.evidence[settling])),
            PersonNeeded("PARTICIPANT_SIGNATURE", settling, ""),
        ]
        return rng.choice(told)

    def news(self, rng: random.Random, drive: Drive, leg_id: LegId) -> Event:
        """What a participant may say: its vote never changes, and a phase comes with what bears it out."""
        leg = facts.leg(drive.plan, leg_id)
        undoing = (Phase.REVERSING, Phase.REVERSED)
        possible = [each for each in Phase if each not in undoing or leg.order is Order.REVERSE]
        phase = rng.choice([Phase.PREPARED] * 4 + possible)
        no = self.votes[leg_id][2]
        vote = leg.vote
        if vote is None and phase in (Phase.PREPARED, Phase.COMMITTING, Phase.COMMITTED):
            vote = self.votes[leg_id][rng.random() < 0.2]
        elif vote is None and phase is Phase.REFUSED:
            vote = no
        outcome = {
            **dict.fromkeys((Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED), self.outcomes[leg_id][OutcomeKind.DONE]),
            Phase.RELEASED: self.outcomes[leg_id][OutcomeKind.RELEASED],
            Phase.REFUSED: None if vote is no else self.outcomes[leg_id][OutcomeKind.REFUSED],
        }.get(phase)
        trouble = "it contradicts" if rng.random() < 0.05 else ""
        reversal = rng.choice(self.reversals.get(leg_id, {}).get(phase, [None]))
        return LegNews(leg_id, phase, leg.revision + 1, vote, outcome, trouble, reversal)
