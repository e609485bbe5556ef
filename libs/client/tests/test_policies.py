"""What an approving or releasing agent sees for itself: its policy, its registry, the votes; each bent thing keeps it from signing, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep_client.policies import AssetPolicy, Policy, PolicyEyes, read_policy
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.plan import CreditTransfer, TokenTransfer
from lockstep_kit.registry import GateRule, Registry, Role
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import Gate, Promise, PromiseKind, Refusal
from lockstep_testkit.factories import MATRIX

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
OWN = {Gate.APPROVE: "approver", Gate.RELEASE: "releaser"}


def key_of(name: str) -> SigningKey:
    return SigningKey(sha256(name.encode()))


def policy_of(world: Any) -> Policy:
    """All that the world's plan needs, and no more."""
    accounts, assets = [], []
    for leg in world.draft.legs:
        match leg.terms:
            case TokenTransfer() as token:
                accounts += [token.payer, token.payee]
            case CreditTransfer() as credit:
                accounts += [credit.debtor.iban, credit.creditor.iban]
            case _:
                continue
        assets.append(AssetPolicy(asset=leg.terms.amount.asset, minor_units_max=leg.terms.amount.minor_units))
    return Policy(assets=assets, accounts=accounts)


def agents(registry: Registry) -> Registry:
    """The registry with approver and releaser as agents, whom the matrix lets sign."""
    actors = [replace(each, agent=each.actor_id in OWN.values()) for each in registry.actors]
    rules = {gate: GateRule(MATRIX.gates[gate].roles, agents=True, agent_limits=None) for gate in OWN}
    return Registry(actors, registry.participants, [replace(MATRIX, gates={**MATRIX.gates, **rules})])


def rules(world: Any, gate: Gate, policy: Policy | None = None, **changes: Any) -> set[str]:
    """What keeps the agent of that gate from signing."""
    eyes = PolicyEyes(gate, key_of(OWN[gate]).public.key_id, agents(world.registry), policy or policy_of(world))
    return {each.rule for each in eyes.findings(world.view(**changes), NOW)}


@pytest.mark.parametrize("gate", list(OWN))
def test_what_is_allowed_is_signed(world: Any, gate: Gate) -> None:
    """A plan that policy, registry, gates and votes allow has no findings."""
    assert rules(world, gate) == set()


def _without(world: Any, **changes: Any) -> Policy:
    return policy_of(world).model_copy(update=changes)


@pytest.mark.parametrize("gate", list(OWN))
def test_the_policy_binds(world: Any, gate: Gate) -> None:
    """An amount above the policy's, an asset or an account that it does not list: each is named."""
    policy = policy_of(world)
    less = [each.model_copy(update={"minor_units_max": each.minor_units_max - 1}) for each in policy.assets]
    assert rules(world, gate, _without(world, assets=less)) == {"POLICY_AMOUNT"}
    assert rules(world, gate, _without(world, assets=policy.assets[:1])) == {"POLICY_AMOUNT"}
    for index in range(len(policy.accounts)):
        fewer = [each for place, each in enumerate(policy.accounts) if place != index]
        assert rules(world, gate, _without(world, accounts=fewer)) == {"POLICY_ACCOUNT"}


@pytest.mark.parametrize("gate", list(OWN))
def test_the_registry_binds(world: Any, gate: Gate) -> None:
    """By its own registry an agent may not sign: where the matrix takes no agents, where it has not the role, where the version is unknown."""
    people = agents(world.registry)

    def found(registry: Registry) -> set[str]:
        eyes = PolicyEyes(gate, key_of(OWN[gate]).public.key_id, registry, policy_of(world))
        return {each.rule for each in eyes.findings(world.view(), NOW)}

    assert found(Registry(people.actors, people.participants, [MATRIX])) >= {"AGENT_NOT_ABLE"}
    stripped = [replace(each, roles=frozenset({Role.VALIDATOR})) if each.actor_id == OWN[gate] else each for each in people.actors]
    assert "AGENT_NOT_ABLE" in found(Registry(stripped, people.participants, people.matrices.values()))
    assert found(Registry(people.actors, people.participants)) == {"SOD_VERSION_UNKNOWN"}


def _yes(until: Any, kind: PromiseKind = PromiseKind.GUARANTEED) -> Promise:
    return Promise(kind, until)


@pytest.mark.parametrize(
    ("rule", "bend"),
    [
        ("VOTE_SIGNATURE", lambda world: world.vote("payment", signer="maker")),
        ("VOTE_SUBJECT", lambda world: world.vote("payment", plan_digest=world.draft.header.legs_root)),
        ("VOTE_LOCK", lambda world: world.vote("payment", lock=world.draft.header.legs_root)),
        ("VOTE_NO", lambda world: world.vote("payment", answer=Refusal("BANK_PREPARE_FAILED", "AM04"))),
        ("VOTE_MISSING", lambda world: world.votes.pop("payment")),
        ("PROMISE_TOO_SHORT", lambda world: world.vote("payment", answer=_yes(NOW))),
        (
            "TWO_SOFT_LEGS",
            lambda world: [world.vote(leg, answer=_yes(None, PromiseKind.BEST_EFFORT)) for leg in ("payment", "delivery")],
        ),
    ],
)
def test_every_vote_is_checked_before_a_release(world: Any, rule: str, bend: Callable[[Any], object]) -> None:
    """A vote that is missing, a NO, forged, or about something else, and a promise that ends too soon, keep the agent from releasing."""
    bend(world)
    assert rule in rules(world, Gate.RELEASE)
    assert rules(world, Gate.APPROVE) == set(), "an approver signs before anybody has voted"


def test_the_coordinators_word_counts_for_nothing(world: Any) -> None:
    """Another digest over the votes, another plan's digest, gates that nobody opened: what the coordinator says is recomputed."""
    assert rules(world, Gate.RELEASE, votes_digest=bytes(32)) == {"VOTES_DIGEST_DIFFERS"}
    assert rules(world, Gate.RELEASE, plan_digest=bytes(32)) == {"PLAN_DIGEST_DIFFERS"}
    world.gates = [each for each in world.gates if each[1].statement.gate is not Gate.APPROVE]
    assert rules(world, Gate.RELEASE) == {"GATE_MISSING"}
    world.gates = [(name, replace(signed, signature=key_of("stranger").sign(b"x"))) for name, signed in world.gates]
    assert rules(world, Gate.APPROVE) == {"GATE_MISSING"}


def test_late_plans_and_accepted_risks(world: Any) -> None:
    """After the deadline nothing is signed."""
    eyes = PolicyEyes(Gate.APPROVE, key_of("approver").public.key_id, agents(world.registry), policy_of(world))
    late = world.draft.header.deadline + timedelta(seconds=1)
    assert "DEADLINE_PASSED" in {each.rule for each in eyes.findings(world.view(), late)}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("assets: []\n", "accounts"),
        ("assets: [{asset: EURO, minor_units_max: 1}]\naccounts: []\n", "assets[0].asset"),
        ("assets: [{asset: EUR, minor_units_max: -1}]\naccounts: []\n", "assets[0].minor_units_max"),
        ("assets: []\naccounts: []\nlimit: none\n", "limit"),
    ],
)
def test_policies_that_are_refused(text: str, field: str, tmp_path: Path) -> None:
    """A policy is read strictly."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(FieldInvalid) as caught:
        read_policy(path)
    assert caught.value.field == field
