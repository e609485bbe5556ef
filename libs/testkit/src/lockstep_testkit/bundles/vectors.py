"""The verifiers' vectors: bundles that hold, and one for each way in which somebody could change one, with what must be found.

`expects` is written down by hand, beside what was done: it is not what a verifier said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lockstep_kit.registry import Role
from lockstep_testkit.bundles.auditor import listed, registry, trust
from lockstep_testkit.bundles.bundle import Exhibit, mark, rotated, text
from lockstep_testkit.bundles.deciding import cases
from lockstep_testkit.bundles.history import BEGUN, History, aborted, committed, mixed, reversed_
from lockstep_testkit.bundles.tampering import (
    TAMPERINGS,
    Document,
    Leaping,
    Miscounted,
    OnePerson,
    OtherPayment,
    Skipping,
    octets_of,
)
from lockstep_testkit.factories import KEYS_FROM, KEYS_UNTIL, actor_of, key_of


@dataclass(frozen=True, slots=True)
class Vector:
    """A bundle, a trust file, and what must be found."""

    #: Name of its folder.
    name: str
    #: The two files.
    bundle: bytes
    trust: bytes
    #: Verdict.
    verdict: str
    #: Checks that fail; of a valid vector those that cannot be made, of an unreadable one the place.
    expects: tuple[str, ...]


def vectors() -> list[Vector]:
    """All of them."""
    return [*_valid(), *_decided(), *_tampered(), *_unreadable()]


def _written(document: Document) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def _vector(name: str, bundle: Document, trusted: Document, verdict: str, *expects: str) -> Vector:
    return Vector(name, _written(bundle), _written(trusted), verdict, expects)


# -- valid ones ------------------------------------------------------------------------------------------------------------

_UNRESOLVED: Final = ("RESOLUTIONS", "REVERSALS")
_NOT_ENDED: Final = ("DECISION", "QUORUM", "VALIDATION", "MESSAGES", *_UNRESOLVED)
_OF_PAYLOADS: Final = (
    *("PLAN_BOUND", "TRANSITIONS", "OUTCOME", "GATES_RECORDED", "STATEMENTS_RECORDED", "DECISION", "QUORUM", "EVIDENCE"),
    *_UNRESOLVED,
)
_BY_A_NODE: Final = ("REGISTRATION", "OUTCOME")


def _valid() -> Iterator[Vector]:
    whole, known = Exhibit(committed(History())), trust()
    yield _vector("committed", whole.bundle(), known, "PROVED", "AUDIT_LOG", *_UNRESOLVED)
    yield _vector("aborted", Exhibit(aborted(History())).bundle(), known, "PROVED", *_NOT_ENDED)
    yield _vector("mixed", Exhibit(mixed(History())).bundle(), known, "PROVED", "VALIDATION", "MESSAGES", "REVERSALS")
    yield _vector("reversed", Exhibit(reversed_(History())).bundle(), known, "PROVED", "VALIDATION", "MESSAGES")
    yield _vector("single-records", whole.bundle(batched=False), known, "PROVED", *_BY_A_NODE, "AUDIT_LOG", *_UNRESOLVED)
    pending = ("CHECKPOINT_ANCHOR", *_BY_A_NODE, "AUDIT_LOG", *_UNRESOLVED)
    yield _vector("not-anchored-yet", whole.bundle(anchored=False), known, "PROVED", *pending)
    unseen = {key: value for key, value in whole.bundle().items() if key != "witnessed"}
    alone = ("WITNESS", "CONSISTENCY", "CHECKPOINT_ANCHOR", "AUDIT_LOG", *_UNRESOLVED)
    yield _vector("not-witnessed-yet", unseen, known, "PROVED", *alone)
    erased = whole.bundle()
    for entry in erased["entries"]:
        del entry["payload"]
    yield _vector("erased-payloads", erased, known, "PROVED", *_OF_PAYLOADS, "VALIDATION", "AUDIT_LOG")
    exhibit, keys, first = rotated()
    yield _vector("rotated-key", exhibit.bundle() | {"journal_keys": keys}, first, "PROVED", "AUDIT_LOG", *_UNRESOLVED)
    journal_only = {name: known[name] for name in ("format", "journal")}
    unknown = ("WITNESS", "CONSISTENCY", "CHECKPOINT_ANCHOR", *_BY_A_NODE, "GATES", "DUTIES", "GATES_RECORDED", "VOTES")
    people = ("MATRIX", "ROLES", "LIMITS", "AGENTS", "QUORUM", *_UNRESOLVED)
    more = ("OUTCOMES", "STATEMENTS_RECORDED", "DECISION", "EVIDENCE", "VALIDATION", "AUDIT_LOG", "MESSAGES")
    yield _vector("trust-of-the-journal-alone", whole.bundle(), journal_only, "PROVED", *unknown, *people, *more)
    anyone = trust()
    del anyone["chain"]["accounts"]
    yield _vector("accounts-not-named", whole.bundle(), anyone, "PROVED", "AUDIT_LOG", *_UNRESOLVED)


# -- who decided -----------------------------------------------------------------------------------------------------------


def _decided() -> Iterator[Vector]:
    for each in cases():
        yield _vector(each.name, Exhibit(each.history).bundle(), each.trust, each.verdict, *each.expects)


# -- tampered ones ---------------------------------------------------------------------------------------------------------


def _tampered() -> Iterator[Vector]:
    whole, known = Exhibit(committed(History())).bundle(), trust()
    for each in TAMPERINGS:
        bundle = deepcopy(whole)
        each.change(bundle)
        yield _vector(each.name, bundle, known, each.verdict, *each.fails)
    both = trust(registry(actor_of("alice", (Role.MAKER, Role.APPROVER))))
    yield _vector("one-person-for-two-gates", Exhibit(committed(OnePerson())).bundle(), both, "FAILED", "DUTIES")
    yield _vector("seal-miscounts", Exhibit(committed(Miscounted())).bundle(), known, "FAILED", "SEAL")
    yield _vector("transition-missing", Exhibit(committed(Skipping())).bundle(), known, "FAILED", "TRANSITIONS")
    yield _vector("transition-not-allowed", Exhibit(committed(Leaping())).bundle(), known, "FAILED", "TRANSITIONS")
    yield _vector("payment-of-another-leg", Exhibit(committed(OtherPayment())).bundle(), known, "FAILED", "MESSAGES")
    late = trust()
    late["journal"]["keys"] = [listed(key_of("event-journal"), BEGUN + timedelta(seconds=4), KEYS_UNTIL)]
    yield _vector("key-not-valid-yet", whole, late, "FAILED", "ENTRY_SIGNATURES")
    over = trust()
    over["persons"][1]["keys"] = [listed(key_of("bob"), KEYS_FROM, BEGUN)]
    yield _vector("key-of-a-person-over", whole, over, "FAILED", "GATES")
    exhibit, keys, first = rotated()
    forged = deepcopy(keys)
    forged[1]["signatures"][0] = mark(key_of("mallory").sign(octets_of(forged[1]["statement"])))
    yield _vector("key-history-forged", exhibit.bundle() | {"journal_keys": forged}, first, "FAILED", "JOURNAL_KEYS")
    cut = exhibit.bundle() | {"journal_keys": keys[:1]}
    yield _vector("key-history-cut", cut, first, "FAILED", "ENTRY_SIGNATURES", "CHECKPOINT")
    other = first | {"journal": first["journal"] | {"first_key": text(key_of("mallory").public.octets)}}
    yield _vector("key-history-of-another", exhibit.bundle() | {"journal_keys": keys}, other, "FAILED", "JOURNAL_KEYS")


def _without_checksum(bent: Document) -> None:
    limit = bent["matrices"][1]["gates"]["APPROVE"]["agents"][1]
    limit["asset"] = limit["asset"].lower()


# -- unreadable ones -------------------------------------------------------------------------------------------------------


def _unreadable() -> Iterator[Vector]:
    whole = Exhibit(committed(History())).bundle()
    known, octets = _written(trust()), _written(whole)

    form = b' "format": "lockstep/bundle/v1"'
    twice = octets.replace(form, form + b"," + form, 1)
    yield Vector("json-key-twice", twice, known, "UNREADABLE", ("bundle",))
    yield Vector("json-cut", octets[:-10], known, "UNREADABLE", ("bundle",))
    yield Vector("json-null", octets.replace(b'"lockstep/bundle/v1"', b"null", 1), known, "UNREADABLE", ("bundle",))
    yield Vector("json-float", octets.replace(b'"lockstep/bundle/v1"', b"1.0", 1), known, "UNREADABLE", ("bundle",))
    yield Vector("json-lone-surrogate", octets.replace(b"lockstep/bundle/v1", b"\\ud800", 1), known, "UNREADABLE", ("bundle",))
    yield Vector("json-deep", b"[" * 100_000, known, "UNREADABLE", ("bundle",))
    yield Vector("another-format", octets.replace(b"bundle/v1", b"bundle/v2", 1), known, "UNREADABLE", ("bundle.format",))
    yield Vector("field-unknown", _written(whole | {"note": "x"}), known, "UNREADABLE", ("bundle.note",))
    missing = {name: value for name, value in whole.items() if name != "checkpoint"}
    yield Vector("field-missing", _written(missing), known, "UNREADABLE", ("bundle.checkpoint",))
    number = deepcopy(whole)
    number["entries"][2]["leaf_index"] = "007"
    yield Vector("number-in-another-form", _written(number), known, "UNREADABLE", ("bundle.entries[2].leaf_index",))
    coded = deepcopy(whole)
    coded["entries"][2]["canonical_bytes"] += "\n"
    yield Vector("base64-in-another-form", _written(coded), known, "UNREADABLE", ("bundle.entries[2].canonical_bytes",))
    both = trust()
    both["journal"]["first_key"] = text(key_of("event-journal").public.octets)
    yield Vector("trust-names-both", octets, _written(both), "UNREADABLE", ("trust.journal",))
    for name, change, place in _UNTRUSTED:
        bent = trust()
        change(bent)
        yield Vector(name, octets, _written(bent), "UNREADABLE", (place,))


#: What no participant would load as its registry: of a trust file of before there were matrices, the matrices are missing.
_UNTRUSTED: Final[tuple[tuple[str, Callable[[Document], object], str], ...]] = (
    ("trust-without-matrices", lambda bent: bent.pop("matrices"), "trust.matrices"),
    ("trust-without-limits", lambda bent: bent["persons"][0].pop("limits"), "trust.persons[0].limits.maker"),
    (
        "trust-with-a-key-twice",
        lambda bent: bent["persons"][1].update(keys=bent["persons"][0]["keys"]),
        "trust.persons[1].keys[0].public_key",
    ),
    (
        "trust-with-a-matrix-of-three-persons",
        lambda bent: bent["matrices"][0].update(different_persons=[["MAKE", "APPROVE", "RELEASE"]]),
        "trust.matrices[0].different_persons",
    ),
    (
        "trust-with-agents-among-four-eyes",
        lambda bent: bent["matrices"][1]["gates"]["APPROVE"].update(agents="unlimited"),
        "trust.matrices[1].gates.APPROVE.agents",
    ),
    ("trust-with-an-address-without-its-checksum", _without_checksum, "trust.matrices[1].gates.APPROVE.agents[1].asset"),
)
