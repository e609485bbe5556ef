"""What an auditor trusts who has asked everybody for their keys, and holds the registry and the matrices of duties himself; and its trust file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from eth_account import Account

from lockstep_kit.amounts import AssetId
from lockstep_kit.canonical import time_text
from lockstep_kit.ids import sha256
from lockstep_kit.registry import Actor, GateRule, Limit, Limits, Matrix, Participant, RegisteredKey, Registry, Role, Threshold
from lockstep_kit.signing import SigningKey
from lockstep_kit.sod import PLURAL
from lockstep_kit.statements import Gate
from lockstep_testkit.bundles.history import REGISTRY, TOKEN
from lockstep_testkit.factories import CHAIN, KEYS_FROM, KEYS_UNTIL, MATRIX, PARTICIPANTS, PEOPLE, actor_of, key_of, registered

ORIGIN: Final = "lockstep.local/journal"
WITNESS: Final = "lockstep.local/notary"
#: By the second version of the matrix from so many euro cents on two approve, two release and two validate; agents approve below.
FOUR_EYES_FROM: Final = 10_000
AGENTS_MAX: Final = 9_999
#: Key of the account by which roots are anchored.
ACCOUNT_KEY: Final = sha256(b"operator of the registry")

_FOUR_EYES: Final = (Threshold(AssetId("EUR"), FOUR_EYES_FROM, 2),)
_AGENTS: Final = (Limit(AssetId("EUR"), AGENTS_MAX), Limit(TOKEN, 10**12))


def _four_eyes() -> Matrix:
    gates = {gate: replace(rule, thresholds=_FOUR_EYES) if gate in PLURAL else rule for gate, rule in MATRIX.gates.items()}
    gates[Gate.APPROVE] = replace(gates[Gate.APPROVE], agents=True, agent_limits=_AGENTS)
    return Matrix(2, gates, MATRIX.different_persons)


MATRICES: Final = (MATRIX, _four_eyes())
#: Beside those of other tests: the second of each pair of eyes, and an agent that approves.
ACTORS: Final[tuple[Actor, ...]] = (
    *(actor_of(name, (role,)) for name, role in PEOPLE.items()),
    actor_of("heidi", (Role.APPROVER,)),
    actor_of("ivan", (Role.RELEASER,)),
    actor_of("judy", (Role.VALIDATOR,)),
    actor_of("robot", (Role.APPROVER,), agent=True),
)


def registry(*changed: Actor, matrices: Iterable[Matrix] = MATRICES) -> Registry:
    """The auditor's registry, with other actors in the places of those of their names."""
    others = {each.actor_id: each for each in changed}
    participants = [Participant(name, (registered(key_of(name)),)) for name in sorted(set(PARTICIPANTS.values()))]
    return Registry([others.get(each.actor_id, each) for each in ACTORS], participants, matrices)


def listed(key: SigningKey, not_before: datetime = KEYS_FROM, not_after: datetime = KEYS_UNTIL) -> dict[str, str]:
    """A key as a trust file lists it."""
    return _key(registered(key, not_before, not_after))


def trust(known: Registry | None = None) -> dict[str, Any]:
    """The trust file."""
    held = known or registry()
    return {
        "format": "lockstep/trust/v1",
        "journal": {"origin": ORIGIN, "keys": [listed(key_of("event-journal"))]},
        "witness": {"name": WITNESS, "keys": [_text(key_of(WITNESS).public.octets)]},
        "chain": {"chain": CHAIN, "registry": REGISTRY, "accounts": [str(Account.from_key(ACCOUNT_KEY).address)]},
        "participants": [{"name": each.name, "keys": [_key(key) for key in each.keys]} for each in held.participants],
        "persons": [_person(each) for each in sorted(held.actors, key=lambda each: each.actor_id)],
        "matrices": [_matrix(each) for each in held.matrices.values()],
    }


def _person(actor: Actor) -> dict[str, Any]:
    # Roles that sign for nothing that moves value have no limits.
    limits = {each.role.value: _limits(each.limits) for each in actor.limits if each.role not in (Role.OPERATOR, Role.AUDITOR)}
    return {
        "actor_id": actor.actor_id,
        "roles": sorted(role.value for role in actor.roles),
        "keys": [_key(key) for key in actor.keys],
        **({"limits": limits} if limits else {}),
        **({"agent": True} if actor.agent else {}),
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    return {
        "version": matrix.version,
        "gates": {gate.value: _rule(rule) for gate, rule in matrix.gates.items()},
        "different_persons": [[gate.value for gate in Gate if gate in group] for group in matrix.different_persons],
    }


def _rule(rule: GateRule) -> dict[str, Any]:
    thresholds = [
        {"asset": each.asset, "from_minor_units": str(each.from_minor_units), "signatures": each.signatures}
        for each in rule.thresholds
    ]
    return {
        "roles": sorted(role.value for role in rule.roles),
        **({"thresholds": thresholds} if thresholds else {}),
        **({"agents": _limits(rule.agent_limits)} if rule.agents else {}),
    }


def _limits(limits: Limits) -> Any:
    return (
        "unlimited" if limits is None else [{"asset": each.asset, "minor_units_max": str(each.minor_units_max)} for each in limits]
    )


def _key(key: RegisteredKey) -> dict[str, str]:
    return {
        "public_key": _text(key.public.octets),
        "not_before": time_text(key.not_before),
        "not_after": time_text(key.not_after),
    }


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
