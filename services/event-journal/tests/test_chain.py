"""Chains: what verifies, and what is named when something does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from event_journal import chain as chains
from event_journal.appending import Answer, Head, Known, Submission, Verdict, against_head, append, fenced
from event_journal.chain import CLOSED, EVENT_TYPES, GENESIS, Entry, Event, entry_bytes, link, verify
from lockstep_kit import key_history
from lockstep_kit.canonical import Document, canonical
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import PlanId, journal_event_id, sha256
from lockstep_kit.key_history import HistoryFinding, empty, introduce
from lockstep_kit.registry import Participant, RegisteredKey, Registry
from lockstep_kit.signing import SigningKey
from lockstep_testkit.journal_events import document_of, payload_of

PLAN = PlanId("1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2b11")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(32))
EPOCH = Epoch(1, 3)


def registry_of(*keys: SigningKey) -> Registry:
    valid = [RegisteredKey(key.public, NOW - timedelta(days=1), NOW + timedelta(days=1)) for key in keys]
    return Registry([], [Participant("event-journal", tuple(valid))])


REGISTRY = registry_of(KEY)


def event(sequence: int, **changes: object) -> Event:
    kind = str(changes.pop("type", "plan.created" if sequence == 1 else "leg.prepared"))
    made = Event(
        plan_id=PLAN,
        sequence=sequence,
        event_id=journal_event_id(PLAN, sequence),
        type=kind,
        actor="alice",
        actor_role="maker",
        event_time=NOW,
        payload=payload_of(kind, number=sequence) if kind in EVENT_TYPES else b"{}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def chain_of(count: int) -> list[Entry]:
    chain: list[Entry] = []
    for sequence in range(1, count + 1):
        chain.append(link(event(sequence), chain[-1].entry_hash if chain else GENESIS, KEY))
    return chain


def rules(chain: list[Entry], registry: Registry = REGISTRY) -> set[str]:
    return {finding.rule for finding in verify(chain, registry).findings}


def test_untouched_chain_is_valid() -> None:
    """A chain as it was written verifies, with its count and head."""
    chain = chain_of(5)
    found = verify(chain, REGISTRY)
    assert found.valid
    assert (found.entry_count, found.head_hash, found.sealed) == (5, chain[-1].entry_hash, False)


def test_every_change_is_named() -> None:
    """A changed, dropped, swapped or foreign entry is found, and the rule it breaks is named."""
    chain = chain_of(5)
    tampered = replace(chain[2], event=replace(chain[2].event, actor="mallory"))
    assert rules([*chain[:2], tampered, *chain[3:]]) == {"ENTRY_CHANGED"}
    payload = replace(chain[2], event=replace(chain[2].event, payload=canonical({"n": 99})))
    assert rules([*chain[:2], payload, *chain[3:]]) == {"ENTRY_CHANGED"}
    assert {"SEQUENCE_GAP", "LINK_BROKEN"} <= rules([*chain[:2], *chain[3:]])
    assert {"SEQUENCE_GAP", "LINK_BROKEN"} <= rules([chain[0], chain[2], chain[1], *chain[3:]])
    forged = link(chain[4].event, chain[3].entry_hash, STRANGER)
    assert rules([*chain[:4], forged]) == {"SIGNATURE_INVALID"}
    assert "TYPE_MISPLACED" in rules(chain[1:])
    assert rules([]) == {"CHAIN_EMPTY"}


def test_nothing_follows_a_seal() -> None:
    """An entry behind the closing entry is found."""
    chain = chain_of(2)
    seal = link(event(3, type=CLOSED), chain[-1].entry_hash, KEY)
    behind = link(event(4), seal.entry_hash, KEY)
    assert verify([*chain, seal], REGISTRY).sealed
    assert rules([*chain, seal, behind]) == {"AFTER_SEAL"}


def test_chain_signed_by_an_unregistered_key_is_refused() -> None:
    """A chain that was signed anew with another key does not verify, however consistent it is."""
    entries: list[Entry] = []
    for sequence in (1, 2, 3):
        entries.append(link(event(sequence), entries[-1].entry_hash if entries else GENESIS, STRANGER))
    assert rules(entries) == {"SIGNATURE_INVALID"}
    assert rules(entries, registry_of(KEY, STRANGER)) == set()


def test_a_key_must_be_in_the_history_at_its_time() -> None:
    """Where a history of the keys is kept, an entry that another key signed is found, and one whose key counts at another time; a broken history, too."""
    registry, day = registry_of(KEY, STRANGER), timedelta(days=1)
    chain = chain_of(3)

    def found(key: SigningKey, since: datetime, until: datetime) -> set[str]:
        kept = introduce(empty("event-journal"), key, since, until)
        history = key_history.verify([kept], "event-journal")
        return {each.rule for each in chains.verify(chain, registry, history).findings}

    assert found(KEY, NOW - day, NOW + day) == set()
    assert found(STRANGER, NOW - day, NOW + day) == {"KEY_NOT_IN_HISTORY"}
    assert found(KEY, NOW + timedelta(seconds=1), NOW + day) == {"KEY_NOT_IN_HISTORY"}
    assert found(KEY, NOW - day, NOW) == {"KEY_NOT_IN_HISTORY"}
    broken = HistoryFinding(1, "LINK_BROKEN", "somebody was there")
    assert {each.rule for each in chains.verify(chain, registry, broken).findings} == {"KEY_HISTORY_BROKEN"}


def test_a_payload_of_another_form_is_invalid_by_itself() -> None:
    """A payload that holds too little, too much, or something else is INVALID with path and rule; the others of the batch are appended, and nothing freezes."""
    standing, known = heads(3)
    good = document_of("leg.prepared", number=4)
    leg: dict[str, Document] = {"leg_id": "cash", "kind": "credit_transfer", "vote": {"vote": "YES"}}
    wrong: list[tuple[dict[str, Document], str]] = [
        ({**good, "surplus": "x"}, "payload.surplus"),
        ({name: value for name, value in good.items() if name != "version"}, "payload.version"),
        ({**good, "version": 2}, "payload.version"),
        ({**good, "leg": leg}, "payload.leg.vote.statement_sha256"),
    ]
    for changed, field in wrong:
        made = append(sent(event(4, payload=canonical(changed)), event(4)), standing, known, KEY)
        assert [answer.verdict for answer in made.answers] == [Verdict.INVALID, Verdict.APPENDED]
        assert made.answers[0].message.startswith(f"{field} must")
        assert not made.heads[0].frozen


def test_what_stands_is_answered_whatever_its_form() -> None:
    """An entry that was appended under older rules stands: the same event again is answered as before."""
    before = event(3, payload=canonical({"n": 3}))
    chain = [*chain_of(2), link(before, chain_of(2)[-1].entry_hash, KEY)]
    standing = Known(PLAN, 3, before.type, sha256(before.payload), chain[-1].entry_hash)
    head = Head(PLAN, 3, chain[-1].entry_hash, sealed=False, frozen="", epoch=EPOCH)
    made = append(sent(before), {PLAN: head}, [standing], KEY)
    assert made.answers == (Answer(Verdict.APPENDED, chain[-1].entry_hash),)
    assert verify(chain, REGISTRY).valid


def heads(count: int, *, sealed: bool = False) -> tuple[dict[PlanId, Head], list[Known]]:
    chain = chain_of(count)
    head = Head(PLAN, count, chain[-1].entry_hash, sealed=sealed, frozen="", epoch=EPOCH)
    known = [Known(PLAN, each.event.sequence, each.event.type, sha256(each.event.payload), each.entry_hash) for each in chain]
    return {PLAN: head}, known


def sent(*events: Event, epoch: Epoch = EPOCH) -> list[Submission]:
    return [Submission(each, epoch) for each in events]


def test_append_answers_each_event_by_itself() -> None:
    """New events are appended, repeats answered as before, gaps told what is expected; nothing else moves."""
    standing, known = heads(3)
    made = append(sent(event(2), event(4), event(6), event(5)), standing, known, KEY)
    assert [answer.verdict for answer in made.answers] == [Verdict.APPENDED, Verdict.APPENDED, Verdict.GAP, Verdict.APPENDED]
    assert made.answers[0].entry_hash == known[1].entry_hash
    assert made.answers[2].expected_sequence == 5
    assert [entry.event.sequence for entry in made.entries] == [4, 5]
    assert made.heads == (Head(PLAN, 5, made.entries[-1].entry_hash, sealed=False, frozen="", epoch=EPOCH),)


def test_other_content_at_a_taken_place_freezes_the_chain() -> None:
    """The same number with other bytes is a conflict, and nothing is appended to the chain from then on."""
    standing, known = heads(3)
    made = append(sent(event(3, payload=payload_of("leg.prepared", number=33)), event(4)), standing, known, KEY)
    assert [answer.verdict for answer in made.answers] == [Verdict.CONFLICT, Verdict.CONFLICT]
    assert made.entries == ()
    assert made.heads[0].frozen


def test_an_id_that_is_not_its_places_is_invalid_by_itself() -> None:
    """So that an id stands once: an event with another place's, another plan's or none is not appended, and its chain goes on."""
    standing, known = heads(3)
    ours = journal_event_id(PLAN, 5)
    for strange in (journal_event_id(PLAN, 4), journal_event_id(PlanId(f"{PLAN}0"), 5), ours.upper(), "event"):
        made = append(sent(event(4), event(5, event_id=strange), event(5)), standing, known, KEY)
        assert [answer.verdict for answer in made.answers] == [Verdict.APPENDED, Verdict.INVALID, Verdict.APPENDED]
        assert made.answers[1].message == "event_id must be the UUIDv5 of plan and sequence"
        assert [entry.event.event_id for entry in made.entries] == [journal_event_id(PLAN, 4), ours]


def test_an_end_that_was_cut_off_is_found() -> None:
    """A chain whose last entry is gone verifies link by link, and not against its head."""
    chain = chain_of(3)
    head = Head(PLAN, 3, chain[-1].entry_hash, sealed=False, frozen="")
    assert against_head(verify(chain, REGISTRY), head).valid
    found = against_head(verify(chain[:2], REGISTRY), head)
    assert [finding.rule for finding in found.findings] == ["HEAD_DIFFERS"]
    assert not against_head(verify(chain, REGISTRY), None).valid


def test_what_an_older_epoch_sent_is_not_obeyed() -> None:
    """Neither appended nor held against what stands, however late it comes; what stands already is answered as before, and the newer epoch goes on."""
    standing, known = heads(3)
    newer = Epoch(EPOCH.generation + 1, 1)
    raised = {PLAN: fenced(standing[PLAN], newer)}
    late = sent(event(4), event(3, payload=payload_of("leg.prepared", number=33)), event(2))
    made = append(late, raised, known, KEY)
    assert [answer.verdict for answer in made.answers] == [Verdict.STALE, Verdict.STALE, Verdict.APPENDED]
    assert (made.entries, made.heads) == ((), ())
    made = append([*sent(event(4), epoch=newer), *sent(event(5))], standing, known, KEY)
    assert [answer.verdict for answer in made.answers] == [Verdict.APPENDED, Verdict.STALE]
    assert made.heads[0].epoch == newer
    assert fenced(made.heads[0], EPOCH) == made.heads[0]


def test_sealed_chain_takes_nothing() -> None:
    """An event behind a seal is refused; a repeat of one before it is still answered."""
    standing, known = heads(3, sealed=True)
    made = append(sent(event(4), event(3)), standing, known, KEY)
    assert [answer.verdict for answer in made.answers] == [Verdict.SEALED, Verdict.APPENDED]
    assert fenced(standing[PLAN], Epoch(9, 9)) == standing[PLAN]
    assert not made.entries
    assert not made.heads


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "plan.renamed"}, "type"),
        ({"type": CLOSED}, "type"),
        ({"type": "plan.created"}, "type"),
        ({"payload": b'{"n": 1}'}, "payload"),
        ({"payload": b'{"n":1.5}'}, "payload"),
        ({"payload": b"[]"}, "payload"),
        ({"payload": b"{}" + b" " * 70_000}, "payload"),
        ({"actor": ""}, "actor"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 129}, "event_id"),
        ({"event_id": "a\0b"}, "event_id"),
        ({"actor": "a\0b"}, "actor"),
        ({"payload": b"[" * 50_000}, "payload"),
    ],
)
def test_malformed_event_is_named_and_changes_nothing(changes: dict[str, object], field: str) -> None:
    """An event that breaks a rule of form is answered INVALID with its field; the chain stays."""
    standing, known = heads(3)
    made = append(sent(event(4, **changes)), standing, known, KEY)
    assert made.answers[0].verdict is Verdict.INVALID
    assert made.answers[0].message.startswith(field)
    assert not made.entries
    assert not made.heads


def test_entry_bytes_are_pinned() -> None:
    """The bytes of an entry are what auditors' own programs compute; they never change within a version."""
    assert entry_bytes(event(1), GENESIS, "0011223344556677", sha256(event(1).payload)) == (
        b'lockstep/entry/v1\n{"actor":"alice","actor_role":"maker","event_id":"' + journal_event_id(PLAN, 1).encode() + b'",'
        b'"event_time":"2026-11-21T12:00:00.000000Z","key_id":"0011223344556677","payload_hash":"'
        + sha256(event(1).payload).hex().encode()
        + b'","plan_id":"1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2b11","previous_hash":"'
        + b"0" * 64
        + b'","sequence":1,"type":"plan.created","version":1}'
    )
