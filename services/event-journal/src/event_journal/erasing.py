"""What the owner of the journal's database does to payloads: erases a plan's for good, and wraps the plans' keys by another key.

The service's role can do neither. An erasure is one transaction of the database's own function: its record, the key's deletion, and the emptying of
payloads that stood plain. A log of erasures is kept outside the database, since a restore of an older backup brings keys back: the same lines erase again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg

from event_journal.payload_keys import DataKeyChanged, PayloadVault, WrappedKey, WrappingKeyUnknown
from lockstep_kit import ids
from lockstep_kit.fields import FieldInvalid, within
from lockstep_kit.forms import check_text
from lockstep_kit.ids import PlanId
from lockstep_kit.values import dataclass

#: Erases a plan's payloads; false where they were erased before.
ERASE: Final = "select journal_erase($1, $2, $3)"

#: Every erasure, in order.
ERASURES: Final = "select plan_id, erased_by, reason from journal_erasure order by erased_at, plan_id"

#: A stretch of keys that are wrapped by another key.
KEYS_UNDER_OTHERS: Final = """
select plan_id, wrapped_key, wrapping_key_id from journal_payload_key
where wrapping_key_id <> $1 and plan_id > $2 order by plan_id limit $3 for update
"""

#: Wraps keys anew.
WRAP_AGAIN: Final = """
update journal_payload_key as key set wrapped_key = again.wrapped_key, wrapping_key_id = $3
from unnest($1::text[], $2::bytea[]) as again (plan_id, wrapped_key) where key.plan_id = again.plan_id
"""

WHO_LENGTH_MAX: Final = 128
REASON_LENGTH_MAX: Final = 1_000
WRAPPED_AT_ONCE_MAX: Final = 500

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Erased(StrEnum):
    """What became of an erasure."""

    #: The payloads are gone.
    ERASED = "erased"
    #: They were before.
    BEFORE = "erased before"
    #: The chain is not sealed: entries may come.
    NOT_SEALED = "not sealed"
    #: There is no chain of this plan.
    UNKNOWN = "unknown"

    @property
    def gone(self) -> bool:
        """Whether the plan's payloads are gone now."""
        return self in (Erased.ERASED, Erased.BEFORE)


@dataclass(frozen=True, slots=True)
class Erasure:
    """That a plan's payloads are to be erased."""

    #: The plan.
    plan_id: PlanId
    #: Who erases.
    erased_by: str
    #: Why.
    reason: str

    def check(self) -> None:
        """Form rules.

        Raises:
            FieldInvalid: the first rule that is broken.
        """
        check_text(self.erased_by, "erased_by", length_max=WHO_LENGTH_MAX)
        check_text(self.reason, "reason", length_max=REASON_LENGTH_MAX)

    def line(self) -> str:
        """The erasure as a line of the log that is kept outside the database."""
        return json.dumps(asdict(self), ensure_ascii=False)


def read_log(path: Path) -> list[Erasure]:
    """The erasures of a log.

    Raises:
        FieldInvalid: a line is none of such a log; nothing is read then.
        OSError: the file cannot be read.
    """
    return [_from_line(number, line) for number, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]


def _from_line(number: int, line: str) -> Erasure:
    with within(f"line {number}"):
        try:
            document: dict[str, Any] = json.loads(line)
            found = Erasure(ids.plan_id(document.pop("plan_id")), document.pop("erased_by"), document.pop("reason"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FieldInvalid("erasure", "must be an object with plan_id, erased_by and reason") from error
        found.check()
        return found


async def erase(owner: Owner, erasure: Erasure) -> Erased:
    """Erase a plan's payloads, in one transaction.

    Raises:
        FieldInvalid: who or why breaks a rule.
        asyncpg.PostgresError: the database refused, or cannot be reached.
    """
    erasure.check()
    try:
        done = await owner.fetchval(ERASE, erasure.plan_id, erasure.erased_by, erasure.reason)
    except asyncpg.NoDataFoundError:
        return Erased.UNKNOWN
    except asyncpg.ObjectNotInPrerequisiteStateError:
        return Erased.NOT_SEALED
    return Erased.ERASED if done else Erased.BEFORE


async def erase_all(owner: Owner, erasures: Iterable[Erasure]) -> list[tuple[Erasure, Erased]]:
    """Erase the payloads of several plans, each in a transaction of its own."""
    return [(each, await erase(owner, each)) for each in erasures]


async def erasures(owner: Owner) -> Iterator[Erasure]:
    """Every erasure that the database has recorded."""
    return (Erasure(PlanId(row["plan_id"]), row["erased_by"], row["reason"]) for row in await owner.fetch(ERASURES))


async def wrap_again(owner: Owner, vault: PayloadVault) -> tuple[int, list[str]]:
    """Wrap every plan's key by the vault's current key, some at a time; it may be stopped and begun again.

    Returns:
        How many were wrapped again, and why others could not be: they stay as they are.
    """
    count, left, after = 0, list[str](), ""
    while True:
        async with owner.transaction():
            rows = await owner.fetch(KEYS_UNDER_OTHERS, vault.current_id, after, WRAPPED_AT_ONCE_MAX)
            again: dict[str, bytes] = {}
            for row in rows:
                try:
                    wrapped = vault.wrap_again(PlanId(row["plan_id"]), WrappedKey(row["wrapped_key"], row["wrapping_key_id"]))
                except (WrappingKeyUnknown, DataKeyChanged) as error:
                    left.append(str(error))
                else:
                    again[row["plan_id"]] = wrapped.octets
            await owner.execute(WRAP_AGAIN, list(again), list(again.values()), vault.current_id)
        count += len(again)
        if len(rows) < WRAPPED_AT_ONCE_MAX:
            return count, left
        after = rows[-1]["plan_id"]
