"""A registry that checks each signature once: in a batch, one maker's or voter's signature is shown with every leg of its plan. Pure."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Final

from lockstep_kit.registry import Actor, Participant, Registry
from lockstep_kit.signing import Signature

#: Signatures that are remembered of each kind; each is some hundred bytes.
REMEMBERED_MAX: Final = 2_048


class VerifyingRegistry(Registry):
    """A registry with the same answers as another's; safe to ask from several threads."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.actors, registry.participants, registry.matrices.values())
        self._actor = lru_cache(REMEMBERED_MAX)(super().actor_of)
        self._participant = lru_cache(REMEMBERED_MAX)(super().participant_of)

    def actor_of(self, signature: Signature, message: bytes, moment: datetime) -> Actor | None:
        """As `Registry.actor_of`."""
        return self._actor(signature, message, moment)

    def participant_of(self, signature: Signature, message: bytes, moment: datetime) -> Participant | None:
        """As `Registry.participant_of`."""
        return self._participant(signature, message, moment)
