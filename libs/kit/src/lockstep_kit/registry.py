"""The registry of keys: which person or participant a key belongs to, in which roles, and when. Pure.

The coordinator and every participant hold a registry of their own, configured independently; nobody takes another's word for whose a key is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from lockstep_kit.ids import ActorId, KeyId
from lockstep_kit.signing import PublicKey, Signature
from lockstep_kit.statements import Gate


class Role(StrEnum):
    """What a person may do."""

    MAKER = "maker"
    APPROVER = "approver"
    RELEASER = "releaser"
    VALIDATOR = "validator"
    OPERATOR = "operator"
    AUDITOR = "auditor"


#: Roles that open (or refuse) each gate. A plan may be cancelled by whoever could have opened one of its gates, or an operator.
GATE_ROLES: Final[Mapping[Gate, frozenset[Role]]] = {
    Gate.MAKE: frozenset({Role.MAKER}),
    Gate.APPROVE: frozenset({Role.APPROVER}),
    Gate.RELEASE: frozenset({Role.RELEASER}),
    Gate.VALIDATE: frozenset({Role.VALIDATOR}),
    Gate.CANCEL: frozenset({Role.MAKER, Role.APPROVER, Role.RELEASER, Role.OPERATOR}),
}


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
class Actor:
    """A person, or an agent that stands for one: own process, own key, own checks."""

    #: Registered id.
    actor_id: ActorId
    #: What it may do.
    roles: frozenset[Role]
    #: Its keys.
    keys: tuple[RegisteredKey, ...]


@dataclass(frozen=True, slots=True)
class Participant:
    """A service that votes."""

    #: Name that its votes and outcomes carry.
    name: str
    #: Its keys.
    keys: tuple[RegisteredKey, ...]


class Registry:
    """All registered persons and participants."""

    def __init__(self, actors: Iterable[Actor], participants: Iterable[Participant]) -> None:
        self.actors: Final[tuple[Actor, ...]] = tuple(actors)
        self.participants: Final[tuple[Participant, ...]] = tuple(participants)
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
