"""Static encoders: calldata and results from types and selectors that are worked out once, at import. Pure.

A contract object of a client library asks its node and walks the ABI for each call; here a call is one `eth_abi.encode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from lockstep_contracts.artifacts import AbiEntry, Artifact

SELECTOR_BYTES: Final = 4
WORD_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a contract."""

    #: First four bytes of the hash of its signature.
    selector: bytes
    #: ABI types of its arguments.
    inputs: tuple[str, ...]
    #: ABI types of its results.
    outputs: tuple[str, ...]

    def encode(self, *arguments: Any) -> bytes:
        """Calldata of a call.

        Raises:
            eth_abi.exceptions.EncodingError: an argument does not fit its type.
        """
        return self.selector + encode(self.inputs, arguments)

    def decode(self, result: bytes) -> tuple[Any, ...]:
        """Results of a call.

        Raises:
            eth_abi.exceptions.DecodingError: these are not this function's results; an address without code answers nothing.
        """
        return decode(self.outputs, result)


def function(contract: Artifact, name: str) -> Function:
    """A function of a contract by its name."""
    entry = contract.entry("function", name)
    return Function(selector_of(entry), input_types(entry), tuple(abi_type(output) for output in entry["outputs"]))


def encode_deployment(contract: Artifact, *arguments: Any) -> bytes:
    """Creation code with constructor arguments: the data of the transaction that deploys a contract."""
    return contract.bytecode + encode(input_types(contract.entry("constructor", "")), arguments)


def abi_type(parameter: AbiEntry) -> str:
    """The canonical type of a parameter; structs are written as tuples."""
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(abi_type(component) for component in parameter['components'])}){kind.removeprefix('tuple')}"


def input_types(entry: AbiEntry) -> tuple[str, ...]:
    """The canonical types of an entry's parameters."""
    return tuple(abi_type(parameter) for parameter in entry["inputs"])


def signature_hash(entry: AbiEntry) -> bytes:
    """keccak256 of name and types: an event's topic; its first four bytes are a function's or an error's selector."""
    return keccak(text=f"{entry['name']}({','.join(input_types(entry))})")


def selector_of(entry: AbiEntry) -> bytes:
    """Selector of a function or an error."""
    return signature_hash(entry)[:SELECTOR_BYTES]


def split_reason(revert_data: bytes) -> tuple[bytes, bytes]:
    """The selector and the arguments of what a call reverted with."""
    return revert_data[:SELECTOR_BYTES], revert_data[SELECTOR_BYTES:]


def same_length(what: str, first: Sequence[object], second: Sequence[object]) -> None:
    """Refuse two lists that belong together and do not match.

    Raises:
        ValueError: their lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{what}: {len(first)} and {len(second)}")
