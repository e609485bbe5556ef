"""Hostile XML, by what is hostile about it."""

from __future__ import annotations

from bank_samples import booking, one_status, status_report

from bank_gateway.iso20022.parser import OCTETS_MAX

GOOD = status_report(one_status("ACSC"))
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
