"""Random valid messages, made from the official schemas themselves: every optional element may be there, also those that no writer of ours ever uses.

With `sound`, what the schemas leave open is right too: checksums, currencies, offsets, characters; counts and sums are left out.
"""

from __future__ import annotations

import random
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as regular  # type: ignore[import-not-found]
from pathlib import Path
from typing import Any, Final

from bank_samples import BANK, OURS, SCHEMA_FOLDER
from lxml import etree

XS: Final = "{http://www.w3.org/2001/XMLSchema}"
PREFIX: Final = "urn:iso:std:iso:20022:tech:xsd:"
BICS: Final = (BANK, OURS, "COBADEFF", "DEUTDEFFXXX", "TRGTXEPMXXX", "BNPAFRPP")
IBANS: Final = ("DE89370400440532013000", "FR1420041010050500013M02606", "GB29NWBK60161331926819", "NL91ABNA0417164300")
LEIS: Final = ("529900T8BM49AURSDO55", "5493001KJTIIGC8Y1R12", "7LTWFZYICNSX8D621K86")
CURRENCIES: Final = ("EUR", "USD", "CHF", "KWD", "JPY")
X: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-?:().,'+"
ANY: Final = X + "äöüßéèñçøåłž€&<>\"'#_@ "
#: Counts and sums, which random content never meets.
COUNTING: Final = frozenset({"TxsSummry", "Btch", "CtrlData", "CtrlSum", "TtlRtrdIntrBkSttlmAmt"})
#: What leads to payments is mostly there, where a message is to be sound: one about none says nothing.
LIKELY: Final = frozenset({"TxInfAndSts", "CxlDtls", "Ntry", "TxInf", "CreDtTm", "OrgnlUETR", "RtrId"})
LIKELY_SHARE: Final = 0.8
DEPTH_MAX: Final = 14


class Samples:
    """Messages of one definition."""

    def __init__(self, definition: str, folder: Path = SCHEMA_FOLDER) -> None:
        self.definition = definition
        root = etree.parse(folder / f"{definition}.xsd").getroot()
        self._types = {each.get("name") or "": each for each in root if each.tag in (f"{XS}complexType", f"{XS}simpleType")}
        (self._root,) = root.findall(f"{XS}element")

    def document(self, rng: random.Random, *, sound: bool, plenty: float) -> etree._Element:
        """A root element; `plenty` is the share of the optional elements that are there."""
        return self._element(self._root, rng, sound, plenty, 0, None)

    def message(self, rng: random.Random, *, sound: bool = True, plenty: float = 0.15) -> bytes:
        """The document in an envelope whose header goes with it."""
        document = self.document(rng, sound=sound, plenty=plenty)
        name = "".join(rng.choice(X[:62]) for _ in range(rng.randint(1, 35)))
        own = next((each for each in document[0][0] if etree.QName(each).localname in ("MsgId", "Id")), None)
        if own is not None and sound:
            own.text = name
        counts = [each for each in document[0][0] if etree.QName(each).localname == "NbOfTxs"]
        for each in counts if sound else []:
            each.text = str(sum(etree.QName(part).localname == "TxInf" for part in document[0]))
        envelope = etree.Element("{urn:lockstep:rail:v1}BusinessMessage", nsmap={None: "urn:lockstep:rail:v1"})
        header = etree.fromstring(
            f'<AppHdr xmlns="{PREFIX}head.001.001.02"><Fr><FIId><FinInstnId><BICFI>{BANK}</BICFI></FinInstnId></FIId></Fr><To><FIId>'
            f"<FinInstnId><BICFI>{OURS}</BICFI></FinInstnId></FIId></To><BizMsgIdr>{name}</BizMsgIdr><MsgDefIdr>{self.definition}</MsgDefIdr>"
            "<CreDt>2026-11-21T12:00:00.000+00:00</CreDt></AppHdr>"
        )
        envelope.extend([header, document])
        return etree.tostring(envelope, xml_declaration=True, encoding="UTF-8")

    def _element(
        self, declared: etree._Element, rng: random.Random, sound: bool, plenty: float, depth: int, parent: etree._Element | None
    ) -> etree._Element:
        tag = f"{{{PREFIX}{self.definition}}}{declared.get('name')}"
        namespaces: Any = {None: f"{PREFIX}{self.definition}"}
        element = etree.Element(tag, nsmap=namespaces) if parent is None else etree.SubElement(parent, tag)
        kind = self._types[declared.get("type") or ""]
        if kind.tag == f"{XS}simpleType":
            element.text = self._text(kind, rng, sound)
            return element
        extension = kind.find(f"{XS}simpleContent/{XS}extension")
        if extension is None:
            for group in kind:
                self._group(group, element, rng, sound, plenty, depth)
            return element
        base = self._types[extension.get("base") or ""]
        element.text = self._text(base, rng, sound)
        for attribute in extension.findall(f"{XS}attribute"):
            element.set(attribute.get("name") or "", self._text(self._types[attribute.get("type") or ""], rng, sound))
        currency = element.get("Ccy")
        if currency is not None and sound:
            scale = {"JPY": 0, "KWD": 3}.get(currency, 2)
            element.text = f"{rng.randint(1, 10**9) / 10**scale:.{scale}f}"
        return element

    def _group(
        self, group: etree._Element, element: etree._Element, rng: random.Random, sound: bool, plenty: float, depth: int
    ) -> None:
        if group.tag == f"{XS}choice":
            self._one(rng.choice(list(group)), element, rng, sound, plenty, depth, needed=True)
        else:
            for each in group:
                self._one(each, element, rng, sound, plenty, depth, needed=each.get("minOccurs") != "0")

    def _one(
        self,
        each: etree._Element,
        element: etree._Element,
        rng: random.Random,
        sound: bool,
        plenty: float,
        depth: int,
        *,
        needed: bool,
    ) -> None:
        if each.tag in (f"{XS}choice", f"{XS}sequence"):
            self._group(each, element, rng, sound, plenty, depth)
            return
        if each.tag == f"{XS}any":
            # Another namespace, which the schema lets pass as it is.
            etree.SubElement(element, "{urn:example:supplement}Note", nsmap={"s": "urn:example:supplement"}).text = "anything"
            return
        share = plenty if depth < DEPTH_MAX else 0.0
        if sound and each.get("name") in LIKELY:
            share = max(share, LIKELY_SHARE)
        if not needed and (rng.random() >= share or (sound and each.get("name") in COUNTING)):
            return
        most = each.get("maxOccurs", "1")
        count = 1 if most == "1" else rng.randint(1, 2 if most == "unbounded" else min(2, int(most)))
        for _ in range(count):
            self._element(each, rng, sound, plenty, depth + 1, element)

    def _text(self, kind: etree._Element, rng: random.Random, sound: bool) -> str:
        name, restriction = kind.get("name") or "", kind.find(f"{XS}restriction")
        assert restriction is not None
        base = (restriction.get("base") or "").removeprefix("xs:")
        facets = {etree.QName(facet).localname: facet.get("value") or "" for facet in restriction}
        codes_ = [facet.get("value") or "" for facet in restriction.findall(f"{XS}enumeration")]
        if codes_:
            return rng.choice(codes_)
        if sound:
            for part, values in (("BIC", BICS), ("IBAN", IBANS), ("LEI", LEIS), ("CurrencyCode", CURRENCIES)):
                if part in name:
                    return rng.choice(values)
        if base != "string":
            return self._value(base, facets, rng, sound)
        if "pattern" in facets:
            return matching(facets["pattern"], rng)
        least, most = int(facets.get("minLength", 1)), min(int(facets.get("maxLength", 40)), 60)
        letters = X if sound and most <= 35 else ANY
        text = "".join(rng.choice(letters) for _ in range(rng.randint(least, most)))
        return text if text.strip() == text else "x" * max(least, 1)

    @staticmethod
    def _value(base: str, facets: dict[str, str], rng: random.Random, sound: bool) -> str:
        day = f"{rng.randint(1970, 2099)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
        offset = "Z" if "pattern" in facets else rng.choice(("Z", "+00:00", "-05:00", "+05:30") + (() if sound else ("",)))
        match base:
            case "decimal":
                digits, places = int(facets.get("totalDigits", 18)), int(facets.get("fractionDigits", 5))
                places = min(places, rng.choice((0, 2, 5)))
                number = str(rng.randint(10**places, 10 ** min(digits, 11) - 1))
                return number if places == 0 else f"{number[:-places]}.{number[-places:]}"
            case "boolean":
                return rng.choice(("true", "false", "1", "0"))
            case "dateTime":
                return f"{day}T{clock}{rng.choice(('', '.5', '.123456'))}{offset}"
            case "date":
                return day
            case "time":
                return clock + offset
            case "gYear":
                return day[:4]
            case "gYearMonth":
                return day[:7]
            case "base64Binary":
                return rng.choice(("AAAA", "SGVsbG8=", "MTIzNDU2Nzg5MA=="))
        raise AssertionError(base)


def matching(pattern: str, rng: random.Random) -> str:
    """A text that a pattern of XML Schema matches; they use nothing but characters, classes, counts, groups and alternatives."""
    return _parsed(regular.parse(pattern), rng)


def _parsed(items: Any, rng: random.Random) -> str:
    text = ""
    for code, argument in items:
        if code is codes.LITERAL:
            text += chr(argument)
        elif code is codes.IN:
            allowed = [
                chr(each)
                for what, value in argument
                for each in (range(value[0], value[1] + 1) if what is codes.RANGE else [value])
            ]
            text += rng.choice(allowed)
        elif code is codes.MAX_REPEAT:
            least, most, inner = argument
            text += "".join(_parsed(inner, rng) for _ in range(rng.randint(least, min(most, least + 12))))
        elif code is codes.SUBPATTERN:
            text += _parsed(argument[-1], rng)
        elif code is codes.BRANCH:
            text += _parsed(rng.choice(argument[1]), rng)
        else:
            raise AssertionError(f"{code} in a pattern")
    return text
