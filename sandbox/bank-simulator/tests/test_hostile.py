"""XML from somebody who means harm: refused for a reason, fast, in little memory, without reading anything else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bank_world import SCHEMAS, Order, pacs_008
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_simulator.checks import CheckError
from bank_simulator.iso20022.inbound import read
from bank_simulator.iso20022.parser import MESSAGE_BYTES_MAX
from bank_simulator.iso20022.schemas import Schemas

SECONDS_MAX = 0.25
GOOD = pacs_008([Order()], "M1")
DECLARED = b'<?xml version="1.0" encoding="UTF-8"?>'


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas(SCHEMAS)


def hostile() -> Iterator[tuple[str, bytes, str]]:
    """Name, message, and the rule that refuses it."""
    body = GOOD.removeprefix(DECLARED)
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    entity = '<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    yield "external entity", entity.encode() + body.replace(b">100.00<", b">&e;<"), "DOCTYPE"
    yield "billion laughs", f'<!DOCTYPE r [<!ENTITY l0 "ha">{laughs}]><r>&l9;</r>'.encode(), "DOCTYPE"
    yield "empty doctype", b"<!DOCTYPE BusinessMessage>" + body, "DOCTYPE"
    yield "external subset", b'<!DOCTYPE r SYSTEM "http://127.0.0.1:9/x.dtd">' + body, "DOCTYPE"
    yield "UTF-16", GOOD.decode().replace("UTF-8", "UTF-16").encode("utf-16"), "ENCODING"
    yield "UTF-16 doctype", (entity + body.decode()).encode("utf-16-le"), "ENCODING"
    yield "Latin-1", DECLARED.replace(b"UTF-8", b"ISO-8859-1") + body.replace(b"Somebody", b"\xc4"), "ENCODING"
    yield "declared Latin-1", DECLARED.replace(b"UTF-8", b"ISO-8859-1") + body, "ENCODING"
    yield "UTF-7", DECLARED.replace(b"UTF-8", b"UTF-7") + body, "WELL_FORMED"
    yield "comment in an amount", GOOD.replace(b">100.00<", b">1<!-- -->00.00<"), "PLAIN"
    yield "instruction in an amount", GOOD.replace(b">100.00<", b">1<?x y?>00.00<"), "PLAIN"
    yield "instruction before the root", DECLARED + b'<?xml-stylesheet href="x"?>' + body, "PLAIN"
    yield "comment after the root", GOOD + b"<!-- -->", "PLAIN"
    yield "second root", GOOD + body, "WELL_FORMED"
    yield "cut off", GOOD[:-20], "WELL_FORMED"
    yield "undeclared entity", GOOD.replace(b">100.00<", b">&e;<"), "WELL_FORMED"
    yield "depth", b"<a>" * 100_000 + b"</a>" * 100_000, "WELL_FORMED"
    yield "attributes", b"<BusinessMessage " + b" ".join(b'a%d="1"' % n for n in range(80_000)) + b"/>", "ATTRIBUTES"
    yield "elements", b"<r>" + b"<a/>" * 250_000 + b"</r>", "ROOT"
    yield "size", GOOD + b" " * MESSAGE_BYTES_MAX, "SIZE"
    yield "nothing", b"", "WELL_FORMED"
    yield "binary", bytes(range(256)), "ENCODING"
    yield "NUL", GOOD.replace(b"Somebody", b"Some\0body"), "ENCODING"
    yield "other root", body.replace(b"BusinessMessage", b"Message"), "ROOT"
    yield "other namespace", GOOD.replace(b"urn:lockstep:rail:v1", b"urn:lockstep:rail:v2"), "ROOT"
    yield "two documents", GOOD.replace(b"</BusinessMessage>", b"<Document/></BusinessMessage>"), "PARTS"
    yield "text between", GOOD.replace(b"</AppHdr>", b"</AppHdr>text"), "PARTS"
    yield "other version", GOOD.replace(b"pacs.008.001.13", b"pacs.008.001.08"), "DOCUMENT"
    yield (
        "XInclude",
        GOOD.replace(b"<Nm>Somebody</Nm>", b'<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="/etc/passwd"/>'),
        "XSD_ELEMENT_CONTENT",
    )
    yield "hidden namespace", GOOD.replace(b"<ChrgBr>DEBT", b'<ChrgBr xmlns="urn:x">DEBT'), "XSD_ELEMENT_CONTENT"


@pytest.mark.parametrize(("body", "rule"), [each[1:] for each in hostile()], ids=[each[0] for each in hostile()])
def test_hostile(schemas: Schemas, body: bytes, rule: str) -> None:
    """Each is refused by the rule against it, within a moment."""
    began = time.process_time()
    with pytest.raises(CheckError) as refused:
        read(body, schemas)
    assert refused.value.rule == rule, refused.value
    assert time.process_time() - began < SECONDS_MAX


def test_memory(tmp_path: Path) -> None:
    """All of them together grow the process by less than 64 MiB."""
    for number, (_, body, _) in enumerate(hostile()):
        (tmp_path / f"{number}.xml").write_bytes(body)
    program = (
        "import pathlib, resource, sys\n"
        "from bank_simulator.checks import CheckError\n"
        "from bank_simulator.iso20022.inbound import read\n"
        "from bank_simulator.iso20022.schemas import Schemas\n"
        "schemas = Schemas(pathlib.Path(sys.argv[1]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in pathlib.Path(sys.argv[2]).iterdir():\n"
        "    try: read(path.read_bytes(), schemas)\n"
        "    except CheckError: pass\n"
        "    else: sys.exit(f'{path} was taken')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, SCHEMAS, tmp_path], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 64 * 1024


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), junk=st.binary(max_size=6), length=st.integers(0, 6))
def test_damaged(schemas: Schemas, place: int, junk: bytes, length: int) -> None:
    """A message that was damaged anywhere is refused for a stated reason or is a valid one; nothing else happens."""
    try:
        rule = read(GOOD[:place] + junk + GOOD[place + length :], schemas).header.definition
    except CheckError as refused:
        rule = refused.rule
    assert rule


@given(body=st.binary(max_size=200))
def test_anything(schemas: Schemas, body: bytes) -> None:
    """No bytes do anything but be refused."""
    with pytest.raises(CheckError):
        read(body, schemas)
