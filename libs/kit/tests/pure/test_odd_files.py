"""Files and histories of other people's making: read, or refused by field and rule; never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import BaseModel, ConfigDict

from lockstep_kit.canonical import canonical
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import KeyId, sha256
from lockstep_kit.key_history import HistoryFinding, KeyHistory, SignedKey, empty, introduce, verify
from lockstep_kit.registry_file import parse_registry
from lockstep_kit.signing import Signature, SigningKey
from lockstep_kit.strict_yaml import parse

REGISTRY = b"""
actors:
  - actor_id: maker
    roles: [maker]
    keys:
      - {public_key: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", not_before: 2026-01-01T00:00:00Z, not_after: 2027-01-01T00:00:00Z}
participants:
  - name: notary
    keys: []
"""
PIECES = (
    b"&a ", b"*a", b"!!int ''", b"!!float ''", b"!!bool x", b"!!timestamp x", b"!!binary \xc3\xa9", b"!!set {a, b}", b"!!python/object:os.system x", b"<<: ",
    b"? ", b"- ", b": ", b"{", b"}", b"[", b"]", b"'", b'"', b"|", b">", b"%YAML 9.9\n---\n", b"---\n", b"...\n", b"\t", b"\x00", b"\xff", b"\xef\xbb\xbf",
    b"~", b"0x" + b"f" * 40, b"1e999", b".nan", b"-.inf", b"2026-13-45", b"0001-01-01T00:00:00-23:59", b"9999-12-31T23:59:59+99:00", b"1:60:60", b"\n", b" ",
    b"[" * 400, b"{a: " * 400,
)  # fmt: skip


class _Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


@some.composite
def spoilt(draw: some.DrawFn, original: bytes) -> bytes:
    """A file with one to five places changed."""
    octets = bytearray(original)
    for _ in range(draw(some.integers(1, 5))):
        place = draw(some.integers(0, len(octets)))
        length = draw(some.integers(0, 12))
        octets[place : place + length] = draw(some.sampled_from(PIECES) | some.binary(max_size=6))
    return bytes(octets)


def refusal(read: Callable[[], object]) -> FieldInvalid | None:
    """Why something was not read; every other exception is a defect."""
    try:
        read()
    except FieldInvalid as finding:
        return finding
    return None


@given(octets=spoilt(REGISTRY))
@settings(max_examples=600, deadline=None)
def test_a_registry_is_read_or_refused(octets: bytes) -> None:
    """Whatever is in the file."""
    finding = refusal(lambda: parse_registry(octets))
    assert finding is None or finding.rule.startswith(("must", "is not acceptable"))


@given(octets=some.binary(max_size=300) | spoilt(b"a: 1\nb: [x, {c: d}]\n"))
@settings(max_examples=600, deadline=None)
def test_settings_are_read_or_refused(octets: bytes) -> None:
    """Settings are read by the same reader."""
    finding = refusal(lambda: parse(octets, _Anything))
    assert finding is None or finding.field


@pytest.mark.parametrize("tag", ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x"])
def test_a_tag_over_other_text_is_refused(tag: str) -> None:
    """The library raises errors of its own there."""
    with pytest.raises(FieldInvalid):
        parse(f"a: {tag}", _Anything)


FIRST, SECOND = SigningKey(sha256(b"first")), SigningKey(sha256(b"second"))
BEGIN, MIDDLE, END = (datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2027, 2028))


def _history() -> list[SignedKey]:
    first = introduce(empty("event-journal"), FIRST, BEGIN, MIDDLE)
    known = verify([first], "event-journal")
    assert isinstance(known, KeyHistory)
    return [first, introduce(known, SECOND, MIDDLE, END, FIRST)]


HISTORY = _history()


@given(which=some.integers(0, 1), data=some.data())
@settings(max_examples=400, deadline=None)
def test_a_spoilt_history_does_not_hold(which: int, data: some.DataObject) -> None:
    """A statement that was changed in any way is found, by a rule of docs/errors.md; the bytes around it are never an error of the program's."""
    statements = list(HISTORY)
    statement = data.draw(spoilt(statements[which].statement))
    statements[which] = SignedKey(statement, statements[which].signatures)
    found = verify(statements, "event-journal")
    if statement == HISTORY[which].statement:
        assert isinstance(found, KeyHistory)
    else:
        assert isinstance(found, HistoryFinding)


VALUES = some.none() | some.booleans() | some.integers() | some.text(max_size=5) | some.lists(some.integers(), max_size=2)


@given(
    name=some.sampled_from(sorted(json.loads(HISTORY[0].statement.split(b"\n", 1)[1]))),
    value=VALUES,
    octets=some.binary(max_size=70),
)
@settings(max_examples=400, deadline=None)
def test_a_statement_of_other_types_does_not_hold(name: str, value: object, octets: bytes) -> None:
    """Fields of other types and sizes, signed all the same."""
    domain, _, written = HISTORY[0].statement.partition(b"\n")
    document = json.loads(written)
    if document[name] == value:
        return
    document[name] = value
    try:
        statement = domain + b"\n" + canonical(document)
    except (ValueError, TypeError):
        return
    signatures = (FIRST.sign(statement), Signature(KeyId("0" * 16), octets))
    for signed in (signatures[:1], signatures, ()):
        assert isinstance(verify([SignedKey(statement, signed)], "event-journal"), HistoryFinding)
