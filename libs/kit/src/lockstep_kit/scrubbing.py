"""What leaves a process as text for people to read, without secrets and without account numbers. Pure.

Two rules. A field of a log line or attribute of a span whose name is not listed here, and that is no number, is withheld: what nobody thought of is not
told. What is told is searched for forms that only secrets and account numbers have: private keys, passwords in URLs and settings, bearer tokens, values
beside the word that says what they are, IBANs, and what libraries quote of the values that they were given. Hashes, signatures, addresses and key ids pass.

What is lost at the edge: a person's name has no form. It is kept out by the list of fields, and by errors that name fields and rules but no values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

WITHHELD: Final = "[withheld]"
SECRET: Final = "[secret]"
ACCOUNT: Final = "[account]"
#: What is longer is cut: the text of an error may hold a whole document.
TEXT_CHARACTERS_MAX: Final = 16_384
#: Lists and mappings are told as far as this.
ITEMS_MAX: Final = 64
DEPTH_MAX: Final = 4

#: Fields of log lines: ids, names of things that an operator set up, states, and sentences that the code itself makes.
LOG_FIELDS: Final = frozenset(
    """
    event level timestamp service logger exception stack trace_id span_id traceparent
    plan_id leg_id transaction_id transaction_ids message_id notice_id quarantine_id statement uetr reference matters number
    method caller participant counterparty webhook who address endpoint host port probe_port file loop channels replica method_of
    code field rule reason why detail error finding trouble said answer state kind call command bic what_to_do about
    escalation_id document_hash verb actors open matter asset key_id
    root log log_id now was since day key sha256 stream height ahead cursor place position
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
#: Attributes of spans and of their events, by how their names begin.
SPAN_ATTRIBUTES: Final = (
    "lockstep.", "rpc.", "bank.", "chain.", "exception.", "code.", "server.", "net.peer.", "network.", "error.", "webhook", "otel.",
    "service.", "telemetry.", "db.system.", "db.operation.", "db.query.summary", "db.collection.", "db.response.",
    "blockchain.", "iso20022.", "messaging.", "http.request.method", "http.response.", "http.route", "jsonrpc.",
)  # fmt: skip

_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
_URL_PASSWORD: Final = re.compile(r"(://[^\s:@/\"'<>]{0,256}):[^\s\"'<>]{1,512}@")
_NAMED: Final = re.compile(
    r"((?:password|passwd|passphrase|\bpwd|secret|api[_-]?key|(?:access|auth|bearer|control|refresh|session|api)[_-]?token|private[_-]?key"
    r"|preimage|\bseed)\\?[\"']?\s{0,4}[=:]\s{0,4})(\\?\"[^\"]*\"?|\\?'[^']*'?|[^\s,;&)}\]]+)",
    re.IGNORECASE,
)
_PHRASE: Final = re.compile(
    r"((?:mnemonic|(?:seed|recovery)[ _-]?phrase)[\"']?\s{0,4}[=:]?\s{0,4}[\"']?)(?:[a-z]{3,8}\s{1,4}){11,23}[a-z]{3,8}",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s{1,4}[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_TOKEN: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){1,3}")
#: 32 bytes as hex, base64 or a decimal number, soon after a word that says that they are a key. What says that they are public, or a hash of it, passes.
_KEY: Final = re.compile(
    r"((?<!public )(?<!public_)(?<!key )\b(?:key|seed|secret|preimage|private|scalar)s?\b(?!\s?_?(?:id|digest|hash)\b)[^\nA-Za-z0-9]{1,4}"
    r"(?:(?:is|was|of|bytes|value|hex)\b[^\nA-Za-z0-9]{1,3}){0,3})"
    r"(?:(?:0x)?[0-9a-f]{64}(?![0-9a-f])|[0-9]{70,78}(?![0-9])|[A-Za-z0-9+/_-]{43}=?(?![A-Za-z0-9+/_-]))",
    re.IGNORECASE,
)
#: Python's way to write bytes; what is told as bytes on purpose is told as hex.
_BYTES: Final = re.compile(r"\bb(?:'(?:[^'\\]|\\.){16,}'?|\"(?:[^\"\\]|\\.){16,}\"?)")
#: What libraries quote of values: Postgres of rows and parameters, asyncpg of arguments, pydantic of input.
_QUOTED: Final = (
    re.compile(r"(\bDETAIL:\s{0,8})[^\n]+"),
    re.compile(r"(\binvalid input (?:syntax|value) for [a-z ]{1,40}(?:\"[a-z_]{1,64}\")?: )\"[^\n]*"),
    re.compile(r"(\binvalid input for query argument \$\d+: ).*?(?= \([^()\n]*\)$| \([^()\n]*\)\n|\Z)", re.DOTALL | re.MULTILINE),
    re.compile(r"(\binput_value=).*?(?=, input_type=|\]|\Z)", re.DOTALL),
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
#: Length of the IBANs of each country (SWIFT, IBAN Registry).
IBAN_LENGTHS: Final[Mapping[str, int]] = {
    word[:2]: int(word[2:])
    for word in """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22
    GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30
    NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
    """.split()  # noqa: SIM905 - the same
}


def scrubbed(text: str) -> str:
    """A text without secrets and account numbers; one that has none is returned as it is. Idempotent."""
    if len(text) > TEXT_CHARACTERS_MAX:
        text = f"{text[: TEXT_CHARACTERS_MAX - 1]}…"
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(SECRET, text)
    if "://" in text:
        text = _URL_PASSWORD.sub(lambda found: f"{found[1]}:{SECRET}@", text)
    for pattern in _QUOTED:
        text = pattern.sub(lambda found: f"{found[1]}{WITHHELD}", text)
    text = _NAMED.sub(_without_value, text)
    text = _PHRASE.sub(lambda found: f"{found[1]}{SECRET}", text)
    text = _BEARER.sub(lambda found: f"{found[1]} {SECRET}", text)
    text = _TOKEN.sub(SECRET, text)
    text = _KEY.sub(lambda found: f"{found[1]}{SECRET}", text)
    text = _BYTES.sub(WITHHELD, text)
    return _IBAN.sub(_without_iban, text)


def told(name: str, value: Any) -> Any:
    """What a log line tells of a field."""
    return _told(value) if name in LOG_FIELDS else _of_numbers(value)


def told_attribute(name: str, value: Any) -> Any:
    """What a span tells of an attribute."""
    return _told(value) if name.startswith(SPAN_ATTRIBUTES) else _of_numbers(value)


def _of_numbers(value: Any) -> Any:
    """Numbers may be told under any name: counts, heights, nonces, seconds."""
    return value if value is None or isinstance(value, (bool, int, float)) else WITHHELD


def _told(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, (bytes, bytearray, memoryview)) or depth == DEPTH_MAX:
        return WITHHELD
    if isinstance(value, Mapping):
        found = list(value.items())[:ITEMS_MAX]
        return {str(name): _told(each, depth + 1) if str(name) in LOG_FIELDS else _of_numbers(each) for name, each in found}
    if isinstance(value, (Sequence, set, frozenset)):
        return [_told(each, depth + 1) for each in list(value)[:ITEMS_MAX]]
    return scrubbed(str(value))


def _without_value(found: re.Match[str]) -> str:
    """The word stays, and so does a value that says that something is missing or was taken away already."""
    value = found[2].strip("\\\"'")
    return found[0] if value in ("", "None", "null", "must", "[secret", SECRET, WITHHELD) else f"{found[1]}{SECRET}"


def _without_iban(found: re.Match[str]) -> str:
    """What has the length of its country's IBANs is one, also where its check digits are wrong: a misprint is about a person too."""
    text, wanted = found[0], IBAN_LENGTHS.get(found[0][:2])
    counted = 0
    for place, character in enumerate(text):
        counted += character != " "
        if counted == wanted:
            rest = text[place + 1 :]
            return f"{ACCOUNT}{rest}" if not rest or rest[0] == " " else text
    return text
