"""Bundles and trust files of any form get a report: the verifier has no other way to end."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from lockstep_testkit.bundles.reading import vector
from lockstep_verify.verifying import EXIT_CODES, verify

BUNDLE, TRUST, _ = vector("committed")
WHOLE: dict[str, Any] = json.loads(BUNDLE)
TRUSTED: dict[str, Any] = json.loads(TRUST)
OTHERS: tuple[Any, ...] = (
    None, True, 0, -1, 2**53 - 1, 2**64, 1.5, "", "x", "\x00", "\ud7ff", "=" * 44, "A" * 43, "0x", "ff" * 32, "9999-12-31T23:59:59.999999Z", [], {}, [[]],
    {"": {}}, ["x"] * 50,
)  # fmt: skip
SEEDS = some.integers(0, 2**32)


def changed(document: dict[str, Any], rng: Random, changes: int) -> dict[str, Any]:
    """The document with places replaced, removed, doubled, or exchanged with others of it."""
    found = deepcopy(document)
    for _ in range(changes):
        places = list(_places(found))
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del holder[key]
            case 1:
                other, name = rng.choice(places)
                holder[key] = deepcopy(other[name])
            case 2 if isinstance(holder, list):
                holder.insert(key, deepcopy(holder[key]))
            case 3 if isinstance(holder, dict):
                holder[rng.choice(("extra", "", key + "_"))] = holder[key]
            case _:
                holder[key] = deepcopy(rng.choice(OTHERS))
        if not found:
            return found
    return found


def _places(value: Any) -> Any:
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from _places(each)


def judged(bundle: bytes, trust: bytes) -> None:
    report = verify(bundle, trust)
    assert report["verdict"] in EXIT_CODES
    json.dumps(report)


@given(seed=SEEDS, changes=some.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_a_bundle_of_another_form_gets_a_report(seed: int, changes: int) -> None:
    """Whatever stands where, or is missing."""
    judged(json.dumps(changed(WHOLE, Random(seed), changes)).encode(errors="surrogatepass"), TRUST)


@given(seed=SEEDS, changes=some.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_a_trust_file_of_another_form_gets_a_report(seed: int, changes: int) -> None:
    """The auditor's own mistakes too."""
    judged(BUNDLE, json.dumps(changed(TRUSTED, Random(seed), changes)).encode(errors="surrogatepass"))


@given(octets=some.binary(max_size=200), place=some.integers(0, len(BUNDLE)), length=some.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_bytes_get_a_report(octets: bytes, place: int, length: int) -> None:
    """Alone, or in the place of some of a bundle's."""
    judged(octets, TRUST)
    judged(BUNDLE[:place] + octets + BUNDLE[place + length :], TRUST)
    judged(BUNDLE, octets)
