"""A history of keys: what holds, and what is named when something does not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep_kit.canonical import canonical, statement, time_text
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.key_history import (
    GENESIS,
    KEY_DOMAIN,
    HistoryFinding,
    KeyHistory,
    SignedKey,
    empty,
    introduce,
    verify,
)
from lockstep_kit.signing import Signature, SigningKey

HOLDER = "event-journal"
FIRST, SECOND, THIRD, STRANGER = (SigningKey(sha256(name)) for name in (b"1", b"2", b"3", b"x"))
START = datetime(2026, 1, 1, tzinfo=UTC)
YEAR, DAY = timedelta(days=365), timedelta(days=1)


def standing(statements: list[SignedKey]) -> KeyHistory:
    found = verify(statements, HOLDER)
    assert isinstance(found, KeyHistory)
    return found


def history() -> list[SignedKey]:
    """Three keys, each a day before the one before it ends."""
    made = [introduce(empty(HOLDER), FIRST, START, START + YEAR)]
    made.append(introduce(standing(made), SECOND, START + YEAR - DAY, START + 2 * YEAR, FIRST))
    made.append(introduce(standing(made), THIRD, START + 2 * YEAR - DAY, START + 3 * YEAR, SECOND))
    return made


def rule(statements: list[SignedKey]) -> tuple[int, str]:
    found = verify(statements, HOLDER)
    assert isinstance(found, HistoryFinding)
    return found.number, found.rule


def remade(signed: SignedKey, signers: list[SigningKey], **changes: Any) -> SignedKey:
    """The statement with other content, signed anew."""
    octets = statement(KEY_DOMAIN, json.loads(signed.statement.partition(b"\n")[2]) | changes)
    return SignedKey(octets, tuple(each.sign(octets) for each in signers))


def test_keys_and_their_times() -> None:
    """A history that holds gives every key with its time; while two overlap, both count, and before and after none does."""
    found = standing(history())
    assert [key.public for key in found.keys] == [FIRST.public, SECOND.public, THIRD.public]
    overlap = START + YEAR - DAY
    assert found.has(FIRST.public.key_id, overlap)
    assert found.has(SECOND.public.key_id, overlap)
    assert not found.has(SECOND.public.key_id, overlap - timedelta(microseconds=1))
    assert not found.has(FIRST.public.key_id, START + YEAR)
    assert not found.has(STRANGER.public.key_id, overlap)
    assert standing([]).head == GENESIS


def test_statement_bytes_are_pinned() -> None:
    """The bytes of a statement are what auditors' own programs compute; they never change within a version."""
    first = history()[0]
    assert first.statement == (
        b'lockstep/key/v1\n{"holder":"event-journal","key_id":"' + FIRST.public.key_id.encode() + b'","not_after":"'
        b'2027-01-01T00:00:00.000000Z","not_before":"2026-01-01T00:00:00.000000Z","number":1,"previous_hash":"' + b"0" * 64 + b'",'
        b'"public_key":"' + FIRST.public.octets.hex().encode() + b'","version":1}'
    )
    assert first.hash == sha256(first.statement)


def test_what_is_done_to_a_history_is_named() -> None:
    """A statement that is changed, dropped, moved, forged or put in is found, and the rule it breaks is named."""
    first, second, third = history()
    assert rule([second, third]) == (1, "NUMBER_GAP")
    assert rule([first, third]) == (2, "NUMBER_GAP")
    assert rule([first, first]) == (2, "NUMBER_GAP")
    assert rule([first, remade(second, [FIRST, SECOND], previous_hash="11" * 32), third]) == (2, "LINK_BROKEN")
    assert rule([remade(first, [FIRST], holder="notary")]) == (1, "HOLDER_DIFFERS")
    assert rule([first, remade(second, [FIRST, SECOND], key_id="00" * 8)]) == (2, "KEY_ID_WRONG")
    again = {"public_key": FIRST.public.octets.hex(), "key_id": FIRST.public.key_id}
    assert rule([first, remade(second, [FIRST, FIRST], **again)]) == (2, "KEY_REPEATED")
    assert rule([replace(first, statement=first.statement[:-1])]) == (1, "STATEMENT_MALFORMED")
    assert rule([replace(first, statement=first.statement.replace(b"key/v1", b"vote/v1"))]) == (1, "STATEMENT_MALFORMED")
    assert rule([remade(first, [FIRST], surplus="x")]) == (1, "STATEMENT_MALFORMED")
    assert rule([remade(first, [FIRST], version=2)]) == (1, "STATEMENT_MALFORMED")


def test_both_keys_must_sign() -> None:
    """A key is introduced by the one before it, and shows that its holder has it: one signature without the other is not enough."""
    first, second, _ = history()
    assert rule([remade(first, [STRANGER])]) == (1, "SIGNATURE_INVALID")
    for signers in ([FIRST], [SECOND], [SECOND, FIRST], [STRANGER, SECOND], [FIRST, STRANGER], [], [FIRST, SECOND, SECOND]):
        assert rule([first, remade(second, signers)]) == (2, "SIGNATURE_INVALID")
    broken = Signature(FIRST.public.key_id, bytes(64))
    assert rule([first, replace(second, signatures=(broken, second.signatures[1]))]) == (2, "SIGNATURE_INVALID")
    assert rule([first, replace(second, signatures=(second.signatures[0], replace(broken, key_id=SECOND.public.key_id)))]) == (
        2,
        "SIGNATURE_INVALID",
    )


@pytest.mark.parametrize(
    ("not_before", "not_after", "broken"),
    [
        (START + YEAR + DAY, START + 2 * YEAR, "VALIDITY_GAP"),
        (START - DAY, START + 2 * YEAR, "VALIDITY_BACKWARDS"),
        (START + DAY, START + YEAR - DAY, "VALIDITY_BACKWARDS"),
        (START + DAY, START + DAY, "VALIDITY_EMPTY"),
    ],
)
def test_times_overlap_or_meet(not_before: datetime, not_after: datetime, broken: str) -> None:
    """There is no moment between two keys at which none counts, and times only go on; a rotation that breaks that is refused before it is signed."""
    first, second, _ = history()
    changed = remade(second, [FIRST, SECOND], not_before=time_text(not_before), not_after=time_text(not_after))
    assert rule([first, changed]) == (2, broken)
    with pytest.raises(FieldInvalid):
        introduce(standing([first]), SECOND, not_before, not_after, FIRST)
    met = introduce(standing([first]), SECOND, START + YEAR, START + 2 * YEAR, FIRST)
    assert len(standing([first, met]).keys) == 2


def test_only_the_newest_key_hands_over() -> None:
    """A key is introduced by the newest one, and the first by none."""
    first, second, _ = history()
    for before in (None, STRANGER, FIRST):
        with pytest.raises(FieldInvalid, match="before"):
            introduce(standing([first, second]), THIRD, START + YEAR, START + 3 * YEAR, before)
    with pytest.raises(FieldInvalid, match="before"):
        introduce(empty(HOLDER), SECOND, START, START + YEAR, FIRST)
    with pytest.raises(FieldInvalid, match="key"):
        introduce(standing([first, second]), FIRST, START + YEAR, START + 3 * YEAR, SECOND)


def test_the_form_is_canonical() -> None:
    """Bytes that say the same in another spelling are no statement: whoever hashes them would get another hash."""
    first = history()[0]
    document = json.loads(first.statement.partition(b"\n")[2])
    spelled = KEY_DOMAIN.encode() + b"\n" + json.dumps(document).encode()
    assert canonical(document) in first.statement
    assert rule([SignedKey(spelled, (FIRST.sign(spelled),))]) == (1, "STATEMENT_MALFORMED")
