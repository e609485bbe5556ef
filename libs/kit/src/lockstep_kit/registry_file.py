"""The registry as a YAML file, strictly read: a key that is no field, a key twice, a time without an offset are refused by name.

actors:
  - actor_id: alice
    roles: [maker]
    keys: [{public_key: <base64 of 32 bytes>, not_before: 2026-01-01T00:00:00Z, not_after: 2036-01-01T00:00:00Z}]
    limits: {maker: [{asset: EUR, minor_units_max: 100000000}]}    # of maker, approver, releaser, validator; or: {maker: unlimited}
    agent: true                                                    # a process that signs by itself; absent: a person
participants:
  - name: bank-gateway
    keys: [{…}]
matrices:                                                          # absent: no plan's gates can be judged
  - version: 1
    different_persons: [[MAKE, APPROVE, RELEASE, VALIDATE]]
    gates:
      MAKE: {roles: [maker]}
      APPROVE:
        roles: [approver]
        thresholds: [{asset: EUR, from_minor_units: 10000000, signatures: 2}]
        agents: [{asset: EUR, minor_units_max: 500000}]            # or: unlimited; absent: agents do not sign
      RELEASE: {roles: [releaser]}
      VALIDATE: {roles: [validator]}
      CANCEL: {roles: [maker, approver, releaser, operator]}

Nothing is unlimited unless it says so: a role that signs for amounts must have its limits, and an asset that is not listed is not allowed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from lockstep_kit.amounts import MINOR_UNITS_MAX, AssetId, known_scale
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.ids import ActorId, party_id
from lockstep_kit.registry import (
    Actor,
    GateRule,
    Limit,
    Limits,
    Matrix,
    Participant,
    RegisteredKey,
    Registry,
    Role,
    RoleLimits,
    Threshold,
)
from lockstep_kit.signing import PUBLIC_KEY_BYTES, PublicKey
from lockstep_kit.sod import check_matrix
from lockstep_kit.statements import Gate
from lockstep_kit.strict_yaml import parse, read

FILE_BYTES_MAX: Final = 4 << 20
UNLIMITED: Final = "unlimited"
#: Roles that sign for amounts: what they may sign for is said.
LIMITED_ROLES: Final = (Role.MAKER, Role.APPROVER, Role.RELEASER, Role.VALIDATOR)


def _public_key(value: object) -> bytes:
    try:
        octets = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        octets = b""
    if len(octets) != PUBLIC_KEY_BYTES:
        raise ValueError(f"must be base64 of {PUBLIC_KEY_BYTES} bytes")
    return octets


def _name(text: str) -> str:
    return party_id(text, "name")


def _asset(text: str) -> str:
    known_scale(text)
    return text


_Name = Annotated[str, AfterValidator(_name)]
_Asset = Annotated[str, AfterValidator(_asset)]
_MinorUnits = Annotated[StrictInt, Field(ge=0, le=MINOR_UNITS_MAX)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Key(_Strict):
    public_key: Annotated[bytes, BeforeValidator(_public_key)]
    not_before: AwareDatetime
    not_after: AwareDatetime


class _Limit(_Strict):
    asset: _Asset
    minor_units_max: _MinorUnits


def _unlimited(value: object) -> object:
    if value is None:
        raise ValueError(f"must be a list of assets with their limits, or {UNLIMITED}")
    return None if value == UNLIMITED else value


#: None: unlimited, in so many words.
_Limits = Annotated[list[_Limit] | None, BeforeValidator(_unlimited)]


class _Actor(_Strict):
    actor_id: _Name
    roles: list[Role] = Field(min_length=1)
    keys: list[_Key] = Field(min_length=1)
    limits: dict[Role, _Limits] = Field(default_factory=dict)
    agent: StrictBool = False


class _Participant(_Strict):
    name: _Name
    keys: list[_Key] = Field(min_length=1)


class _Threshold(_Strict):
    asset: _Asset
    from_minor_units: _MinorUnits
    signatures: StrictInt


class _GateRule(_Strict):
    roles: list[Role]
    thresholds: list[_Threshold] = Field(default_factory=list)
    agents: _Limits = Field(default_factory=list)


class _Matrix(_Strict):
    version: StrictInt
    gates: dict[Gate, _GateRule]
    different_persons: list[list[Gate]]


class _File(_Strict):
    actors: list[_Actor]
    participants: list[_Participant]
    matrices: list[_Matrix] = Field(default_factory=list)


def load_registry(path: Path) -> Registry:
    """The registry in a file.

    Raises:
        FieldInvalid: the file cannot be read or breaks a rule; the field is the path inside the file, as ``actors[0].keys[0].public_key``.
    """
    return _registry(read(path, _File, bytes_max=FILE_BYTES_MAX))


def parse_registry(octets: bytes) -> Registry:
    """The registry in the bytes of a file.

    Raises:
        FieldInvalid: as `load_registry`.
    """
    return _registry(parse(octets, _File))


def _registry(file: _File) -> Registry:
    actors = [
        Actor(
            actor_id=ActorId(each.actor_id),
            roles=frozenset(each.roles),
            keys=_keys(each.keys, f"actors[{index}]"),
            limits=_role_limits(each, f"actors[{index}].limits"),
            agent=each.agent,
        )
        for index, each in enumerate(file.actors)
    ]
    participants = [
        Participant(each.name, _keys(each.keys, f"participants[{index}]")) for index, each in enumerate(file.participants)
    ]
    _check_once([each.actor_id for each in actors], "actors", "actor_id")
    _check_once([each.name for each in participants], "participants", "name")
    _check_once([str(each.version) for each in file.matrices], "matrices", "version")
    matrices = [_matrix(each, f"matrices[{index}]") for index, each in enumerate(file.matrices)]
    try:
        return Registry(actors, participants, matrices)
    except ValueError as error:
        raise FieldInvalid("registry", f"must name each key once: {error}") from error


def _keys(keys: Sequence[_Key], prefix: str) -> tuple[RegisteredKey, ...]:
    for index, key in enumerate(keys):
        if key.not_before >= key.not_after:
            raise FieldInvalid(f"{prefix}.keys[{index}].not_after", "must be after not_before")
    return tuple(RegisteredKey(PublicKey(key.public_key), key.not_before, key.not_after) for key in keys)


def _role_limits(actor: _Actor, prefix: str) -> tuple[RoleLimits, ...]:
    for role in LIMITED_ROLES:
        stated = role in actor.limits
        require(
            stated or role not in actor.roles,
            f"{prefix}.{role}",
            "must be present: a list of assets with their limits, or unlimited",
        )
    for role in actor.limits:
        require(
            role in actor.roles and role in LIMITED_ROLES, f"{prefix}.{role}", "must be a role of the actor that signs for amounts"
        )
    return tuple(RoleLimits(role, _limits(limits, f"{prefix}.{role}")) for role, limits in actor.limits.items())


def _limits(limits: list[_Limit] | None, prefix: str) -> Limits:
    if limits is None:
        return None
    _check_once([each.asset for each in limits], prefix, "asset")
    return tuple(Limit(AssetId(each.asset), each.minor_units_max) for each in limits)


def _matrix(matrix: _Matrix, prefix: str) -> Matrix:
    rules = {gate: _gate_rule(rule, f"{prefix}.gates.{gate}") for gate, rule in matrix.gates.items()}
    read = Matrix(matrix.version, rules, tuple(frozenset(group) for group in matrix.different_persons))
    with within(prefix):
        check_matrix(read)
    return read


def _gate_rule(rule: _GateRule, prefix: str) -> GateRule:
    return GateRule(
        roles=frozenset(rule.roles),
        thresholds=tuple(Threshold(AssetId(each.asset), each.from_minor_units, each.signatures) for each in rule.thresholds),
        agents="agents" in rule.model_fields_set,
        agent_limits=_limits(rule.agents, f"{prefix}.agents"),
    )


def _check_once(names: Sequence[str], entries: str, field: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise FieldInvalid(f"{entries}[{index}].{field}", f"must be unique: {name} is there twice")
