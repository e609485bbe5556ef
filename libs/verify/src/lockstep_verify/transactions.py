"""A signed transaction that anchors roots: its hash, who signed it, its chain, whom it calls, and with what. Pure.

Read are transactions of EIP-1559 in their one encoding (EIP-2718, RLP) that call ``anchorMany((uint8,bytes32,uint64)[])`` in the one encoding that the ABI's
writers produce. Whether the registry takes roots from whoever signed it is for the auditor, or for a node, to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from lockstep_verify import secp256k1
from lockstep_verify.keccak import keccak256

_SELECTOR: Final = keccak256(b"anchorMany((uint8,bytes32,uint64)[])")[:4]
_TYPE: Final = 2
_FIELDS: Final = 12
#: Those that are signed; parity of y, r and s come behind them.
_SIGNED: Final = 9
#: An access list holds lists of lists.
_DEPTH_MAX: Final = 4
_WORD: Final = 32
_ROOT_BYTES: Final = 3 * _WORD

_Item: TypeAlias = "bytes | list[_Item]"


class TransactionBroken(ValueError):
    """The bytes are no such transaction."""


@dataclass(frozen=True, slots=True)
class Anchoring:
    """A transaction that anchors roots."""

    #: Keccak-256 of its bytes.
    hash: bytes
    #: Account that signed it (20 bytes).
    sender: bytes
    #: EIP-155 number of its chain.
    chain_number: int
    #: Contract that it calls (20 bytes).
    to: bytes
    #: Kind, root and size of each root.
    roots: tuple[tuple[int, bytes, int], ...]


def parse(octets: bytes) -> Anchoring:
    """The anchoring transaction in the bytes.

    Raises:
        TransactionBroken: there is none.
    """
    if octets[:1] != bytes([_TYPE]):
        raise TransactionBroken("not of the type 2")
    item, end = _item(octets, 1, 0)
    if end != len(octets) or not isinstance(item, list) or len(item) != _FIELDS:
        raise TransactionBroken("not a list of 12 fields")
    chain, to, calldata = item[0], item[5], item[7]
    if not isinstance(chain, bytes) or not isinstance(to, bytes) or not isinstance(calldata, bytes):
        raise TransactionBroken("a field is a list")
    if len(chain) > 8 or chain[:1] == b"\x00" or len(to) != 20:
        raise TransactionBroken("chain or address")
    return Anchoring(keccak256(octets), _sender(octets, item), int.from_bytes(chain, "big"), to, _roots(calldata))


def _sender(octets: bytes, fields: list[_Item]) -> bytes:
    """Who signed: the signature is over the list of the fields before it."""
    start = place = 2 + max(octets[1] - 0xF7, 0)
    for _ in range(_SIGNED):
        _, place = _item(octets, place, 1)
    body = octets[start:place]
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    head = bytes([0xC0 + len(body)]) if len(body) <= 55 else bytes([0xF7 + len(size)]) + size
    marks = [each for each in fields[_SIGNED:] if isinstance(each, bytes) and len(each) <= _WORD and each[:1] != b"\x00"]
    if len(marks) != _FIELDS - _SIGNED or marks[0] not in (b"", b"\x01"):
        raise TransactionBroken("no signature")
    r, s = (int.from_bytes(each, "big") for each in marks[1:])
    found = secp256k1.signer(keccak256(bytes([_TYPE]) + head + body), marks[0] == b"\x01", r, s)
    if found is None:
        raise TransactionBroken("no signature")
    return found


def _roots(calldata: bytes) -> tuple[tuple[int, bytes, int], ...]:
    head = _SELECTOR + _WORD.to_bytes(_WORD, "big")
    many = int.from_bytes(calldata[36:68], "big")
    body = calldata[68:]
    if not calldata.startswith(head) or len(body) != many * _ROOT_BYTES:
        raise TransactionBroken("not a call of anchorMany")
    found = []
    for start in range(0, len(body), _ROOT_BYTES):
        kind, size = int.from_bytes(body[start : start + 32], "big"), int.from_bytes(body[start + 64 : start + 96], "big")
        if kind >= 2**8 or size >= 2**64:
            raise TransactionBroken("a number does not fit its type")
        found.append((kind, body[start + 32 : start + 64], size))
    return tuple(found)


def _item(octets: bytes, start: int, depth: int) -> tuple[_Item, int]:
    """The RLP item that begins at `start`, and where it ends."""
    if start >= len(octets) or depth > _DEPTH_MAX:
        raise TransactionBroken("cut off, or too deep")
    first = octets[start]
    if first < 0x80:
        return octets[start : start + 1], start + 1
    base, nested = (0xC0, True) if first >= 0xC0 else (0x80, False)
    length, body = first - base, start + 1
    if length > 55:
        many = length - 55
        if many > 4 or octets[body : body + 1] == b"\x00":
            raise TransactionBroken("a length is not minimal")
        length, body = int.from_bytes(octets[body : body + many], "big"), body + many
        if length <= 55:
            raise TransactionBroken("a length is not minimal")
    end = body + length
    if end > len(octets):
        raise TransactionBroken("cut off")
    if not nested:
        if length == 1 and octets[body] < 0x80:
            raise TransactionBroken("a byte is not minimal")
        return octets[body:end], end
    items: list[_Item] = []
    while body < end:
        item, body = _item(octets, body, depth + 1)
        items.append(item)
    if body != end:
        raise TransactionBroken("a list does not end with its items")
    return items, end
