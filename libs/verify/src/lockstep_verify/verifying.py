"""From the bytes of a bundle and of a trust file to a report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from lockstep_verify.case import Case, NotChecked
from lockstep_verify.checks import CHECKS, CLAIMS, CORE, Check, open_questions
from lockstep_verify.documents import BUNDLE, DOCUMENT_BYTES_MAX, TRUST
from lockstep_verify.forms import FormBroken, Shape
from lockstep_verify.registry import check_registry
from lockstep_verify.strict_json import NotStrict, parse

Report: TypeAlias = dict[str, Any]

REPORT_FORMAT: Final = "lockstep/report/v1"
PROVED: Final = "PROVED"
NOT_PROVED: Final = "NOT_PROVED"
FAILED: Final = "FAILED"
UNREADABLE: Final = "UNREADABLE"
#: Exit codes by verdict.
EXIT_CODES: Final[Mapping[str, int]] = {PROVED: 0, NOT_PROVED: 1, FAILED: 1, UNREADABLE: 2}

#: More of one check say nothing new.
_FINDINGS_MAX: Final = 20


def verify(bundle: bytes, trust: bytes) -> Report:
    """What a bundle proves to who trusts what the trust file says."""
    try:
        case = Case(_read(bundle, BUNDLE, "bundle"), _read(trust, TRUST, "trust"))
        _check_trust(case.trust)
    except FormBroken as error:
        return {"format": REPORT_FORMAT, "verdict": UNREADABLE, "place": error.place, "message": error.rule}
    results = _results(case)
    passed = frozenset(each["name"] for each in results if each["result"] == "PASSED")
    failed = any(each["result"] == "FAILED" for each in results)
    proved = PROVED if passed.issuperset(CORE) else NOT_PROVED
    claims = [claim.says(case) for claim in CLAIMS if passed.issuperset(claim.needs)]
    return {
        "format": REPORT_FORMAT,
        "verdict": FAILED if failed else proved,
        "plan_id": case.header["plan_id"] if "PLAN" in passed else "",
        "plan_digest": case.plan_digest,
        "checks": results,
        "proved": [claim for claim in claims if claim],
        "not_proved": open_questions(case, passed),
        "messages": case.messages if "MESSAGES" in passed else [],
    }


def _read(octets: bytes, form: Shape, name: str) -> dict[str, Any]:
    if len(octets) > DOCUMENT_BYTES_MAX:
        raise FormBroken(name, f"must have at most {DOCUMENT_BYTES_MAX} bytes")
    try:
        document: dict[str, Any] = parse(octets)
    except NotStrict:
        rule = "must be strict JSON: UTF-8, no key twice, no null, no number but integers of 53 bits, not too deep"
        raise FormBroken(name, rule) from None
    form.check(document, name)
    return document


def _check_trust(trust: dict[str, Any]) -> None:
    journal = trust.get("journal")
    if journal is not None and ("keys" in journal) == ("first_key" in journal):
        raise FormBroken("trust.journal", "must name keys or first_key, and not both")
    check_registry(trust)


def _results(case: Case) -> list[dict[str, Any]]:
    """Every check in its order, each made once those that it relies on have passed."""
    results: dict[str, dict[str, Any]] = {}
    for number, check in enumerate(CHECKS, start=1):
        results[check.name] = {"number": number, "name": check.name, **_result(case, check, results)}
    return list(results.values())


def _result(case: Case, check: Check, before: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    missing = next((name for name in check.needs if before[name]["result"] != "PASSED"), None)
    if missing is not None:
        return {"result": "NOT_CHECKED", "note": f"relies on {missing}"}
    try:
        findings = check.make(case)
    except NotChecked as error:
        return {"result": "NOT_CHECKED", "note": str(error)}
    if not findings:
        return {"result": "PASSED"}
    shown = [{"place": each.place, "message": each.message} for each in findings[:_FINDINGS_MAX]]
    return {"result": "FAILED", "findings": shown}
