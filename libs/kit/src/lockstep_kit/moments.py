"""Moments in rows, held against a database's clock, which may be set back."""

from __future__ import annotations

from typing import Final

#: Longer than a lease is taken for, or a command is put off: SQL.
_PUT_OFF_MAX: Final = "interval '5 minutes'"


def passed(column: str, *, put_off_max: str = _PUT_OFF_MAX) -> str:
    """SQL: whether a row's moment has come.

    One that is further ahead than any can be put off was written before the clock was set back, and has come too; one that is infinitely far never does.
    """
    return f"({column} <= clock_timestamp() or ({column} > clock_timestamp() + {put_off_max} and {column} < 'infinity'))"
