"""Hostile XML: refused before it can do anything, quickly, for a stated reason; and the schemas are the official ones."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest
from bank_samples import SCHEMA_FOLDER, SCHEMAS, booking, one_status, status_report
from hypothesis import given
from hypothesis import strategies as st

from bank_gateway.iso20022.parser import OCTETS_MAX, parse
from bank_gateway.iso20022.reader import read
from bank_gateway.iso20022.schemas import PINNED, SchemaChanged, Schemas
from lockstep_kit.fields import FieldInvalid

GOOD = status_report(one_status("ACSC"))
REFUSED_SECONDS_MAX = 0.25  # the target is 50 ms; a machine under load is no reason to fail
ENTITY = b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
LAUGHS = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'


def with_prolog(prolog: bytes) -> bytes:
    return GOOD.replace(b"<BusinessMessage xmlns", prolog + b"<BusinessMessage xmlns")


HOSTILE = {
    "external entity": with_prolog(ENTITY).replace(b"ACSC", b"&e;"),
    "billion laughs": with_prolog(LAUGHS).replace(b"ACSC", b"&c;"),
    "empty document type": with_prolog(b"<!DOCTYPE BusinessMessage>"),
    "external subset": with_prolog(b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd">'),
    "utf-16": GOOD.decode().replace("UTF-8", "UTF-16").encode("utf-16"),
    "utf-16 without mark": GOOD.decode().encode("utf-16-le"),
    "utf-32": GOOD.decode().encode("utf-32"),
    "another encoding declared": GOOD.replace(b"UTF-8", b"ISO-8859-1"),
    "utf-7 declared": GOOD.replace(b"UTF-8", b"UTF-7"),
    "xml 1.1": GOOD.replace(b'version="1.0"', b'version="1.1"'),
    "comment in an amount": booking().replace(b">100.00<", b">1<!-- -->00.00<"),
    "instruction in an amount": booking().replace(b">100.00<", b">1<?x?>00.00<"),
    "cdata in an amount": booking().replace(b">100.00<", b">1<![CDATA[00.00]]><"),
    "style sheet": b'<?xml-stylesheet href="x"?>' + GOOD.split(b"?>", 1)[1].lstrip(),
    "second root": GOOD + b"<BusinessMessage/>",
    "nul": GOOD.replace(b"ACSC", b"AC\x00C"),
    "not utf-8": GOOD.replace(b"ACSC", b"AC\xff\xfeC"),
    "empty": b"",
    "depth": b"<a>" * 50_000 + b"</a>" * 50_000,
    "size": b"<a>" + b" " * OCTETS_MAX + b"</a>",
    "attributes": b"<a " + b" ".join(b'a%d="1"' % number for number in range(90_000)) + b"/>",
    "namespaces": b"<a " + b" ".join(b'xmlns:a%d="u"' % number for number in range(60_000)) + b"/>",
    "elements": b"<a>" + b"<b/>" * 200_000 + b"</a>",
    "included": GOOD.replace(b"<Document", b'<include xmlns="http://www.w3.org/2001/XInclude" href="/etc/passwd"/><Document'),
    "schema of its own": GOOD.replace(
        b"<Document", b'<Document xmlns:x="http://www.w3.org/2001/XMLSchema-instance" x:schemaLocation="a file:///etc/passwd" x:type="y"'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_refused_at_once(name: str) -> None:
    """Entities, document types, other encodings, split amounts, depth, size, crowds: a stated refusal, within a fraction of a second."""
    began = time.perf_counter()
    with pytest.raises(FieldInvalid) as refused:
        read(HOSTILE[name], SCHEMAS)
    assert time.perf_counter() - began < REFUSED_SECONDS_MAX
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
