"""The parts that the verifier brings itself, against known answers and against the libraries that the services use."""

from __future__ import annotations

import hashlib

import pytest
from eth_account import Account
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as some

from coordinator.protocol import TABLE
from lockstep_kit import canonical as kit
from lockstep_kit import merkle as kit_merkle
from lockstep_kit.ids import Digest
from lockstep_verify import merkle
from lockstep_verify.keccak import keccak256
from lockstep_verify.secp256k1 import signer
from lockstep_verify.strict_json import DEPTH_MAX, NotStrict, canonical, parse
from lockstep_verify.transactions import TransactionBroken
from lockstep_verify.transactions import parse as parse_transaction
from lockstep_verify.transitions import TRANSITIONS


@pytest.mark.parametrize(
    ("octets", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (b"testing", "5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02"),
    ],
)
def test_keccak_known_answers(octets: bytes, digest: str) -> None:
    """Keccak-256 has the known answers."""
    assert keccak256(octets).hex() == digest


@pytest.mark.parametrize("length", [0, 1, 134, 135, 136, 137, 271, 272, 273, 1000])
def test_keccak_at_the_block_s_edge(length: int) -> None:
    """Keccak-256 is right where a block is just full."""
    octets = hashlib.sha512(bytes([length % 256])).digest() * 16
    assert keccak256(octets[:length]) == keccak(octets[:length])


_DOCUMENTS = some.recursive(
    some.text(some.characters(exclude_categories=["Cs"])) | some.booleans() | some.integers(1 - 2**53, 2**53 - 1),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(some.characters(exclude_categories=["Cs"])), inner),
    max_leaves=12,
)


@given(_DOCUMENTS)
@settings(max_examples=200, deadline=None)
def test_canonical_bytes_are_the_kit_s(document: object) -> None:
    """The verifier writes RFC 8785 bytes as the services do, and reads them back."""
    octets = canonical(document)
    assert octets == kit.canonical(document)  # type: ignore[arg-type]  # it is a document
    assert parse(octets) == document


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"null",
        b'{"a":null}',
        b"1.0",
        b"1e3",
        b"-0",
        b"NaN",
        b"9007199254740992",
        b'{"a":1,"a":1}',
        b'"\\ud800"',
        b"\xff",
        b"1 2",
        *[b"\xef\xbb\xbf1", b'"\n"', b"01", b"[1,]", b"'a'", b"[" * 100_000, b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1)],
    ],
)
def test_what_is_no_strict_json(octets: bytes) -> None:
    """What two readers could read differently is refused."""
    with pytest.raises(NotStrict):
        parse(octets)


def test_json_as_deep_as_allowed() -> None:
    """The bound of depth is where it is said to be."""
    assert parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)


@pytest.mark.parametrize("size", range(1, 20))
def test_proofs_are_the_kit_s(size: int) -> None:
    """Every proof that the kit makes holds, and none holds for another leaf, root or size."""
    leaves = [kit_merkle.leaf_hash(bytes([number])) for number in range(size)]
    root = kit_merkle.root(leaves)
    assert merkle.root(leaves) == root
    for index, leaf in enumerate(leaves):
        path = kit_merkle.audit_path(leaves, index)
        assert merkle.included(leaf, index, size, path, root)
        assert not merkle.included(leaf, index, size, path, bytes(32))
        assert not merkle.included(bytes(32), index, size, path, root)
        assert size == 1 or not merkle.included(leaf, (index + 1) % size, size, path, root)
        assert not merkle.included(leaf, index, size, (*path, root), root)
    for before in range(1, size + 1):
        path = kit_merkle.consistency_path(leaves, before)
        old = kit_merkle.root(leaves[:before])
        assert merkle.consistent(before, old, size, root, path)
        assert not merkle.consistent(before, Digest(bytes(32)), size, root, path)
        assert before == size or not merkle.consistent(before, old, size, bytes(32), path)
        assert not merkle.consistent(before, old, size, root, (*path, root))


@given(some.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_transaction_s_reader(octets: bytes) -> None:
    """Any bytes are a transaction or are refused."""
    with pytest.raises(TransactionBroken):
        parse_transaction(b"\x02" + octets)


@given(some.integers(0, 2**32), some.binary(min_size=32, max_size=32))
@settings(max_examples=25, deadline=None)
def test_who_signed(seed: int, digest: bytes) -> None:
    """The account that signed is recovered as the wallet's own library does; of another digest, or with the other s, it is not that account."""
    account = Account.from_key(hashlib.sha256(str(seed).encode()).digest())
    made = account.unsafe_sign_hash(digest)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    address = bytes.fromhex(account.address[2:])
    assert signer(digest, made.v == 28, made.r, made.s) == address
    assert signer(hashlib.sha256(digest).digest(), made.v == 28, made.r, made.s) != address
    assert signer(digest, made.v == 27, made.r, order - made.s) is None
    assert [signer(digest, False, *pair) for pair in ((0, made.s), (made.r, 0), (order, made.s))] == [None] * 3


def test_lists_in_lists_are_refused() -> None:
    """A transaction of lists in lists is refused before anything recurses too deep."""
    nested = b""
    for _ in range(30):
        nested = bytes([0xC0 + len(nested)]) + nested
    with pytest.raises(TransactionBroken):
        parse_transaction(b"\x02" + nested)


def test_transitions_are_the_coordinator_s() -> None:
    """The verifier knows exactly the transitions that the coordinator makes."""
    table = {
        (left.value, before.value if before else "", cause.value, arc.state.value, arc.decision.value if arc.decision else "")
        for (left, before, cause), arc in TABLE.items()
    }
    assert table == TRANSITIONS
