"""Who may see a plan, act on it and bring one: the rule by itself, the tables of callers, and the tokens of lists."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access import Belonging, Client, may_act, may_create, may_read
from coordinator.pages import plan_place, plan_token, transition_place, transition_token
from coordinator.settings import METHODS, OPERATOR_METHODS, OPERATOR_READING_METHODS, READING_METHODS
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PartyId, PlanId
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.standing import Desk, Standing

PARTIES = st.frozensets(st.sampled_from([PartyId(each) for each in ("a", "b", "c")]), max_size=3)
NAMES = st.sampled_from(["spiffe://x/client/1", "spiffe://x/client/2"])
CLIENTS = st.builds(Client, NAMES, st.builds(Standing, PARTIES, st.sampled_from([None, *Desk])))
BELONGINGS = st.builds(Belonging, PARTIES, st.one_of(NAMES, st.just("")))


@given(CLIENTS, BELONGINGS)
def test_who_sees_and_who_acts(client: Client, belonging: Belonging) -> None:
    """A plan is seen by its parties' clients, by who brought it, by operators and auditors, and by nobody else; all but auditors may act on what they see."""
    party = any(each in belonging.parties for each in client.standing.parties)
    sees = party or client.client_id == belonging.creator or client.standing.desk in (Desk.OPERATOR, Desk.AUDITOR)
    assert may_read(client, belonging) is sees
    assert may_act(client, belonging) is (sees and client.standing.desk is not Desk.AUDITOR)
    assert may_create(client, belonging.parties) is (party and client.standing.desk is not Desk.AUDITOR)


@given(CLIENTS)
def test_what_is_not_there(client: Client) -> None:
    """A plan that is not there is seen by nobody, and acted on by nobody."""
    assert not may_read(client, None)
    assert not may_act(client, None)


@given(CLIENTS, CLIENTS, st.integers(min_value=0, max_value=10**17))
def test_tokens_are_their_clients_own(one: Client, other: Client, number: int) -> None:
    """A page token is of use to the client that was given it, for the list that it is of, and refused as malformed everywhere else."""
    plan, another = PlanId(str(uuid.UUID(int=5, version=4))), PlanId(str(uuid.UUID(int=6, version=4)))
    of_plans, of_transitions = plan_token(one, plan), transition_token(one, plan, number)
    assert plan_place(one, of_plans) == plan
    assert transition_place(one, plan, of_transitions) == number
    malformed = refusal_of(plan_place, one, "x")
    assert refusal_of(plan_place, one, of_transitions) == malformed
    assert refusal_of(transition_place, one, plan, of_plans) == malformed
    assert refusal_of(transition_place, one, another, of_transitions) == malformed
    if other.client_id != one.client_id:
        assert refusal_of(plan_place, other, of_plans) == malformed
        assert refusal_of(transition_place, other, plan, of_transitions) == malformed


def refusal_of(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(FieldInvalid) as refused:
        call(*arguments)
    return refused.value.field, refused.value.rule


def test_reading_methods() -> None:
    """What counts as reading is of the services, and what changes anything does not count so."""
    assert set(METHODS) - set(READING_METHODS) == {
        "CreatePlan",
        "CreatePlans",
        "ExecutePlan",
        "ExecutePlans",
        "CancelPlan",
        "SignGate",
        "SignGates",
    }
    assert set(OPERATOR_METHODS) - set(OPERATOR_READING_METHODS) == {"SignResolution", "ReplayDeadLetter"}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"methods": ["GetPlans"]}, "clients.x.methods[0]"),
        ({"methods": ["GetPlan"], "parties": ["No Party"]}, "clients.x.parties[0]"),
        ({"methods": ["GetPlan"], "parties": ["buyer"], "desk": "auditor"}, "clients.x.parties"),
        ({"methods": ["*"], "desk": "auditor"}, "clients.x.methods"),
        ({"methods": ["GetPlan", "SignGate"], "desk": "auditor"}, "clients.x.methods"),
    ],
)
def test_rows_that_are_refused(row: dict[str, Any], field: str) -> None:
    """A row that names no method of the service, no party, or an auditor who does more than read, is refused."""
    settings = CallerSettings.model_validate(row)
    with pytest.raises(FieldInvalid) as refused:
        settings.check("clients.x", METHODS, READING_METHODS)
    assert refused.value.field == field
