"""Hostile XML: refused before it can do anything, quickly, for a stated reason; and the schemas are the official ones."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest
from bank_samples import SCHEMA_FOLDER, SCHEMAS
from hostile_samples import GOOD, HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from bank_gateway.iso20022.parser import parse
from bank_gateway.iso20022.reader import read
from bank_gateway.iso20022.schemas import PINNED, SchemaChanged, Schemas
from lockstep_kit.fields import FieldInvalid

#: Of this thread's own time, so that a machine under load is no reason to fail. The target is 50 ms.
REFUSED_SECONDS_MAX = 0.5


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_refused_at_once(name: str) -> None:
    """Entities, document types, other encodings, split amounts, depth, size, crowds: a stated refusal, within a fraction of a second."""
    began = time.thread_time()
    with pytest.raises(FieldInvalid) as refused:
        read(HOSTILE[name], SCHEMAS)
    assert time.thread_time() - began < REFUSED_SECONDS_MAX
    assert refused.value.field
    assert refused.value.rule.startswith("must")
    assert "root:" not in str(refused.value)


@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: f"<a>{text}</a>".encode()))
def test_any_octets_are_parsed_or_refused(octets: bytes) -> None:
    """Nothing but a FieldInvalid ever leaves the parser."""
    with contextlib.suppress(FieldInvalid):
        parse(octets)


def test_plain_documents_are_taken() -> None:
    """With a byte-order mark, without a declaration, with single quotes: what is plain UTF-8 is read."""
    body = GOOD.split(b"?>", 1)[1]
    for octets in (GOOD, b"\xef\xbb\xbf" + GOOD, body.lstrip(), b"<?xml version='1.0' encoding='utf-8' standalone='yes' ?>" + body):
        assert read(octets, SCHEMAS).statements


def test_schemas_are_the_pinned_ones() -> None:
    """The digests in the code are those that set-up verifies the folder by."""
    listed = next(parent / "tools" / "schemas" / "SHA256SUMS" for parent in Path(__file__).parents if (parent / "tools").is_dir())
    lines = set(listed.read_text().splitlines())
    assert {f"{digest}  {name}.xsd" for name, digest in PINNED.items()} <= lines


def test_another_schema_is_not_used(tmp_path: Path) -> None:
    """A file that differs by one byte, or is missing, stops the process before it can validate anything."""
    for name in PINNED:
        shutil.copy(SCHEMA_FOLDER / f"{name}.xsd", tmp_path)
    Schemas(tmp_path)
    changed = tmp_path / "pacs.002.001.15.xsd"
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(SchemaChanged, match=r"pacs\.002"):
        Schemas(tmp_path)
    changed.unlink()
    with pytest.raises(FileNotFoundError):
        Schemas(tmp_path)
