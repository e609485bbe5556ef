"""The registry: which person or participant a key belongs to, in which roles, up to which amounts, and when; and the matrices of duties. Pure.

The coordinator and every participant hold a registry of their own, configured independently; nobody takes another's word for whose a key is, nor for
who may do what. What the matrices and limits mean is `lockstep_kit.sod`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from lockstep_kit.amounts import AssetId
from lockstep_kit.ids import ActorId, KeyId
from lockstep_kit.signing import PublicKey, Signature
from lockstep_kit.statements import Gate
from lockstep_kit.values import dataclass


class Role(StrEnum):
    """What a person may do."""

    MAKER = "maker"
    APPROVER = "approver"
    RELEASER = "releaser"
    VALIDATOR = "validator"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """A public key with the time in which its signatures count."""

    #: The key.
    public: PublicKey
    #: From when, inclusive.
    not_before: datetime
    #: Until when, exclusive.
    not_after: datetime

    def valid_at(self, moment: datetime) -> bool:
        """Whether a signature counts at that moment."""
        return self.not_before <= moment < self.not_after


@dataclass(frozen=True, slots=True)
class Limit:
    """The most of one asset, in minor units, over all legs of a plan."""

    #: ISO 4217 code or CAIP-19 id.
    asset: AssetId
    #: Inclusive.
    minor_units_max: int


#: An asset that is not listed is not allowed at all; None: no limit.
Limits: TypeAlias = tuple[Limit, ...] | None


@dataclass(frozen=True, slots=True)
class RoleLimits:
    """How much somebody may sign for in a role."""

    #: The role.
    role: Role
    #: The limits.
    limits: Limits


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, or an agent that stands for one: own process, own key, own checks."""

    #: Registered id.
    actor_id: ActorId
    #: What it may do.
    roles: frozenset[Role]
    #: Its keys.
    keys: tuple[RegisteredKey, ...]
    #: How much it may sign for in each role; a role without an entry signs for nothing that moves value.
    limits: tuple[RoleLimits, ...] = ()
    #: Whether it is a process that signs by itself: it opens a gate only where the matrix lets agents do so.
    agent: bool = False


@dataclass(frozen=True, slots=True)
class Participant:
    """A service that votes."""

    #: Name that its votes and outcomes carry.
    name: str
    #: Its keys.
    keys: tuple[RegisteredKey, ...]


@dataclass(frozen=True, slots=True)
class Threshold:
    """From how much of an asset on a gate takes several persons."""

    #: ISO 4217 code or CAIP-19 id.
    asset: AssetId
    #: From so many minor units on, inclusive, over all legs of the plan.
    from_minor_units: int
    #: Signatures that the gate takes, each by another person.
    signatures: int


@dataclass(frozen=True, slots=True)
class GateRule:
    """Who opens a gate."""

    #: One of these roles is needed.
    roles: frozenset[Role]
    #: Where one signature is not enough.
    thresholds: tuple[Threshold, ...] = ()
    #: Whether agents may sign at all.
    agents: bool = False
    #: Where they may: up to which amounts.
    agent_limits: Limits = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """A version of the matrix of segregated duties; `sod.check_matrix` says what every one must hold."""

    #: Version that a plan's head names.
    version: int
    #: Of every gate.
    gates: Mapping[Gate, GateRule]
    #: Gates of each set are signed by different persons.
    different_persons: tuple[frozenset[Gate], ...]


class Registry:
    """All registered persons and participants, and the matrices that are known."""

    def __init__(self, actors: Iterable[Actor], participants: Iterable[Participant], matrices: Iterable[Matrix] = ()) -> None:
        self.actors: Final[tuple[Actor, ...]] = tuple(actors)
        self.participants: Final[tuple[Participant, ...]] = tuple(participants)
        self.matrices: Final[Mapping[int, Matrix]] = {matrix.version: matrix for matrix in matrices}
        self._actor_keys: dict[KeyId, tuple[Actor, RegisteredKey]] = {}
        self._participant_keys: dict[KeyId, tuple[Participant, RegisteredKey]] = {}
        for actor in self.actors:
            for key in actor.keys:
                self._claim(key)
                self._actor_keys[key.public.key_id] = (actor, key)
        for participant in self.participants:
            for key in participant.keys:
                self._claim(key)
                self._participant_keys[key.public.key_id] = (participant, key)

    def _claim(self, key: RegisteredKey) -> None:
        if key.public.key_id in self._actor_keys or key.public.key_id in self._participant_keys:
            raise ValueError(f"key {key.public.key_id} is registered twice")

    def actor_of(self, signature: Signature, message: bytes, moment: datetime) -> Actor | None:
        """The person who signed the message, by a key that was valid at that moment; None if nobody is shown to have."""
        found = self._actor_keys.get(signature.key_id)
        if found is None:
            return None
        actor, key = found
        if not key.valid_at(moment) or not key.public.verifies(message, signature.octets):
            return None
        return actor

    def participant_of(self, signature: Signature, message: bytes, moment: datetime) -> Participant | None:
        """The participant that signed the message, by a key that was valid at that moment; None if none is shown to have."""
        found = self._participant_keys.get(signature.key_id)
        if found is None:
            return None
        participant, key = found
        if not key.valid_at(moment) or not key.public.verifies(message, signature.octets):
            return None
        return participant

    def with_role(self, roles: Iterable[Role]) -> tuple[Actor, ...]:
        """Every person who has one of the roles."""
        wanted = frozenset(roles)
        return tuple(actor for actor in self.actors if actor.roles & wanted)
