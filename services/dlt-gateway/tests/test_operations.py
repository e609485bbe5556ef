"""The escrow's statuses, as the gateway reads them: every one has a meaning in every phase."""

from __future__ import annotations

import itertools

import pytest

from dlt_gateway.operations import RULES, EscrowBook
from lockstep_chain.judging import Unmoved
from lockstep_contracts.escrow import LegStatus, encode_status_of_many
from lockstep_kit.fence import FINDINGS, Finding, Phase
from lockstep_testkit.factories import address_of

WORKING = [phase for phase in Phase if phase.working]
NAMES = ("None", "Prepared", "Committed", "Aborted", "Reversed")


def test_the_table_is_total() -> None:
    """Every status of the contract has a row for every phase in which an answer is owed, and nothing else has one."""
    assert set(RULES.table) == set(itertools.product(WORKING, NAMES))


@pytest.mark.parametrize(("place", "told"), RULES.table.items())
def test_every_finding_has_a_place(place: tuple[Phase, str], told: Finding | Unmoved) -> None:
    """What the table finds in a phase is what the fence can store there."""
    if isinstance(told, Finding):
        assert (place[0], told) in FINDINGS


def test_what_was_executed_was_promised() -> None:
    """A gateway that was put back to before its vote finds its leg executed: it gives the YES again, and the Commit finds the effect."""
    assert RULES.table[Phase.PREPARING, "Committed"] is Finding.VOTED_YES
    assert RULES.table[Phase.COMMITTING, "Committed"] is Finding.EXECUTED
    assert RULES.table[Phase.ABORTING, "Committed"] is Finding.EXECUTED


def test_every_refusal_has_a_reason() -> None:
    """A phase that can be refused names a reason."""
    refusing = {phase for (phase, _), told in RULES.table.items() if told in (Unmoved.REFUSES, Finding.VOTED_NO, Finding.REFUSED)}
    assert refusing == set(RULES.reasons)


def test_statuses_have_the_contracts_names() -> None:
    """The contract's numbers are read as the names that the table knows."""
    book = EscrowBook("eip155:138", address_of("escrow"), {})
    assert len(encode_status_of_many([bytes(32)])) > 4
    words = [32, len(LegStatus), *LegStatus]
    assert book.statuses(b"".join(int(word).to_bytes(32) for word in words)) == NAMES
