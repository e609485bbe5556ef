"""The digest of a decision: the same for all who were told the same, another for whoever was told anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from lockstep_kit.certificate import Certificate, Decision
from lockstep_kit.decisions import decision_told
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import BEST_EFFORT, delivery_versus_payment

PLAN = delivery_versus_payment()
TOLD = PLAN.certificate(PLAN.vote("cash", BEST_EFFORT), decision=Decision.DELEGATED, delegated="cash")


def test_a_delegated_leg_and_its_followers_are_told_the_same() -> None:
    """What follows on the delegated leg's Done is the same decision."""
    follows = replace(TOLD, decision=Decision.COMMIT, delegated_outcome=PLAN.outcome("cash"))
    assert decision_told(follows) == decision_told(TOLD)


@pytest.mark.parametrize(
    "bend",
    [
        lambda told: replace(told, decided_at=told.decided_at - timedelta(microseconds=1)),
        lambda told: replace(told, approve=PLAN.gate(Gate.APPROVE)),
        lambda told: replace(told, delegated_leg_id="tokens"),
        lambda told: replace(told, votes=told.votes[:-1]),
        lambda told: replace(told, header=delivery_versus_payment().header),
    ],
    ids=["time", "gate", "delegate", "votes", "plan"],
)
def test_anything_else_is_another_decision(bend: Callable[[Certificate], Certificate]) -> None:
    """Another time, gate, delegate, vote or plan has another digest."""
    assert decision_told(bend(TOLD)) != decision_told(TOLD)
