"""Signatures: what holds is remembered, and nothing else is ever taken for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from nacl.bindings import crypto_sign

from lockstep_kit import signing
from lockstep_kit.ids import ActorId
from lockstep_kit.registry import Actor, Participant, RegisteredKey, Registry
from lockstep_kit.signing import PublicKey, Signature, SigningKey

KEY, OTHER = SigningKey(bytes(32)), SigningKey(bytes(range(32)))
MESSAGE = b"lockstep/gate/v1\n{}"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VALID = RegisteredKey(KEY.public, NOW - timedelta(days=1), NOW + timedelta(days=1))


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> signing._Checked:
    """A memory of the test's own."""
    made = signing._Checked()
    monkeypatch.setattr(signing, "_checked", made)
    return made


@pytest.fixture
def signed() -> Signature:
    """A signature that was made elsewhere and checked here, and is remembered."""
    made = Signature(KEY.public.key_id, crypto_sign(MESSAGE, KEY.seed + KEY.public.octets)[:64])
    assert KEY.public.verifies(MESSAGE, made.octets)
    return made


def changed(octets: bytes) -> Iterator[bytes]:
    """The octets with one bit of each changed in turn, one left out at either end, and one added."""
    for place in range(len(octets)):
        yield octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]
    yield from (octets[1:], octets[:-1], octets + b"\x00", b"")


def test_what_holds_is_checked_once(signed: Signature, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same signature over the same message by the same key is not worked out again."""
    monkeypatch.setattr(signing, "crypto_sign_open", None)
    assert PublicKey(bytes(KEY.public.octets)).verifies(bytes(bytearray(MESSAGE)), bytes(bytearray(signed.octets)))
    with pytest.raises(TypeError):
        KEY.public.verifies(MESSAGE + b" ", signed.octets)


def test_what_was_made_here_holds_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process signed is what it would be elsewhere, and comes back without being worked out again; with anything changed it is checked."""
    made = KEY.sign(MESSAGE)
    assert made.octets == crypto_sign(MESSAGE, KEY.seed + KEY.public.octets)[:64]
    monkeypatch.setattr(signing, "crypto_sign_open", None)
    assert KEY.public.verifies(MESSAGE, made.octets)
    for key, message, octets in ((OTHER, MESSAGE, made.octets), (KEY, MESSAGE[1:], made.octets), (KEY, MESSAGE, bytes(64))):
        with pytest.raises(TypeError):
            key.public.verifies(message, octets)


def test_a_changed_octet_is_never_taken_for_what_was_checked(signed: Signature) -> None:
    """Another message, signature or key does not hold, however near it is to one that does, and however often it is asked."""
    for _ in range(2):
        assert not any(KEY.public.verifies(message, signed.octets) for message in changed(MESSAGE))
        assert not any(KEY.public.verifies(MESSAGE, octets) for octets in changed(signed.octets))
        assert not any(PublicKey(octets).verifies(MESSAGE, signed.octets) for octets in changed(KEY.public.octets))
        assert not OTHER.public.verifies(MESSAGE, signed.octets)
    assert KEY.public.verifies(MESSAGE, signed.octets)


def test_octets_do_not_pass_from_one_part_to_the_next(signed: Signature) -> None:
    """What is remembered says where the key ends and the signature, and where the signature ends and the message."""
    whole = KEY.public.octets + signed.octets + MESSAGE
    for first in (0, 31, 33, 64):
        for second in (first, first + 63, first + 64, first + 65, len(whole)):
            if (first, second) != (32, 96):
                assert not PublicKey(whole[:first]).verifies(whole[second:], whole[first:second])


def test_a_key_that_does_not_count_is_refused_though_its_signature_was_checked(signed: Signature) -> None:
    """Whose a key is, and when it counts, is asked of the registry each time: revoked, not yet valid and unknown keys sign for nobody."""
    actor = Actor(ActorId("alice"), frozenset(), (VALID,))
    service = Participant("notary", (VALID,))
    assert Registry([actor], []).actor_of(signed, MESSAGE, NOW) == actor
    assert Registry([], [service]).participant_of(signed, MESSAGE, NOW) == service
    revoked, later = replace(VALID, not_after=NOW), replace(VALID, not_before=NOW + timedelta(seconds=1))
    for keys in ((revoked,), (later,), ()):
        assert Registry([replace(actor, keys=keys)], []).actor_of(signed, MESSAGE, NOW) is None
        assert Registry([], [replace(service, keys=keys)]).participant_of(signed, MESSAGE, NOW) is None
    other = replace(VALID, public=OTHER.public)
    named = replace(signed, key_id=OTHER.public.key_id)
    assert Registry([replace(actor, keys=(other,))], []).actor_of(named, MESSAGE, NOW) is None


def test_the_memory_is_bounded(memory: signing._Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many signatures are checked, no more than so many are remembered, and what is forgotten holds as before."""
    monkeypatch.setattr(signing, "CHECKED_MAX", 8)
    messages = [str(number).encode() for number in range(40)]
    made = {message: KEY.sign(message).octets for message in messages}
    for _ in range(2):
        for message, octets in made.items():
            assert KEY.public.verifies(message, octets)
            assert len(memory._recent) + len(memory._before) <= 8
