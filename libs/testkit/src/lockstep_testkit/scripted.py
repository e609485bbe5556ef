"""A participant whose outside world is a script: for tests of the shared engine, where nothing outside matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from lockstep_kit.fence import Finding, Phase
from lockstep_kit.participant.ports import AssetCapability, Capabilities, Completion, LegWork
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import Promise, PromiseKind, Refusal
from lockstep_testkit.factories import evidence_of

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

YES = Promise(PromiseKind.GUARANTEED, None)
NO = Refusal("BANK_PREPARE_FAILED", "AM04", "not enough money")
STAYS = Refusal("REVERSAL_UNSUPPORTED", "", "what was paid stays paid")


@dataclass
class ScriptedOperations:
    """Does what it is told at once, or leaves it to the test."""

    #: Kinds of legs that it serves.
    kinds: tuple[LegKind, ...] = (LegKind.TOKEN_TRANSFER, LegKind.CREDIT_TRANSFER)
    #: Assets that it moves; none are told where there are none.
    assets: tuple[AssetCapability, ...] = ()
    #: Whether work is found done in the transaction that begins it; else the test reports findings.
    at_once: bool = True
    #: Legs that are voted NO.
    refused: set[str] = field(default_factory=set)
    #: Legs whose reversal is refused.
    irreversible: set[str] = field(default_factory=set)
    #: Raised by `begin` when set: the participant's own record could not be written.
    failure: Exception | None = None
    #: Everything that was begun.
    begun: list[LegWork] = field(default_factory=list)
    #: How often it was told that a transaction has committed.
    wakes: int = 0

    def capabilities(self) -> Capabilities:
        """All that the script says."""
        return Capabilities(tuple(self.kinds), PromiseKind.GUARANTEED, None, self.assets)

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Remember what was begun; the findings, if they come at once."""
        del tx, now
        if self.failure is not None:
            raise self.failure
        self.begun.extend(work)
        return [self.finding(each) for each in work] if self.at_once else []

    def wake(self) -> None:
        """Count."""
        self.wakes += 1

    def finding(self, work: LegWork) -> Completion:
        """What is found when a leg's work has gone well, or was refused as scripted."""
        match work.phase:
            case Phase.PREPARING if work.leg_id in self.refused:
                return Completion(work.plan_id, work.leg_id, Finding.VOTED_NO, refusal=NO)
            case Phase.PREPARING:
                return Completion(work.plan_id, work.leg_id, Finding.VOTED_YES, promise=YES)
            case Phase.COMMITTING:
                return Completion(work.plan_id, work.leg_id, Finding.EXECUTED, evidence=evidence_of(work.binding.leg))
            case Phase.ABORTING:
                return Completion(work.plan_id, work.leg_id, Finding.RELEASED)
            case Phase.REVERSING if work.leg_id in self.irreversible:
                return Completion(work.plan_id, work.leg_id, Finding.REVERSAL_REFUSED, refusal=STAYS)
            case Phase.REVERSING:
                return Completion(work.plan_id, work.leg_id, Finding.REVERSED, evidence=evidence_of(work.binding.leg))
            case _:
                raise AssertionError(f"no work is begun in {work.phase}")
