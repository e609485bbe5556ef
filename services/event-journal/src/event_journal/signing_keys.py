"""Whether the journal may sign by its key now, asked before it signs: the history of its keys and its registry have it for now, by the database's clock.

The history is read again only when one of its rows differs from what was read before; the clock is asked each time. A key that stops counting while the
journal runs signs nothing more: appends and orders are answered SIGNING_KEY_REFUSED and wait at their senders, until the journal signs by a key that counts.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from event_journal import key_store
from event_journal.chain import JOURNAL_ACTOR, NO_HISTORY
from event_journal.key_store import AnyConnection, Standing
from lockstep_kit.db import Database
from lockstep_kit.errors import LockstepError, unavailable
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import KeyId
from lockstep_kit.key_history import HistoryFinding, KeyHistory
from lockstep_kit.registry import Registry
from lockstep_kit.signing import SigningKey

_log = structlog.get_logger()


def refusal(key_id: KeyId, keys: KeyHistory | HistoryFinding, registry: Registry, now: datetime) -> FieldInvalid | None:
    """Why nothing may be signed by a key at a moment; None: it may. Pure."""
    if isinstance(keys, HistoryFinding):
        return FieldInvalid("journal_key", f"must be a history that holds: statement {keys.number}: {keys.rule}: {keys.message}")
    field = "participant.signing_key_file"
    if keys.keys and not keys.has(key_id, now):
        return FieldInvalid(field, f"must hold a key that the history of the journal's keys has for now: {key_id} is none")
    own = [key for each in registry.participants if each.name == JOURNAL_ACTOR for key in each.keys]
    if not any(key.public.key_id == key_id and key.valid_at(now) for key in own):
        return FieldInvalid(field, f"must hold a key that the registry has as the journal's for now: {key_id} is none")
    return None


class SigningKeys:
    """The key that the journal signs by, and whether it may."""

    def __init__(self, key: SigningKey, registry: Registry) -> None:
        #: Signs entries, votes, outcomes and checkpoints.
        self.key = key
        self._registry = registry
        #: What the history is that was verified last: a digest of its rows.
        self._mark: bytes | None = None
        self._keys: KeyHistory | HistoryFinding = NO_HISTORY
        self._told: FieldInvalid | None = None

    async def require(self, tx: AnyConnection, standing: Standing) -> KeyHistory:
        """See that the journal may sign, given how the keys stand in this transaction; answers the history, without keys where none is kept.

        Raises:
            LockstepError: UNAVAILABLE SIGNING_KEY_REFUSED; it may not, and nothing was signed.
        """
        found = await self._refused(tx, standing)
        if found is not None or isinstance(self._keys, HistoryFinding):
            raise _refused(found)
        return self._keys

    async def refused(self, tx: AnyConnection) -> FieldInvalid | None:
        """Why the journal may not sign now; None: it may."""
        return await self._refused(tx, await key_store.standing(tx))

    async def _refused(self, tx: AnyConnection, standing: Standing) -> FieldInvalid | None:
        if standing.mark != self._mark:
            # Read behind the mark: a key that was added in between is looked at again the next time.
            self._keys, self._mark = await key_store.history(tx), standing.mark
        found = refusal(self.key.public.key_id, self._keys, self._registry, standing.moment)
        if str(found) != str(self._told):
            # Once for each change, not for each call.
            if found is None:
                _log.info("signing_key_counts", key_id=self.key.public.key_id)
            else:
                _log.error("signing_key_refused", key_id=self.key.public.key_id, reason=str(found))
            self._told = found
        return found

    async def counts(self, db: Database) -> bool:
        """Whether the journal may sign now, for whoever asks for its health."""
        async with db.connection() as connection:
            return await self.refused(connection) is None


def _refused(found: FieldInvalid | None) -> LockstepError:
    return unavailable("SIGNING_KEY_REFUSED", f"the journal may not sign now: {found}")
