"""The twinned databases, put together from the twins of their stores and the tables that their services declare."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from bank_gateway.tables import METADATA as BANK_TABLES
from coordinator.columns import METADATA as COORDINATOR_TABLES
from coordinator.tables import NOTICE_OUTBOX
from dlt_gateway.tables import METADATA as DLT_TABLES
from event_journal.tables import METADATA as JOURNAL_TABLES
from lockstep_testkit.simulation import (
    anchor_statements,
    audits_statements,
    bank_statements,
    chain_orders_statements,
    chain_statements,
    changes_statements,
    coordinator_statements,
    escalation_statements,
    journal_log_statements,
    journal_statements,
    leases_statements,
    ledger_statements,
    operators_statements,
    outbox_statements,
    outboxes_statements,
    participant_statements,
    quotas_statements,
    requests_statements,
    restores_statements,
    writing_statements,
)
from lockstep_testkit.simulation.memory import Handler, Registry, Row, Schema, Table
from lockstep_testkit.simulation.specs import Triggers, tables_of
from notary.tables import METADATA as NOTARY_TABLES

if TYPE_CHECKING:
    import sqlalchemy as sa


def _statements(*registries: Registry) -> dict[str, Handler]:
    return {text: handler for registry in registries for text, handler in registry.handlers.items()}


@cache
def _coordinator() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    modules = (
        coordinator_statements,
        changes_statements,
        outboxes_statements,
        writing_statements,
        operators_statements,
        audits_statements,
        restores_statements,
        quotas_statements,
        requests_statements,
        leases_statements,
    )
    triggers: Mapping[str, Triggers] = leases_statements.TRIGGERS
    registries = (*(each.STATEMENTS for each in modules), escalation_statements.COORDINATOR_STATEMENTS)
    statements = _statements(*registries, outbox_statements.twins(NOTICE_OUTBOX))
    return tables_of(COORDINATOR_TABLES, triggers), statements


def _chain(metadata: sa.MetaData, *own: Registry) -> tuple[Mapping[str, Table], dict[str, Handler]]:
    triggers = {**participant_statements.TRIGGERS, **chain_statements.TRIGGERS, **chain_orders_statements.TRIGGERS}
    statements = (participant_statements.STATEMENTS, chain_statements.STATEMENTS, chain_orders_statements.STATEMENTS)
    return tables_of(metadata, triggers), _statements(*statements, *own)


@cache
def _dlt_gateway() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    return _chain(DLT_TABLES)


@cache
def _notary() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    own = (chain_orders_statements.NOTARY_STATEMENTS, anchor_statements.STATEMENTS, escalation_statements.NOTARY_STATEMENTS)
    return _chain(NOTARY_TABLES, *own)


@cache
def _journal() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    triggers = {**participant_statements.TRIGGERS, **journal_statements.TRIGGERS, **journal_log_statements.TRIGGERS}
    statements = _statements(participant_statements.STATEMENTS, journal_statements.STATEMENTS, journal_log_statements.STATEMENTS)
    return tables_of(JOURNAL_TABLES, triggers), statements


@cache
def _bank() -> tuple[Mapping[str, Table], dict[str, Handler]]:
    triggers = {**participant_statements.TRIGGERS, **bank_statements.TRIGGERS, **ledger_statements.TRIGGERS}
    statements = _statements(participant_statements.STATEMENTS, bank_statements.STATEMENTS, ledger_statements.STATEMENTS)
    return tables_of(BANK_TABLES, triggers), statements


def coordinator(incarnation: str) -> Schema:
    """The coordinator's database, as its migrations leave it."""
    tables, statements = _coordinator()
    counter: Row = {"singleton": True, "next_sequence": 1, "incarnation": incarnation}
    installation: Row = {"singleton": True, "generation": 1}
    return Schema(tables, statements, (("plan_event_counter", counter), ("installation", installation)))


def dlt_gateway(incarnation: str) -> Schema:
    """The dlt-gateway's database."""
    return Schema(*_dlt_gateway(), participant_statements.seeds(incarnation))


def notary(incarnation: str) -> Schema:
    """The notary's database."""
    return Schema(*_notary(), participant_statements.seeds(incarnation))


def journal(incarnation: str) -> Schema:
    """The event journal's database."""
    stores = (participant_statements, journal_statements, journal_log_statements)
    return Schema(*_journal(), tuple(row for store in stores for row in store.seeds(incarnation)))


def bank(incarnation: str) -> Schema:
    """The bank-gateway's database."""
    return Schema(*_bank(), participant_statements.seeds(incarnation))


def all_statements() -> tuple[dict[str, Handler], ...]:
    """The twins of every database, to be bent on purpose."""
    return _coordinator()[1], _dlt_gateway()[1], _notary()[1], _journal()[1], _bank()[1]
