"""Whatever is changed in a bundle that holds is reported, or takes a claim away; nothing more is ever claimed, and both verifiers agree."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lockstep_testkit.bundles.reading import second_verifier, vector
from lockstep_verify.verifying import verify

BUNDLE, TRUST, REPORT = vector("committed")
WHOLE: dict[str, Any] = json.loads(BUNDLE)
#: What nothing in a bundle proves, so that a change of it changes the report's words and no verdict: which block it is said to be in.
HARMLESS = ("block_number", "block_hash")


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all strings in a document."""
    if isinstance(value, str):
        yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _leaves(each, (*path, key))


LEAVES = sorted(_leaves(WHOLE), key=str)


def _changed(path: tuple[str | int, ...], place: int, bit: int) -> dict[str, Any]:
    """The bundle with one bit of one field turned."""
    document = deepcopy(WHOLE)
    holder: Any = document
    for key in path[:-1]:
        holder = holder[key]
    given_text: str = holder[path[-1]]
    try:
        octets = bytearray(base64.b64decode(given_text, validate=True))
        assert base64.b64encode(octets).decode() == given_text
        assert path[-1] not in ("size", "tree_size", "leaf_index", "block_number", "key_id")
        octets[place % len(octets)] ^= 1 << bit
        holder[path[-1]] = base64.b64encode(octets).decode()
    except (ValueError, AssertionError):
        at = place % len(given_text)
        holder[path[-1]] = given_text[:at] + ("1" if given_text[at] != "1" else "2") + given_text[at + 1 :]
    return document


def _judge(document: dict[str, Any], path: tuple[str | int, ...]) -> None:
    report = verify(json.dumps(document).encode(), TRUST)
    if path[-1] in HARMLESS:
        assert report["verdict"] in ("PROVED", "UNREADABLE")
        assert report.get("proved", REPORT["proved"]) == REPORT["proved"]
        return
    assert report["verdict"] in ("FAILED", "UNREADABLE"), path
    assert set(report.get("proved", ())) < set(REPORT["proved"]), path


@given(some.sampled_from(LEAVES), some.integers(0, 10_000), some.integers(0, 7))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bit(path: tuple[str | int, ...], place: int, bit: int) -> None:
    """A bundle of which one bit of any field was turned does not hold, and proves less."""
    _judge(_changed(path, place, bit), path)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_any_part_left_out(name: str) -> None:
    """A bundle without one of its parts cannot be read, or proves less than before and nothing else."""
    report = verify(json.dumps({key: value for key, value in WHOLE.items() if key != name}).encode(), TRUST)
    assert report["verdict"] == "UNREADABLE" or set(report["proved"]) < set(REPORT["proved"])


@pytest.mark.parametrize("index", range(len(WHOLE["entries"])))
def test_any_entry_left_out(index: int) -> None:
    """A bundle without one of its entries is not proved, whichever it is."""
    changed = WHOLE | {"entries": [each for at, each in enumerate(WHOLE["entries"]) if at != index]}
    assert verify(json.dumps(changed).encode(), TRUST)["verdict"] in ("FAILED", "NOT_PROVED")


@given(some.integers(0, len(BUNDLE) - 1), some.binary(min_size=1, max_size=1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_byte_of_the_file(place: int, byte: bytes) -> None:
    """A file of which one byte was changed holds only if it says the same as before, or says another block."""
    report = verify(BUNDLE[:place] + byte + BUNDLE[place + 1 :], TRUST)
    assert report["verdict"] != "PROVED" or report["proved"] == REPORT["proved"]


@pytest.mark.integration
def test_the_second_verifier_agrees_on_changes(tmp_path: Path) -> None:
    """The verifier in JavaScript reports the same of a changed bundle, whatever was changed."""
    changed = [_changed(path, 5 * number, number % 8) for number, path in enumerate(LEAVES[:: max(1, len(LEAVES) // 80)])]
    trust = tmp_path / "trust.json"
    trust.write_bytes(TRUST)
    pairs = []
    for number, document in enumerate(changed):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(document))
        pairs.append((path, trust))
    ours = [verify(path.read_bytes(), TRUST) for path, _ in pairs]
    assert second_verifier(pairs) == ours


#: Documents that two readers of JSON, or of JavaScript's objects, could take differently.
CORNERS = (
    b"1",
    b'"x"',
    b"[]",
    b" {} ",
    b"\xef\xbb\xbf{}",
    b'{"__proto__":1,"format":"lockstep/trust/v1"}',
    b'{"constructor":"x","format":"lockstep/trust/v1"}',
    b'{"1":"a","0":"b"}',
    '{"\U0001f600":1,"\ufb00":2}'.encode(),
    b'{"\\u0066ormat":"lockstep/trust/v1"}',
    b'{"format":"lockstep/trust/v1","f\\u006frmat":"lockstep/trust/v1"}',
    b'{"format":"lockstep/trust/v1","participants":[{"name":"toString","keys":[]}]}',
    b'{"format":"lockstep/trust/v1","journal":{"origin":"a b","keys":[]}}',
)


@pytest.mark.integration
def test_both_read_json_alike(tmp_path: Path) -> None:
    """What is a document, and of which form, both verifiers say alike: of corner cases, and of files with any byte changed, put in or taken out."""
    drawn = Random(7)
    documents = list(CORNERS)
    for _ in range(60):
        octets, at = bytearray(BUNDLE), drawn.randrange(len(BUNDLE))
        octets[at : at + drawn.randrange(2)] = bytes([drawn.choice(b'{}[]",:\\u0019eE.-ntf \n\x00\x7f\xc3\xed')])
        documents.append(bytes(octets))
    trust = tmp_path / "trust.json"
    trust.write_bytes(TRUST)
    pairs = []
    for number, document in enumerate(documents):
        path = tmp_path / f"{number}.json"
        path.write_bytes(document)
        pairs += [(path, trust), (path, path)]
    assert second_verifier(pairs) == [verify(bundle.read_bytes(), trusted.read_bytes()) for bundle, trusted in pairs]
