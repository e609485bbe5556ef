"""Decision keys, signing keys and the registry of keys."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.ids import ActorId, LegId, PlanId
from lockstep_kit.keys import leg_key, lock_of, opens
from lockstep_kit.registry import Actor, Participant, Registry, Role
from lockstep_kit.signing import Signature, SigningKey
from lockstep_testkit.factories import key_of, registered

PLAN = PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a11")
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_leg_key_is_the_documented_hmac() -> None:
    """A leg's key is HMAC-SHA256 over label, plan and leg, and its lock is the SHA-256 of the key."""
    key = leg_key(bytes(range(32)), PLAN, LegId("cash"))
    assert key == hmac.new(bytes(range(32)), b"lockstep/key/v1\x1f" + PLAN.encode() + b"\x1fcash", hashlib.sha256).digest()
    assert key.hex() == "3eb91285d192b48333f7b0007ab7045bdd11fb6cc079e0197c7ff6ff39fce3a5"
    assert lock_of(key) == hashlib.sha256(key).digest()


@given(st.binary(min_size=32, max_size=32), st.text("abc-", min_size=1, max_size=5), st.text("abc-", min_size=1, max_size=5))
def test_a_key_opens_its_own_lock_only(plan_key: bytes, leg: str, other: str) -> None:
    """A leg's key opens its lock, and another leg's key does not."""
    key = leg_key(plan_key, PLAN, LegId(leg))
    assert opens(key, lock_of(key))
    assert opens(leg_key(plan_key, PLAN, LegId(other)), lock_of(key)) == (leg == other)
    assert not opens(b"", lock_of(key))


def test_rfc_8032_vector() -> None:
    """The first test vector of RFC 8032, section 7.1, comes out (with the seed of TEST 1)."""
    key = SigningKey(SEED)
    assert key.public.octets.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").octets.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert key.public.key_id == hashlib.sha256(key.public.octets).hexdigest()[:16]


@given(st.binary(max_size=64), st.integers(0, 63), st.integers(1, 255))
def test_bent_signatures(message: bytes, place: int, change: int) -> None:
    """A signature over the message verifies; with any octet changed, or over another message, it does not."""
    key = key_of("alice")
    good = key.sign(message)
    bent = bytearray(good.octets)
    bent[place] ^= change
    assert key.public.verifies(message, good.octets)
    assert not key.public.verifies(message, bytes(bent))
    assert not key.public.verifies(message + b"x", good.octets)


@pytest.mark.parametrize("octets", [b"", bytes(63), bytes(65)])
def test_signature_of_another_length(octets: bytes) -> None:
    """What has not 64 octets is no signature, and no error either."""
    assert not key_of("alice").public.verifies(b"message", octets)


def test_keys_do_not_show() -> None:
    """A private key's text form shows nothing of it."""
    assert SEED.hex() not in repr(SigningKey(SEED))
    assert repr(SEED) not in repr(SigningKey(SEED))


def test_registry_says_whose_and_when() -> None:
    """A signature counts for the registered owner of its key, while the key is valid: from not_before, until before not_after."""
    key, later = key_of("alice"), NOW + timedelta(days=1)
    registry = Registry([Actor(ActorId("alice"), frozenset({Role.MAKER}), (registered(key, NOW, later),))], [])
    signature = key.sign(b"message")
    for moment, counts in ((NOW - timedelta(microseconds=1), False), (NOW, True), (later, False)):
        found = registry.actor_of(signature, b"message", moment)
        assert (found is not None) == counts
    assert registry.actor_of(Signature(signature.key_id, key_of("bob").sign(b"message").octets), b"message", NOW) is None
    assert registry.actor_of(key_of("bob").sign(b"message"), b"message", NOW) is None
    assert registry.participant_of(signature, b"message", NOW) is None
    assert [actor.actor_id for actor in registry.with_role([Role.MAKER, Role.APPROVER])] == ["alice"]


def test_a_key_has_one_owner() -> None:
    """One key registered for a person and a participant would let one speak for the other."""
    with pytest.raises(ValueError, match="registered twice"):
        Registry(
            [Actor(ActorId("alice"), frozenset({Role.MAKER}), (registered(key_of("x")),))],
            [Participant("notary", (registered(key_of("x")),))],
        )
