"""Words about reservations and returns, in every phase and profile, and the races that banks run with them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from bank_samples import BANK, NAMES, OURS
from fence_samples import FINDING_OF
from hypothesis import given
from hypothesis import strategies as st
from test_races import ANYTHING, BOOKED, NOW, ORDERS, PAYMENT, answer, status

from bank_gateway import judging, profiles
from bank_gateway.judging import judge, of_payment, stray
from bank_gateway.meanings import Answer, Ground, Meaning, Word
from bank_gateway.messages import AnyStatement, Booking, Envelope, Footing, Kind, PaymentReturn, PaymentStatus, ReservationStatus
from bank_gateway.operations import REASONS, RESOLUTIONS, WORDS, Known
from bank_gateway.profiles import CONSEQUENCES, ENDED, PROFILES, RETURNS, Hold, Profile, ProfileName, Step, hold_of
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fence import FINDINGS, Phase
from lockstep_kit.ids import sha256

CREATE, DELETE, QUERY = (kind.value for kind in (Kind.RESERVATION, Kind.RESERVATION_DELETION, Kind.RESERVATION_QUERY))
RESERVING, PLAIN, CONDITIONAL = (PROFILES[name] for name in (ProfileName.RESERVATION, ProfileName.PLAIN, ProfileName.CONDITIONAL))


def told_of(about: str, code: str, reason: str = "") -> ReservationStatus:
    return ReservationStatus(NAMES.uetr, about, code, reason, "")


def money_back(amount: str = "100.00", name: str = "R1", **changes: object) -> PaymentReturn:
    made = PaymentReturn(NAMES.uetr, NAMES.end_to_end_id, name, PAYMENT.amount, amount_from_text("EUR", amount, 2), "AC04", "")
    return replace(made, **changes)  # type: ignore[arg-type]


RESERVED, TURNED_DOWN, EXPIRED = told_of(CREATE, "ACPT"), told_of(CREATE, "RJCT", "AM04"), told_of(CREATE, "RJCT", "AB03")
DELETED, PAID, NONE = told_of(DELETE, "ACPT"), told_of(DELETE, "RJCT", "PAID"), told_of(DELETE, "RJCT", "NONE")
RETURNED = replace(BOOKED, debit=False, returned=True, reference="B7")
#: Every code that can come back about a reservation, and some that nobody foresaw.
OF_RESERVATIONS = [
    told_of(about, code, reason)
    for about in (CREATE, DELETE, QUERY, "camt.050.001.07")
    for code in ("ACPT", "RJCT", "PDNG", "RCVD", "PART", "ENAB", "REQD", "DISA", "DELD", "BLKD", "PAID", "X050", "")
    for reason in ("", "AM04", "AB03", "DU03", "PAID", "NONE", "OVER")
]


@dataclass
class Leg:
    """A leg as the engine runs it, in a profile."""

    profile: Profile
    phase: Phase = Phase.PREPARING
    known: Known = field(default_factory=Known)
    clock: datetime = NOW
    meanings: list[Meaning] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def told(self, *statements: AnyStatement, made_at: datetime | None = None) -> Leg:
        for statement in statements:
            self.clock += timedelta(seconds=1)
            envelope = Envelope(BANK, OURS, f"M{self.clock:%H%M%S}", made_at or self.clock)
            payment = replace(PAYMENT, footing=self.profile.footing)
            heard = judge(self.profile, self.known, self.phase, payment, statement, envelope, sha256(envelope.message_id.encode()))
            self.known = heard.known
            self.meanings.append(heard.meaning)
            if heard.meaning is Meaning.TROUBLE:
                assert heard.detail
                self.trouble.append(heard.detail)
            if heard.meaning in (Meaning.VOTES_NO, Meaning.LAPSED, Meaning.REFUSED):
                assert heard.reason
            if heard.meaning in FINDING_OF:
                self.phase = FINDINGS[self.phase, FINDING_OF[heard.meaning]]
        return self

    def ordered(self, phase: Phase, *, sent: bool = True) -> Leg:
        """The coordinator's order, with what the gateway's steps note: a payment that is withdrawn is over."""
        self.phase = phase
        if Step.WITHDRAW in self.profile.begun[phase, sent] and self.profile.reserves:
            self.known = replace(self.known, payment_over=True)
        return self


def reserved() -> Leg:
    return Leg(RESERVING).told(RESERVED)


# -- Tables ----------------------------------------------------------------------------------------------------------


def test_every_word_has_a_meaning_in_every_phase_of_every_profile() -> None:
    """The tables are total: nothing that can come back in any phase of any profile is without a meaning, and every meaning has a consequence."""
    for profile in PROFILES.values():
        assert set(profile.tables.statuses) == set(itertools.product(Phase, Word))
        assert set(profile.reservations) == set(itertools.product(Phase, Hold))
        assert set(profile.tables.reasons) == set(REASONS)
    assert set(RESOLUTIONS) == set(itertools.product(Phase, Answer))
    assert set(RETURNS) == set(Phase)
    assert set(CONSEQUENCES) == set(Meaning)
    assert set(PROFILES) == set(ProfileName)


def test_every_phase_has_its_steps_in_every_profile() -> None:
    """Whatever the gateway may be told to begin, or owes an answer for, has steps; and a profile that never reserves takes no step about reservations."""
    working = (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING)
    about_reservations = {Step.RESERVE, Step.RESERVE_AGAIN, Step.UNRESERVE, Step.INQUIRE_RESERVATION}
    for profile in PROFILES.values():
        assert set(profile.begun) == set(profile.overdue) == set(itertools.product(working, (False, True)))
        taken = {step for steps in (*profile.begun.values(), *profile.overdue.values()) for step in steps}
        assert bool(taken & about_reservations) == profile.reserves
        asked = {*profile.reservations.values(), *profile.tables.statuses.values(), *RESOLUTIONS.values()}
        asks = asked & {Meaning.INQUIRE, Meaning.INQUIRE_RESERVATION}
        assert asks <= set(profile.answered)
        assert (Meaning.UNRESERVE in profile.answered) == profile.reserves
        assert (Step.SHOW_KEY in taken) == (profile.footing is Footing.CONDITIONAL)


def test_meanings_lead_to_findings_that_the_fence_knows() -> None:
    """A meaning that becomes a finding stands in a phase in which the fence takes that finding."""
    for profile in PROFILES.values():
        for (phase, _), meaning in [*profile.tables.statuses.items(), *profile.reservations.items()]:
            assert meaning not in FINDING_OF or (phase, FINDING_OF[meaning]) in FINDINGS


@pytest.mark.parametrize("profile", [PLAIN, CONDITIONAL])
def test_nobody_reserves_in_the_other_profiles(profile: Profile) -> None:
    """An answer about a reservation that was never asked for calls a person, wherever the leg stands."""
    for phase, said in itertools.product(Phase, OF_RESERVATIONS):
        leg = Leg(profile, phase).told(said)
        assert (leg.phase, leg.meanings) == (phase, [Meaning.TROUBLE])


@pytest.mark.parametrize(
    ("said", "hold"),
    [
        (RESERVED, Hold.RESERVED), (TURNED_DOWN, Hold.OVER), (EXPIRED, Hold.OVER), (told_of(CREATE, "RJCT", "DU03"), Hold.REPEATED),
        (DELETED, Hold.DELETED), (PAID, Hold.PAID), (NONE, Hold.NEVER_THERE), (told_of(DELETE, "RJCT", "NARR"), Hold.REFUSED),
        (told_of(DELETE, "RJCT", "OVER"), Hold.OVER), (told_of(QUERY, "ENAB"), Hold.RESERVED), (told_of(QUERY, "X050"), Hold.NEVER_THERE),
        (told_of(QUERY, "ACPT"), Hold.STRANGE), (told_of(CREATE, "PART"), Hold.STRANGE), (told_of(CREATE, "RJCT", "PAID"), Hold.OVER),
    ],
)  # fmt: skip
def test_codes_are_read_by_the_message_that_they_answer(said: ReservationStatus, hold: Hold) -> None:
    """The same code says another thing of another message; a reason of a deletion says nothing of a creation."""
    assert hold_of(said) is hold


# -- Races -----------------------------------------------------------------------------------------------------------


def test_reservation_is_the_vote_and_its_end_a_lapse() -> None:
    """Reserved: YES. Turned down: NO. Ended before the Commit: withdrawn. Repeats are no news."""
    assert reserved().told(RESERVED).phase is Phase.PREPARED
    assert Leg(RESERVING).told(TURNED_DOWN).phase is Phase.REFUSED
    assert reserved().told(EXPIRED).phase is Phase.REFUSED
    assert Leg(RESERVING).told(told_of(QUERY, "X050")).phase is Phase.REFUSED
    assert Leg(RESERVING).told(told_of(CREATE, "RJCT", "DU03")).meanings == [Meaning.INQUIRE_RESERVATION]


def test_end_of_the_reservation_against_the_commit() -> None:
    """Once the payment is on its way, what becomes of it decides, whatever is said of the reservation."""
    for said in (EXPIRED, told_of(DELETE, "RJCT", "OVER")):
        committing = reserved().ordered(Phase.COMMITTING).told(said)
        assert (committing.phase, committing.meanings[-1]) == (Phase.COMMITTING, Meaning.INQUIRE)
        assert committing.told(status("ACSC"), BOOKED).phase is Phase.COMMITTED
    assert reserved().ordered(Phase.COMMITTING).told(EXPIRED, status("RJCT", "AB03")).phase is Phase.REFUSED


def test_abort_of_an_unsent_payment_waits_for_the_reservation_s_end() -> None:
    """Given back, never there or over: released. Pending, refused or nothing: not. Paid out of it, which a restore may have forgotten: executed."""
    for ended in (DELETED, NONE, told_of(DELETE, "RJCT", "OVER"), told_of(QUERY, "DELD")):
        known_to_stand = ended is not NONE
        aborting = (reserved() if known_to_stand else Leg(RESERVING)).ordered(Phase.ABORTING, sent=False)
        assert aborting.told(told_of(DELETE, "PDNG"), told_of(DELETE, "RJCT", "NARR")).phase is Phase.ABORTING
        assert aborting.told(ended).phase is Phase.RELEASED
    forgotten = Leg(RESERVING).ordered(Phase.ABORTING, sent=False).told(PAID)
    assert (forgotten.phase, forgotten.meanings[-1]) == (Phase.ABORTING, Meaning.INQUIRE)
    assert forgotten.told(status("ACSC"), BOOKED).phase is Phase.COMMITTED


def test_abort_of_a_sent_payment_needs_both_words() -> None:
    """The payment is over and its reservation given back, in whichever order it is told: released by the second and not by the first."""
    first = reserved().ordered(Phase.ABORTING).told(answer("RJCR", "NOOR"))
    assert (first.phase, first.meanings[-1]) == (Phase.ABORTING, Meaning.UNRESERVE)
    assert first.told(DELETED).phase is Phase.RELEASED
    second = reserved().ordered(Phase.ABORTING).told(EXPIRED)
    assert (second.phase, second.meanings[-1]) == (Phase.ABORTING, Meaning.NOTHING)
    assert second.told(answer("RJCR", "NOOR")).phase is Phase.RELEASED


def test_reservation_that_was_never_there_after_it_stood_is_a_contradiction() -> None:
    """A bank that held the money and says that it never had the reservation is not believed."""
    told = reserved().ordered(Phase.ABORTING, sent=False).told(NONE)
    assert (told.phase, len(told.trouble)) == (Phase.ABORTING, 1)


def test_late_words_of_a_reservation_are_no_news() -> None:
    """A receipt made before the deletion and delivered after it changes nothing; one that the bank makes after it is a person's business."""
    released = Leg(RESERVING).ordered(Phase.ABORTING, sent=False).told(NONE)
    assert released.told(RESERVED, made_at=NOW).trouble == []
    assert len(released.told(RESERVED).trouble) == 1
    assert released.phase is Phase.RELEASED


def test_reservation_of_another_amount_is_none() -> None:
    """A report of another amount votes nothing."""
    other = replace(told_of(QUERY, "ENAB"), amount=amount_from_text("EUR", "99.00", 2))
    assert Leg(RESERVING).told(other).meanings == [Meaning.TROUBLE]


def test_answer_that_names_another_payment_than_our_message() -> None:
    """It is strange, and never a vote."""
    assert of_payment(RESERVED, [NAMES.uetr]) == RESERVED
    assert of_payment(replace(RESERVED, uetr=""), [NAMES.uetr]) == RESERVED
    crossed = of_payment(RESERVED, ["00000000-0000-4000-8000-000000000000"])
    assert Leg(RESERVING).told(crossed).meanings == [Meaning.TROUBLE]


@pytest.mark.parametrize("profile", [RESERVING, PLAIN])
def test_payment_that_was_never_sent_is_nothing_to_speak_of(profile: Profile) -> None:
    """Before the Commit, a bank that holds, works on or settles a payment that nobody sent calls a person; one that will not take it ends the promise."""
    for phase in (Phase.PREPARING, Phase.PREPARED):
        for code in ("ACFW", "ACSC", "PDNG", "ZZZZ"):
            assert Leg(profile, phase).told(status(code)).meanings == [Meaning.TROUBLE]
        assert Leg(profile, phase).told(status("RJCT", "AM05")).meanings == [Meaning.TROUBLE]
        assert Leg(profile, phase).told(status("RJCT", "TM01")).phase is Phase.REFUSED
    assert Leg(profile, Phase.COMMITTING).told(status("ACFW")).meanings == [Meaning.TROUBLE]


def test_plain_refusal_breaks_no_promise() -> None:
    """What was promised by best effort is refused by the name of a failed execution; a want of credit by its own."""
    names = {ground: PLAIN.tables.reasons[Meaning.REFUSED, ground] for ground in Ground}
    assert names == {
        Ground.RAN_OUT: "BANK_EXECUTE_FAILED",
        Ground.NO_CREDIT: "LIQUIDITY_DENIED",
        Ground.OTHER: "BANK_EXECUTE_FAILED",
    }


@pytest.mark.parametrize("answers", [("PDCR", "CNCL"), ("PDCR", "PDCR", "CNCL")])
def test_pending_cancellation_then_granted(answers: tuple[str, ...]) -> None:
    """PDCR releases nothing, however often; CNCL does."""
    aborting = Leg(PLAIN, Phase.ABORTING)
    for each in answers[:-1]:
        assert aborting.told(answer(each)).phase is Phase.ABORTING
    assert aborting.told(answer(answers[-1])).phase is Phase.RELEASED


def test_pending_cancellation_then_refused() -> None:
    """PDCR and then RJCR: asked, and executed if the bank says so by both halves, in either order."""
    both: list[AnyStatement] = [status("ACSC"), BOOKED]
    for halves in (both, both[::-1]):
        aborting = Leg(PLAIN, Phase.ABORTING).told(answer("PDCR"), answer("RJCR", "ARDT"))
        assert (aborting.phase, aborting.meanings[-1]) == (Phase.ABORTING, Meaning.INQUIRE)
        assert aborting.told(*halves).phase is Phase.COMMITTED


# -- Returns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_return_is_a_contradiction_for_a_person_in_every_phase(profile: Profile) -> None:
    """No phase changes; the sentence says how much came back, whole or in part; the same return again is no news."""
    for phase in Phase:
        leg = Leg(profile, phase).told(money_back("40.00"), money_back("40.00"), money_back("60.00", "R2"))
        assert leg.phase is phase
        assert leg.meanings == [Meaning.TROUBLE, Meaning.NOTHING, Meaning.TROUBLE]
        assert "in part, 40.00 EUR of 100.00 EUR" in leg.trouble[0]
        assert "returned whole: 60.00 EUR" in leg.trouble[1]


@pytest.mark.parametrize(
    "wrong",
    [
        money_back("100.01", original=None), money_back(original=amount_from_text("EUR", "200.00", 2)), money_back(end_to_end_id="OTHER"),
        replace(money_back(), amount=amount_from_text("USD", "100.00", 2), original=None), money_back(original=amount_from_text("USD", "100.00", 2)),
    ],
)  # fmt: skip
def test_return_that_fits_badly_is_not_counted(wrong: PaymentReturn) -> None:
    """More than the payment, another currency, amount or reference: a person's matter, and nothing is noted as come back."""
    leg = Leg(PLAIN, Phase.COMMITTED).told(wrong)
    assert (leg.meanings, leg.known.returns) == ([Meaning.TROUBLE], {})
    assert "returned whole" in Leg(PLAIN, Phase.COMMITTED).told(wrong, money_back()).trouble[-1]


def test_changed_and_excessive_returns() -> None:
    """A return that comes again with another amount, and one that goes beyond what is left, are told as such."""
    leg = Leg(PLAIN, Phase.COMMITTED).told(money_back("40.00"), money_back("41.00"), money_back("61.00", "R2"))
    assert leg.known.returns == {"R1": 40_00}
    assert len(leg.trouble) == 3


def test_booking_of_a_return() -> None:
    """Told before by a pacs.004 it is no news; by itself it is a person's matter, never a settlement."""
    assert Leg(PLAIN, Phase.COMMITTED).told(money_back(), RETURNED).meanings == [Meaning.TROUBLE, Meaning.NOTHING]
    alone = Leg(PLAIN, Phase.COMMITTING).told(status("ACSC"), RETURNED)
    assert (alone.phase, alone.meanings[-1]) == (Phase.COMMITTING, Meaning.TROUBLE)


def test_what_is_said_of_money_that_nobody_knows() -> None:
    """A return, and a reservation that stands or was paid out of, of a payment that is not known here is a person's business."""
    assert "100.00 EUR" in stray(money_back())
    assert stray(RESERVED)
    assert stray(PAID)
    assert [stray(each) for each in (TURNED_DOWN, DELETED, NONE)] == ["", "", ""]


# -- Whatever comes --------------------------------------------------------------------------------------------------

EVERYTHING: list[AnyStatement] = [*ANYTHING, *OF_RESERVATIONS, money_back(), money_back("40.00", "R2"), RETURNED]


@given(st.sampled_from(list(PROFILES.values())), st.lists(st.tuples(st.sampled_from(EVERYTHING), st.integers(0, 5)), max_size=12))
def test_whatever_a_bank_says_in_whatever_order(profile: Profile, course: list[tuple[AnyStatement, int]]) -> None:
    """In every profile: executed by both halves alone, given up never after money moved, and a reservation's leg released only when it is over."""
    leg = Leg(profile)
    heard: list[AnyStatement] = []
    for said, order in course:
        if order < len(ORDERS.get(leg.phase, ())):
            leg.ordered(ORDERS[leg.phase][order], sent=leg.phase is Phase.COMMITTING)
        before, moved = leg.phase, leg.known.moved
        leg.told(said)
        heard.append(said)
        meaning = leg.meanings[-1]
        assert not list(broken(profile, before, moved, heard, meaning))
        assert leg.phase is before or meaning in FINDING_OF


def broken(profile: Profile, phase: Phase, moved: bool, heard: list[AnyStatement], meaning: Meaning) -> Iterator[str]:
    """Rules that the last word of a course breaks by what it was taken to mean."""
    said = heard[-1]
    if meaning is Meaning.SETTLES and not (
        any(isinstance(each, PaymentStatus) and WORDS.get(each.status) is Word.SETTLED for each in heard)
        and any(isinstance(each, Booking) and not each.returned and each.debit for each in heard)
    ):
        yield "settled by half"
    if meaning in (Meaning.RELEASED, Meaning.REFUSED, Meaning.LAPSED, Meaning.VOTES_NO) and moved:
        yield "given up after money moved"
    ends = [each for each in heard if isinstance(each, ReservationStatus) and hold_of(each) in ENDED]
    if meaning is Meaning.RELEASED and profile.reserves and not ends:
        yield "released with its reservation standing"
    if (
        meaning is Meaning.VOTES_YES
        and profile.reserves
        and not (isinstance(said, ReservationStatus) and hold_of(said) is Hold.RESERVED)
    ):
        yield "voted without a reservation"
    if isinstance(said, PaymentReturn) and phase is Phase.COMMITTED and meaning is not Meaning.TROUBLE and said not in heard[:-1]:
        yield "a return is swallowed"


COURSES: tuple[AnyStatement, ...] = (
    RESERVED, TURNED_DOWN, DELETED, PAID, NONE, told_of(DELETE, "PDNG"), answer("RJCR", "NOOR"), status("ACSC"), BOOKED, money_back(),
)  # fmt: skip


def violations() -> Iterator[str]:
    for profile, start, sent in itertools.product(
        (RESERVING, PLAIN), (Phase.PREPARING, Phase.ABORTING, Phase.COMMITTING), (False, True)
    ):
        for words in itertools.product(COURSES, repeat=3):
            leg, heard = Leg(profile).ordered(start, sent=sent), list[AnyStatement]()
            for said in words:
                before, moved = leg.phase, leg.known.moved
                try:
                    leg.told(said)
                except KeyError:
                    yield "a finding that the fence does not know"
                    break
                heard.append(said)
                yield from broken(profile, before, moved, heard, leg.meanings[-1])


def test_no_course_breaks_a_rule() -> None:
    """Twelve thousand courses of three words."""
    assert set(violations()) == set()


def cell(phase: Phase, hold: Hold, meaning: Meaning) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setitem(profiles.RESERVATIONS, (phase, hold), meaning)


def part(name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(judging, name, value)


@pytest.mark.parametrize(
    ("bug", "seen"),
    [
        (cell(Phase.ABORTING, Hold.WORKING, Meaning.RELEASED), "released with its reservation standing"),
        (cell(Phase.ABORTING, Hold.PAID, Meaning.RELEASED), "released with its reservation standing"),
        (cell(Phase.PREPARING, Hold.DELETED, Meaning.VOTES_YES), "voted without a reservation"),
        (part("_payment_over", lambda heard: heard), "released with its reservation standing"),
        (part("_GIVES_UP", ()), "given up after money moved"),
        (part("RETURNS", dict.fromkeys(Phase, Meaning.NOTHING)), "a return is swallowed"),
        (cell(Phase.COMMITTING, Hold.DELETED, Meaning.LAPSED), "a finding that the fence does not know"),
    ],
)
def test_seeded_bug_is_seen(bug: Callable[[pytest.MonkeyPatch], None], seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule is broken: some course shows it."""
    bug(monkeypatch)
    assert seen in violations()
