"""What the tables' columns are made of."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

#: Every table of the service.
METADATA: Final = sa.MetaData()


def text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Text, not null unless told."""
    return sa.Column(name, sa.Text, nullable=nullable)


def octets(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Bytes."""
    return sa.Column(name, sa.LargeBinary, nullable=nullable)


def moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """A time with its zone."""
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def big(name: str) -> sa.Column[Any]:
    """A number of eight bytes."""
    return sa.Column(name, sa.BigInteger, nullable=False, autoincrement=False)


def small(name: str) -> sa.Column[Any]:
    """A number of two bytes."""
    return sa.Column(name, sa.Integer, nullable=False, autoincrement=False)


def flag(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Yes or no."""
    return sa.Column(name, sa.Boolean, nullable=nullable)


def plan_reference() -> sa.Column[Any]:
    """The plan that a row is about."""
    return sa.Column("plan_id", sa.Text, sa.ForeignKey("plan.plan_id"), nullable=False)
