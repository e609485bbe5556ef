"""The twinned databases, put together from the twins of their stores and the tables that their services declare."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import sqlalchemy as sa

from coordinator.tables import METADATA as COORDINATOR_TABLES
from coordinator.tables import NOTICE_OUTBOX
from event_journal.tables import METADATA as JOURNAL_TABLES
from lockstep_kit.participant.schema import participant_tables
from lockstep_testkit.simulation import (
    audits_statements,
    coordinator_statements,
    journal_statements,
    leases_statements,
    operators_statements,
    outbox_statements,
    outboxes_statements,
    participant_statements,
    restores_statements,
)
from lockstep_testkit.simulation.memory import Handler, Registry, Row, Schema, Table
from lockstep_testkit.simulation.specs import Triggers, tables_of


def _statements(*registries: Registry) -> dict[str, Handler]:
    return {text: handler for registry in registries for text, handler in registry.handlers.items()}


@cache
def _coordinator() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    modules = (
        coordinator_statements,
        outboxes_statements,
        operators_statements,
        audits_statements,
        restores_statements,
        leases_statements,
    )
    triggers: Mapping[str, Triggers] = leases_statements.TRIGGERS
    statements = _statements(*(each.STATEMENTS for each in modules), outbox_statements.twins(NOTICE_OUTBOX))
    return tables_of(COORDINATOR_TABLES, triggers), statements


@cache
def _participant() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    metadata = sa.MetaData()
    participant_tables(metadata)
    return tables_of(metadata, participant_statements.TRIGGERS), _statements(participant_statements.STATEMENTS)


@cache
def _journal() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    triggers = {**participant_statements.TRIGGERS, **journal_statements.TRIGGERS}
    statements = _statements(participant_statements.STATEMENTS, journal_statements.STATEMENTS)
    return tables_of(JOURNAL_TABLES, triggers), statements


def coordinator(incarnation: str) -> Schema:
    """The coordinator's database, as its migrations leave it."""
    tables, statements = _coordinator()
    counter: Row = {"singleton": True, "next_sequence": 1, "incarnation": incarnation}
    installation: Row = {"singleton": True, "generation": 1}
    return Schema(tables, statements, (("plan_event_counter", counter), ("installation", installation)))


def participant(incarnation: str) -> Schema:
    """The database of a participant with no tables of its own."""
    return Schema(*_participant(), participant_statements.seeds(incarnation))


def journal(incarnation: str) -> Schema:
    """The event journal's database."""
    return Schema(*_journal(), (*participant_statements.seeds(incarnation), *journal_statements.seeds(incarnation)))


def all_statements() -> tuple[dict[str, Handler], ...]:
    """The twins of every database, to be bent on purpose."""
    return _coordinator()[1], _participant()[1], _journal()[1]
