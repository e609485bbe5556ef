"""Statements by which a migration takes back what a service's role does not need. What each role has in the end is in the service's `grants.toml`.

What never changes once a row is written is out of the role's reach, whatever the code that runs as the role is made to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

#: Columns of a participant's legs that are written once (`participant.schema`).
PARTICIPANT_FIXED: Final[Mapping[str, tuple[str, ...]]] = {"participant_leg": ("plan_id", "leg_id", "seq", "recorded_at")}

#: No function can be called by who was not given it; triggers run theirs without.
PRIVATE_FUNCTIONS: Final = "revoke execute on all functions in schema public from public"


def narrow_updates(role: str, fixed: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Statements that let the role update each table's columns but those that never change; of a table that has none left, nothing.

    Columns that later migrations add are not among them: such a migration grants what the role updates of them.

    Raises:
        ValueError: a name needs quotes.
    """
    for name in (role, *fixed, *(column for columns in fixed.values() for column in columns)):
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no plain name")
    return tuple(_narrowed(role, table, columns) for table, columns in fixed.items())


def _narrowed(role: str, table: str, fixed: Sequence[str]) -> str:
    return f"""
    do $$
    declare
        granted text;
    begin
        select string_agg(quote_ident(attname), ', ' order by attnum) into granted from pg_attribute
            where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped and attname <> all('{{{",".join(fixed)}}}');
        revoke update on {table} from {role};
        if granted is not null then
            execute format('grant update (%s) on {table} to {role}', granted);
        end if;
    end $$
    """
