"""A draft of an auditor's trust file (docs/bundle.md) out of a registry. Pure.

Nobody's word is taken for it: the auditor compares keys with what their holders say, and roles, limits and matrices of duties with what was agreed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from lockstep_kit.canonical import time_text
from lockstep_kit.registry import Actor, GateRule, Limits, Matrix, RegisteredKey, Registry
from lockstep_kit.statements import Gate

TRUST_FORMAT: Final = "lockstep/trust/v1"


def trust_document(
    registry: Registry, *, origin: str, witness: str, chain: str, notary_registry: str, notary_accounts: Sequence[str] = ()
) -> dict[str, Any]:
    """A draft of a trust file out of a registry: for the auditor to hold against what everybody says of himself, and what was agreed on who may do what."""
    keys = {each.name: each.keys for each in registry.participants}
    accounts = {"accounts": list(notary_accounts)} if notary_accounts else {}
    document: dict[str, Any] = {
        "format": TRUST_FORMAT,
        "chain": {"chain": chain, "registry": notary_registry, **accounts},
        "participants": [{"name": name, "keys": _listed(each)} for name, each in sorted(keys.items())],
        "persons": [_person(each) for each in sorted(registry.actors, key=lambda each: each.actor_id)],
        "matrices": [_matrix(each) for _, each in sorted(registry.matrices.items())],
    }
    if "event-journal" in keys:
        document["journal"] = {"origin": origin, "keys": _listed(keys["event-journal"])}
    if "notary" in keys:
        document["witness"] = {"name": witness, "keys": [_text(each.public.octets) for each in keys["notary"]]}
    return document


def _person(actor: Actor) -> dict[str, Any]:
    limits = {each.role.value: _limits(each.limits) for each in actor.limits}
    return {
        "actor_id": actor.actor_id,
        "roles": sorted(role.value for role in actor.roles),
        "keys": _listed(actor.keys),
        **({"limits": limits} if limits else {}),
        **({"agent": True} if actor.agent else {}),
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    return {
        "version": matrix.version,
        "gates": {gate.value: _rule(matrix.gates[gate]) for gate in Gate},
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


def _limits(limits: Limits) -> str | list[dict[str, str]]:
    if limits is None:
        return "unlimited"
    return [{"asset": each.asset, "minor_units_max": str(each.minor_units_max)} for each in limits]


def _listed(keys: Sequence[RegisteredKey]) -> list[dict[str, str]]:
    return [
        {
            "public_key": _text(each.public.octets),
            "not_before": time_text(each.not_before),
            "not_after": time_text(each.not_after),
        }
        for each in keys
    ]


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
