"""A verifier with a mistake in what it asks of persons is noticed: for each such mistake a vector of which it says something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from lockstep_testkit.bundles.reading import vector
from lockstep_verify import duties_checks, people_checks, resolution_checks, transactions, verifying
from lockstep_verify.verifying import verify

#: Module, what is replaced in it, by what, and the vector that shows it.
BUGS: Final[tuple[tuple[Any, str, Callable[..., Any], str], ...]] = (
    (duties_checks, "needed", lambda *_: 1, "approver-missing"),
    (duties_checks, "deciders", lambda _case, gate: {"MAKE": ["a"]}.get(gate, ["b", "c"]), "releaser-missing"),
    (duties_checks, "validators", lambda _: ["a", "b"], "validator-missing"),
    (duties_checks, "combinations", lambda *_: (), "approver-counted-twice"),
    (duties_checks, "groups", lambda _: [], "maker-approves"),
    (duties_checks, "affords", lambda *_: True, "approver-over-the-limit"),
    (duties_checks, "admits", lambda *_: True, "agent-over-its-ceiling"),
    (people_checks, "_delegation", lambda *_: [], "risk-that-nobody-accepted"),
    (people_checks, "_deciding_gates", lambda *_: [], "key-over-when-it-was-decided"),
    (resolution_checks, "_openers", lambda *_: set(), "resolution-by-the-approver"),
    (resolution_checks, "_signed", lambda *_: [], "resolution-by-one"),
    (resolution_checks, "_about", lambda *_: [], "resolution-of-another-exception"),
    (resolution_checks, "_unresolved", lambda *_: [], "resolution-lost"),
    (verifying, "check_registry", lambda _: None, "trust-without-limits"),
    (transactions, "_sender", lambda *_: bytes.fromhex("318eb0e7db347088c10add75225993a01ca5eec2"), "anchored-by-another-account"),
)


@pytest.mark.parametrize(("module", "name", "wrong", "shown_by"), BUGS, ids=[f"{bug[1]}-{bug[3]}" for bug in BUGS])
def test_a_mistake_is_noticed(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, wrong: Callable[..., Any], shown_by: str
) -> None:
    """The report about the vector is not the one that is kept, once the mistake is in."""
    bundle, trust, kept = vector(shown_by)
    assert verify(bundle, trust) == kept
    monkeypatch.setattr(module, name, wrong, raising=False)
    assert verify(bundle, trust) != kept
