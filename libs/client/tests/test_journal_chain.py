"""A plan's chain, recomputed from what the journal delivers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lockstep_client.evidence import JOURNAL_SILENT, check_journal
from lockstep_client.journal_chain import GENESIS, Entry, signed_bytes, verify_chain
from lockstep_kit.canonical import canonical
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.signing import SigningKey

PLAN = PlanId("0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11")
KEY = SigningKey(sha256(b"event-journal"))
TYPES = ("plan.created", "plan.initiated", "leg.prepared", "plan.closed")


def entry(sequence: int, previous: Any, type_: str, payload: dict[str, Any], key: SigningKey = KEY) -> Entry:
    octets = canonical(payload)
    blank = Entry(
        plan_id=PLAN,
        sequence=sequence,
        event_id=f"event-{sequence}",
        type=type_,
        actor="coordinator",
        actor_role="service",
        event_time=datetime(2026, 6, 1, 12, 0, sequence, tzinfo=UTC),
        payload=octets,
        payload_hash=sha256(octets),
        previous_hash=previous,
        entry_hash=GENESIS,
        canonical_bytes=b"",
        signature=key.sign(b""),
    )
    signed = signed_bytes(blank)
    return replace(blank, canonical_bytes=signed, entry_hash=sha256(signed), signature=key.sign(signed))


def chain(plan_digest: str = "ab" * 32, key: SigningKey = KEY) -> list[Entry]:
    entries: list[Entry] = []
    for number, type_ in enumerate(TYPES, start=1):
        previous = entries[-1].entry_hash if entries else GENESIS
        entries.append(entry(number, previous, type_, {"plan_digest": plan_digest, "n": number}, key))
    return entries


def found(entries: list[Entry], world: Any) -> set[str]:
    return {each.rule for each in verify_chain(entries, PLAN, world.registry).findings}


def test_the_signed_bytes_are_the_journals(world: Any) -> None:
    """The bytes that are recomputed here are those that the journal itself signs: the same event gives the same bytes."""
    theirs = pytest.importorskip("event_journal.chain")
    ours = chain()[0]
    event = theirs.Event(PLAN, 1, ours.event_id, ours.type, ours.actor, ours.actor_role, ours.event_time, ours.payload)
    linked = theirs.link(event, GENESIS, KEY)
    assert (linked.canonical_bytes, linked.entry_hash, linked.signature) == (ours.canonical_bytes, ours.entry_hash, ours.signature)


def test_a_chain_that_holds(world: Any) -> None:
    """Of a gapless, linked, signed chain nothing is found; it tells its plan, its head and its seal."""
    verdict = verify_chain(chain(), PLAN, world.registry)
    assert (verdict.valid, verdict.entry_count, verdict.sealed, verdict.plan_digest) == (True, 4, True, "ab" * 32)
    assert verdict.head_hash == chain()[-1].entry_hash
    assert not verify_chain(chain()[:3], PLAN, world.registry).sealed


@pytest.mark.parametrize(
    ("tamper", "rules"),
    [
        (lambda c: c[:1] + c[2:], {"SEQUENCE_GAP", "LINK_BROKEN"}),
        (lambda c: c[1:], {"SEQUENCE_GAP", "LINK_BROKEN", "TYPE_MISPLACED"}),
        (lambda c: [c[0], c[2], c[1], c[3]], {"SEQUENCE_GAP", "LINK_BROKEN"}),
        (lambda c: [c[0], replace(c[1], actor="mallory"), *c[2:]], {"ENTRY_CHANGED"}),
        (lambda c: [c[0], replace(c[1], event_time=datetime(2026, 6, 2, tzinfo=UTC)), *c[2:]], {"ENTRY_CHANGED"}),
        (lambda c: [c[0], replace(c[1], payload=b"{}"), *c[2:]], {"ENTRY_CHANGED", "PAYLOAD_CHANGED"}),
        (lambda c: [c[0], replace(c[1], payload=b"{}", payload_hash=sha256(b"{}")), *c[2:]], {"ENTRY_CHANGED"}),
        (lambda c: [c[0], replace(c[1], entry_hash=sha256(b"x")), *c[2:]], {"HASH_WRONG"}),
        (
            lambda c: [*c[:3], replace(c[3], signature=SigningKey(bytes(32)).sign(c[3].canonical_bytes))],
            {"ENTRY_CHANGED", "SIGNATURE_INVALID"},
        ),
        (lambda c: [*c, entry(5, c[-1].entry_hash, "leg.executed", {})], {"AFTER_SEAL"}),
        (lambda c: [*c[:3], entry(4, c[2].entry_hash, "plan.created", {})], {"TYPE_MISPLACED"}),
        (lambda _: chain(key=SigningKey(sha256(b"bank-gateway"))), {"SIGNATURE_INVALID"}),
        (
            lambda c: [replace(each, plan_id="6b7e0c39-4b84-4b0b-9a2c-0a5c2f3d1e77") for each in c],
            {"PLAN_DIFFERS", "ENTRY_CHANGED"},
        ),
        (lambda _: [], {"CHAIN_EMPTY"}),
    ],
)
def test_tampering_is_named(world: Any, tamper: Callable[[list[Entry]], list[Entry]], rules: set[str]) -> None:
    """What was changed, dropped, inserted, reordered or signed by another is found by name."""
    assert found(tamper(chain()), world) == rules


def erased(entries: list[Entry]) -> list[Entry]:
    """The chain as the journal delivers it once its payloads were erased."""
    return [replace(each, payload=b"", erased=True) for each in entries]


def test_an_erased_chain_holds(world: Any) -> None:
    """Without its payloads a chain verifies as before, and says that they were erased; its plan is not to be seen, which is told and not guessed."""
    whole, verdict = verify_chain(chain(), PLAN, world.registry), verify_chain(erased(chain()), PLAN, world.registry)
    assert (verdict.valid, verdict.payloads_erased, verdict.plan_digest) == (True, True, "")
    assert (verdict.head_hash, verdict.entry_count, verdict.sealed) == (whole.head_hash, whole.entry_count, whole.sealed)
    assert not whole.payloads_erased
    assert [each.rule for each in check_journal(verdict, world.view(), complete_to=4)] == ["JOURNAL_PAYLOADS_ERASED"]


@pytest.mark.parametrize(
    ("tamper", "rules"),
    [
        (lambda c: [c[0], replace(c[1], payload_hash=sha256(b"{}")), *c[2:]], {"ENTRY_CHANGED"}),
        (lambda c: [c[0], replace(c[1], payload=b"{}"), *c[2:]], {"PAYLOAD_CHANGED"}),
        (lambda c: [c[0], replace(c[1], erased=False), *c[2:]], {"ENTRY_CHANGED", "PAYLOAD_CHANGED"}),
        (lambda c: [c[0], replace(c[1], actor="mallory"), *c[2:]], {"ENTRY_CHANGED"}),
        (lambda c: c[:1] + c[2:], {"SEQUENCE_GAP", "LINK_BROKEN"}),
    ],
)
def test_tampering_with_an_erased_chain_is_named(world: Any, tamper: Callable[[list[Entry]], list[Entry]], rules: set[str]) -> None:
    """That payloads were erased hides nothing else: what is left is held against what was signed."""
    assert found(tamper(erased(chain())), world) == rules


def test_the_chain_is_about_the_plan(world: Any) -> None:
    """A chain that was opened for another plan, or that stops short, is found; only what is not there yet may pass."""
    view = world.view()
    right = verify_chain(chain(view.header.digest.hex())[:3], PLAN, world.registry)
    assert check_journal(right, view, complete_to=3) == []
    behind = check_journal(right, view, complete_to=4)
    assert [(each.rule, each.may_pass) for each in behind] == [("JOURNAL_BEHIND", True)]
    wrong = check_journal(verify_chain(chain()[:3], PLAN, world.registry), view, complete_to=3)
    assert [(each.rule, each.may_pass) for each in wrong] == [("JOURNAL_PLAN_DIFFERS", False)]
    silent = check_journal(verify_chain([], PLAN, world.registry), view, complete_to=3)
    assert {each.rule for each in silent} <= JOURNAL_SILENT
