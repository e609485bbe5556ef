"""What legs post, judged over every short course of a bank's words; and the same with one rule broken, which must be seen. And the chain."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from fence_samples import FINDING_OF
from test_races import NOW, PAYMENT, status
from test_seeded_bugs import ENVELOPE, SAID

from bank_gateway.judging import judge
from bank_gateway.ledger import chain, rules
from bank_gateway.ledger.chain import Account, Audit, Head, PostedEntry
from bank_gateway.ledger.rules import AccountKind, Entry, EntryKind, LedgerLeg, Standing, kind_of
from bank_gateway.messages import AnyStatement, Envelope, Footing, Kind, PaymentStatus, ReservationStatus
from bank_gateway.operations import Heard, Known
from bank_gateway.profiles import PROFILES
from lockstep_kit.fence import FINDINGS, Phase
from lockstep_kit.ids import sha256

LEG = LedgerLeg("COBADEFF/EUR", PAYMENT.debtor.iban, PAYMENT.references.uetr, PAYMENT.amount.minor_units)


def reservation(status: str, reason: str = "") -> ReservationStatus:
    about = Kind.RESERVATION if status == "ACPT" else Kind.RESERVATION_QUERY if status == "PAID" else Kind.RESERVATION_DELETION
    return ReservationStatus(PAYMENT.references.uetr, about.value, status, reason, "")


#: What each profile's bank says, beside what every bank may say.
WORDS: Final[Mapping[Footing, tuple[AnyStatement, ...]]] = {
    Footing.CONDITIONAL: tuple(SAID),
    Footing.RESERVED: (
        reservation("ACPT"),
        reservation("RJCT", "NONE"),
        reservation("RJCT", "OVER"),
        reservation("PAID"),
        *(each for each in SAID if not isinstance(each, PaymentStatus) or each.status != "ACFW"),
    ),
    Footing.ORDINARY: tuple(SAID),
}
FOOTINGS: Final = {profile.footing: profile for profile in PROFILES.values()}


def violations(footing: Footing = Footing.CONDITIONAL) -> Iterator[str]:
    """Rules that some course of up to three words breaks, begun in any phase."""
    leg, profile = replace(LEG, footing=footing), FOOTINGS[footing]
    asked = [rules.instructed(leg)]
    known, holding = Known(), asked
    if footing is not Footing.ORDINARY:
        yes = status("ACFW") if footing is Footing.CONDITIONAL else reservation("ACPT")
        held = judge(profile, Known(), Phase.PREPARING, PAYMENT, yes, ENVELOPE, bytes(32))
        known, holding = held.known, _after(leg, asked, held)
    begun = [(Phase.PREPARING, Known(), asked), (Phase.ABORTING, Known(), asked), (Phase.ABORTING, Known(), [])]
    begun += [(phase, known, holding) for phase in (Phase.PREPARED, Phase.COMMITTING, Phase.ABORTING)]
    # A leg that a restore forgot, and that is executed by its own YES.
    begun += [(Phase.COMMITTING, Known(), [entry for entry in (rules.executing(leg, Standing()),) if entry is not None])]
    for phase, before, history in begun:
        for words in itertools.product(WORDS[footing], repeat=3):
            yield from _course(leg, phase, before, history, words)


def _after(leg: LedgerLeg, history: list[Entry], heard: Heard) -> list[Entry]:
    entry = rules.heard(leg, rules.standing(history), heard.known, heard.meaning)
    return history if entry is None else [*history, entry]


def _course(leg: LedgerLeg, phase: Phase, known: Known, history: list[Entry], words: tuple[AnyStatement, ...]) -> Iterator[str]:
    for step, said in enumerate(words, 1):
        envelope = Envelope(ENVELOPE.sender, ENVELOPE.receiver, f"M{step}", NOW + timedelta(seconds=step))
        digest = sha256(envelope.message_id.encode())
        heard = judge(FOOTINGS[leg.footing], known, phase, PAYMENT, said, envelope, digest)
        history = _after(leg, history, heard)
        known = heard.known
        if heard.meaning in FINDING_OF:
            phase = FINDINGS.get((phase, FINDING_OF[heard.meaning]), phase)
        yield from broken(leg, phase, known, history)


def broken(leg: LedgerLeg, phase: Phase, known: Known, history: list[Entry]) -> Iterator[str]:
    """What the entries of a leg break, judged by adding them up."""
    balances: Counter[AccountKind] = Counter()
    for entry in history:
        balances[kind_of(entry.debit)] -= entry.amount
        balances[kind_of(entry.credit)] += entry.amount
        if any(balances[kind] < 0 for kind in chain.NEVER_NEGATIVE) or balances[AccountKind.SUSPENSE] > 0:
            yield "an account on the wrong side"
    places = {kind for kind in chain.NEVER_NEGATIVE if balances[kind]}
    if len(places) > 1 or any(balances[kind] != LEG.amount for kind in places):
        yield "money in two places"
    place = next(iter(places), None)
    if known.settled and place is not AccountKind.SETTLED:
        yield "settled money that is not on the books"
    if not known.settled and place is AccountKind.SETTLED:
        yield "booked money that is not settled"
    if not known.settled and phase in (Phase.REFUSED, Phase.RELEASED) and place is not None:
        yield "held for a leg that was given up"
    promised = AccountKind.INSTRUCTED if leg.footing is Footing.ORDINARY else AccountKind.HELD
    if not known.settled and phase in (Phase.PREPARED, Phase.COMMITTING) and place is not promised:
        yield "a promise that is not on the books"
    if leg.footing is Footing.ORDINARY and place is AccountKind.HELD:
        yield "a hold where nothing is held"
    if place not in rules.expected_place(phase, known, leg.footing):
        yield "another place than the audit expects"
    if len({entry.reference for entry in history}) != len(history):
        yield "one event posted twice"


@pytest.mark.parametrize("footing", Footing)
def test_no_course_breaks_a_rule(footing: Footing) -> None:
    """Over fifteen thousand courses: the money of a leg stands in one place, which is where the leg and the bank's word say."""
    assert set(violations(footing)) == set()


def _nothing(*_: object) -> None:
    return None


def _settled_by_status(leg: LedgerLeg, now: Standing, known: Known, meaning: object) -> Entry | None:
    known = replace(known, booking_reference=known.booking_reference or "B")
    return _HEARD(leg, now, known, meaning)  # type: ignore[arg-type]  # as the rule is called


def _settled_from_the_line(leg: LedgerLeg, now: Standing, known: Known, meaning: object) -> Entry | None:
    return _HEARD(leg, replace(now, place=AccountKind.HELD) if known.settled else now, known, meaning)  # type: ignore[arg-type]


_HEARD = rules.heard


@pytest.mark.parametrize(
    ("name", "bug", "seen"),
    [
        ("given_up", _nothing, "held for a leg that was given up"),
        ("GIVEN_UP", frozenset(), "held for a leg that was given up"),
        ("OUTSTANDING", frozenset({AccountKind.INSTRUCTED}), "held for a leg that was given up"),
        ("heard", _nothing, "settled money that is not on the books"),
        ("heard", _settled_by_status, "booked money that is not settled"),
        ("heard", _settled_from_the_line, "an account on the wrong side"),
        ("executing", _nothing, "a promise that is not on the books"),
    ],
)
def test_seeded_bug_is_seen(name: str, bug: object, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule is broken: some course shows it."""
    monkeypatch.setattr(rules, name, bug)
    assert seen in violations()


@pytest.mark.parametrize(
    ("footing", "bug", "seen"),
    [
        (Footing.RESERVED, lambda _, known: known.held, "a promise that is not on the books"),
        (Footing.ORDINARY, lambda _, known: known.held, "a hold where nothing is held"),
    ],
)
def test_seeded_bug_of_a_profile_is_seen(
    footing: Footing, bug: Callable[[Footing, Known], bool], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile's money is taken for held by another profile's word: some course shows it."""
    monkeypatch.setattr(rules, "stands", bug)
    assert seen in violations(footing)


def settled() -> list[Entry]:
    """A leg from its instruction to its settlement."""
    history = [rules.instructed(LEG)]
    for known in (Known(status="ACFW"), Known(status="ACSC", booking_reference="B1")):
        entry = rules.heard(LEG, rules.standing(history), known, None)
        assert entry is not None
        history.append(entry)
    return history


def test_returns_go_back_where_the_money_came_from() -> None:
    """Whole or in parts, each part once, never more than was settled; and the late word that it settled posts nothing again."""
    history = settled()
    assert rules.returned(LEG, rules.standing(history), LEG.amount + 1, "R0") is None
    for amount, reference in ((LEG.amount - 1, "R1"), (1, "R2")):
        entry = rules.returned(LEG, rules.standing(history), amount, reference)
        assert entry is not None
        history.append(entry)
        assert rules.returned(LEG, rules.standing(history), amount, reference) is None
    assert rules.standing(history).place is None
    assert [kind_of(entry.credit) for entry in history[-2:]] == [AccountKind.LINE, AccountKind.LINE]
    known = Known(status="ACSC", booking_reference="B1")
    assert rules.heard(LEG, rules.standing(history), known, None) is None


def test_what_no_line_covers_is_in_suspense() -> None:
    """A leg that was given up and settles all the same draws no line, and a return of it gives none back."""
    history = [rules.instructed(LEG)]
    given_up = rules.given_up(LEG, rules.standing(history))
    assert given_up is not None
    history.append(given_up)
    late = rules.heard(LEG, rules.standing(history), Known(status="ACSC", booking_reference="B1"), None)
    assert late is not None
    assert kind_of(late.debit) is AccountKind.SUSPENSE
    back = rules.returned(LEG, rules.standing([*history, late]), LEG.amount, "R1")
    assert back is not None
    assert kind_of(back.credit) is AccountKind.SUSPENSE


def linked(entries: list[Entry]) -> tuple[list[PostedEntry], Head, dict[str, Account]]:
    """A ledger that is right."""
    posted: list[PostedEntry] = []
    head, balances = Head(), Counter[str]()
    moment = datetime(2031, 3, 3, 9, 0, 0, 123456, tzinfo=UTC)
    for sequence, entry in enumerate(entries, 1):
        content = chain.content_of(entry)
        digest = chain.link(head.hash, sequence, moment, content)
        posted.append(PostedEntry(sequence, entry, moment, head.hash, content, digest))
        head = Head(sequence, digest)
        balances[entry.debit] -= entry.amount
        balances[entry.credit] += entry.amount
    return posted, head, {name: Account(balance, None) for name, balance in balances.items()}


def audited(posted: list[PostedEntry], head: Head, accounts: dict[str, Account]) -> list[str]:
    audit = Audit(LEG.ledger)
    return [*audit.read(posted), *audit.close(head, accounts)]


def test_audit_of_a_ledger_that_is_right() -> None:
    """Nothing is found."""
    assert audited(*linked(settled())) == []


def _altered(posted: list[PostedEntry], place: int, **changes: object) -> list[PostedEntry]:
    """An entry that was altered, with everything after it hashed anew, as somebody would who owns the database."""
    entries = [each.entry for each in posted]
    entries[place] = replace(entries[place], **changes)  # type: ignore[arg-type]  # fields of an entry
    return linked(entries)[0]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda posted: posted[:-1],
        lambda posted: posted[1:],
        lambda posted: [posted[0], posted[2]],
        lambda posted: [posted[1], posted[0], posted[2]],
        lambda posted: [*posted, posted[-1]],
        lambda posted: [replace(posted[0], entry=replace(posted[0].entry, amount=1)), *posted[1:]],
        lambda posted: [replace(posted[0], recorded_at=posted[0].recorded_at + timedelta(microseconds=1)), *posted[1:]],
        lambda posted: [posted[0], replace(posted[1], previous=bytes(32)), posted[2]],
        lambda posted: [*posted[:-1], replace(posted[-1], hash=bytes(32))],
        lambda posted: _altered(posted, 1, amount=1),
        lambda posted: _altered(posted, 1, reference="another"),
        lambda posted: _altered(posted, 2, debit=LEG.debtor + "/NOSTRO"),
    ],
)
def test_audit_notices_what_was_tampered_with(tamper: Callable[[list[PostedEntry]], list[PostedEntry]]) -> None:
    """An entry lost, added, moved or altered is found, hashed anew or not: the head and the balances tell."""
    posted, head, accounts = linked(settled())
    assert audited(tamper(posted), head, accounts) != []


def test_audit_notices_wrong_balances() -> None:
    """A balance that the entries do not come to, an account without entries, and one on the wrong side."""
    posted, head, accounts = linked(settled())
    name = next(each for each in accounts if kind_of(each) is AccountKind.SETTLED)
    for balance in (accounts[name].balance + 1, -1):
        assert audited(posted, head, {**accounts, name: Account(balance, None)}) != []
    assert audited(posted, head, {each: account for each, account in accounts.items() if each != name}) != []


def test_kinds_are_those_of_the_database() -> None:
    """Every kind of entry is posted by some rule, and named by what it credits or gives back."""
    day = rules.repaid(LEG.ledger, LEG.debtor, "2031-03-03", 5)
    fee = rules.charged(LEG, rules.standing(settled()), "EUR", 7, "F1")
    assert fee is not None
    assert (kind_of(day.credit), kind_of(fee.credit)) == (AccountKind.LINE, AccountKind.FEES)
    assert rules.charged(LEG, rules.standing([*settled(), fee]), "EUR", 7, "F1") is None
    assert rules.standing([*settled(), fee]).place is AccountKind.SETTLED
    assert {each.kind for each in settled()} <= set(EntryKind)
