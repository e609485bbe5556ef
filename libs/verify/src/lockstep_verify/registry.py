"""Who may do what, as the auditor holds it in the trust file: persons and agents with keys, roles and limits, and the matrices of duties by version. Pure.

What no participant would load (a key that two hold, limits that are not said, a matrix by which one person could do what takes four) is refused here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from lockstep_verify.forms import Flag, Form, FormBroken, Integer, OneOf, Several, Shape, Text
from lockstep_verify.keccak import keccak256

#: Gates that let a plan go on: they are opened by different persons, whatever a matrix says, and limits apply to them.
OPENING: Final = ("MAKE", "APPROVE", "RELEASE", "VALIDATE")
GATES: Final = (*OPENING, "CANCEL")
#: Gates that may take several persons.
PLURAL: Final = ("APPROVE", "RELEASE", "VALIDATE")
ROLES: Final = ("maker", "approver", "releaser", "validator", "operator", "auditor")
#: Roles that sign for amounts: what they may sign for is said.
LIMITED_ROLES: Final = ("maker", "approver", "releaser", "validator")
UNLIMITED: Final = "unlimited"
SIGNATURES_MAX: Final = 7

_UNITS_END: Final = 2**256
_ADDRESS: Final = re.compile(r"eip155:[1-9][0-9]{0,17}/erc20:0x([0-9a-fA-F]{40})")
_LIMIT_RULE: Final = f"must be present: a list of assets with their limits, or {UNLIMITED}"


class Units:
    """A count of minor units as a string of its digits."""

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if not isinstance(value, str) or re.fullmatch(r"0|[1-9][0-9]{0,77}", value) is None or int(value) >= _UNITS_END:
            raise FormBroken(place, "must be a string of digits that is a number below 2^256, without leading zeros")


class Asset:
    """A currency, or a token of a chain, whose address has its checksum (EIP-55): an asset has one name, or a threshold could be gone round."""

    def __init__(self, *, currency: bool = True, token: bool = True) -> None:
        self._currency, self._token = currency, token

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        text = value if isinstance(value, str) else ""
        if self._currency and re.fullmatch(r"[A-Z]{3}", text) is not None:
            return
        found = _ADDRESS.fullmatch(text) if self._token else None
        if found is None or found[1] != _with_checksum(found[1]):
            raise FormBroken(place, "must be an ISO 4217 currency or a CAIP-19 ERC-20 id with the address's checksum")


def _with_checksum(address: str) -> str:
    marks = keccak256(address.lower().encode("ascii")).hex()
    return "".join(digit.upper() if int(mark, 16) >= 8 else digit for digit, mark in zip(address.lower(), marks, strict=False))


class Limits:
    """How much of each asset; an asset that is not listed is not allowed at all."""

    _listed: Final = Several(Shape({"asset": Asset(), "minor_units_max": Units()}), 0, 1_000)

    def check(self, value: Any, place: str) -> None:
        """Hold a value against the form."""
        if value == UNLIMITED:
            return
        if not isinstance(value, list):
            raise FormBroken(place, f"must be a list of assets with their limits, or {UNLIMITED}")
        self._listed.check(value, place)
        _once(((f"{place}[{index}].asset", each["asset"]) for index, each in enumerate(value)), "must be unique in the list")


_SOME: Final = Text(re.compile(r"[\s\S]+"), "must be a string that is not empty")
_THRESHOLD: Final = Shape({"asset": Asset(), "from_minor_units": Units(), "signatures": Integer(2, SIGNATURES_MAX)})
_RULE: Final = Shape(
    {"roles": Several(OneOf(ROLES), 1, len(ROLES))}, {"thresholds": Several(_THRESHOLD, 0, 1_000), "agents": Limits()}
)
MATRICES: Final = Several(
    Shape(
        {
            "version": Integer(1),
            "gates": Shape(dict.fromkeys(GATES, _RULE)),
            "different_persons": Several(Several(OneOf(GATES), 0, len(GATES)), 0, 16),
        }
    ),
    0,
    1_000,
)


def persons(keys: Form) -> Form:
    """The form of the persons, given that of a list of keys."""
    required: dict[str, Form] = {"actor_id": _SOME, "roles": Several(OneOf(ROLES), 1, len(ROLES)), "keys": keys}
    return Several(Shape(required, {"limits": Shape({}, dict.fromkeys(LIMITED_ROLES, Limits())), "agent": Flag()}), 0, 100_000)


def check_registry(trust: dict[str, Any]) -> None:
    """What must hold of the trust file's persons, participants and matrices beyond their forms.

    Raises:
        FormBroken: at the first place that breaks a rule.
    """
    if "persons" in trust and "matrices" not in trust:
        rule = "must be present where persons are: by the matrix of duties it is judged how many had to sign, and who could"
        raise FormBroken("trust.matrices", rule)
    people, services, matrices = (trust.get(name, []) for name in ("persons", "participants", "matrices"))
    _once(((f"trust.participants[{at}].name", each["name"]) for at, each in enumerate(services)), "must be unique")
    _once(((f"trust.persons[{at}].actor_id", each["actor_id"]) for at, each in enumerate(people)), "must be unique")
    _once(_keys("participants", services) + _keys("persons", people), "must be registered once")
    for index, person in enumerate(people):
        _check_limits(person, f"trust.persons[{index}].limits")
    _once(((f"trust.matrices[{at}].version", str(each["version"])) for at, each in enumerate(matrices)), "must be unique")
    for index, matrix in enumerate(matrices):
        _check_matrix(matrix, f"trust.matrices[{index}]")


def _once(named: Iterable[tuple[str, str]], rule: str) -> None:
    seen: set[str] = set()
    for place, name in named:
        if name in seen:
            raise FormBroken(place, rule)
        seen.add(name)


def _keys(name: str, holders: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every key with its place; one that never counts is refused."""
    found = []
    for index, holder in enumerate(holders):
        for number, key in enumerate(holder["keys"]):
            place = f"trust.{name}[{index}].keys[{number}]"
            if key["not_before"] >= key["not_after"]:
                raise FormBroken(f"{place}.not_after", "must be after not_before")
            found.append((f"{place}.public_key", key["public_key"]))
    return found


def _check_limits(person: dict[str, Any], place: str) -> None:
    limits = person.get("limits", {})
    for role in LIMITED_ROLES:
        if role in person["roles"] and role not in limits:
            raise FormBroken(f"{place}.{role}", _LIMIT_RULE)
        if role in limits and role not in person["roles"]:
            raise FormBroken(f"{place}.{role}", "must be a role of the person")


def _check_matrix(matrix: dict[str, Any], place: str) -> None:
    for gate in GATES:
        rule, here = matrix["gates"][gate], f"{place}.gates.{gate}"
        if "auditor" in rule["roles"]:
            raise FormBroken(f"{here}.roles", "must not name auditor, who only reads")
        if rule.get("thresholds") and gate not in PLURAL:
            raise FormBroken(f"{here}.thresholds", "must be absent: one person's signature is enough")
        if "agents" in rule and gate not in OPENING:
            raise FormBroken(f"{here}.agents", "must be absent: an agent stops a plan by its role")
        _check_thresholds(rule, here)
    if not any(set(OPENING) <= set(group) for group in matrix["different_persons"]):
        rule = "must have a list with MAKE, APPROVE, RELEASE and VALIDATE: they are four different persons"
        raise FormBroken(f"{place}.different_persons", rule)


def _check_thresholds(rule: dict[str, Any], place: str) -> None:
    """More persons for more, and no agent where several sign: four eyes are persons' eyes."""
    last: dict[str, tuple[int, int]] = {}
    first: dict[str, int] = {}
    for index, each in enumerate(rule.get("thresholds", [])):
        start, signatures, here = int(each["from_minor_units"]), each["signatures"], f"{place}.thresholds[{index}]"
        before = last.get(each["asset"], (0, 1))
        if start <= before[0]:
            raise FormBroken(f"{here}.from_minor_units", "must be more than the asset's one before, and at least 1")
        if signatures <= before[1]:
            raise FormBroken(f"{here}.signatures", "must be more than the asset's one before")
        last[each["asset"]] = (start, signatures)
        first.setdefault(each["asset"], start)
    if "agents" not in rule or not first:
        return
    if rule["agents"] == UNLIMITED:
        raise FormBroken(f"{place}.agents", "must be limited below the gate's thresholds")
    for index, limit in enumerate(rule["agents"]):
        if limit["asset"] in first and int(limit["minor_units_max"]) >= first[limit["asset"]]:
            raise FormBroken(f"{place}.agents[{index}].minor_units_max", "must be below the asset's first threshold")


# -- what the matrix and the limits ask for -------------------------------------------------------------------------------


def keeps(limits: Any, amounts: dict[str, int]) -> bool:
    """Whether the amounts keep the limits."""
    if limits == UNLIMITED:
        return True
    allowed = {each["asset"]: int(each["minor_units_max"]) for each in limits}
    return all(units <= allowed.get(asset, 0) for asset, units in amounts.items())


def affords(person: dict[str, Any], rule: dict[str, Any], amounts: dict[str, int]) -> bool:
    """Whether one of the roles by which the person opens the gate is limited to no less than the amounts."""
    limits = person.get("limits", {})
    return any(role in limits and keeps(limits[role], amounts) for role in person["roles"] if role in rule["roles"])


def admits(person: dict[str, Any], rule: dict[str, Any], amounts: dict[str, int]) -> bool:
    """Whether it is a person, or an agent that the gate is open to for these amounts."""
    return not person.get("agent", False) or ("agents" in rule and keeps(rule["agents"], amounts))


def needed(rule: dict[str, Any], amounts: dict[str, int]) -> int:
    """How many different persons the gate takes: the most that any of the plan's assets asks for."""
    asked = (each for each in rule.get("thresholds", []) if amounts.get(each["asset"], 0) >= int(each["from_minor_units"]))
    return max((each["signatures"] for each in asked), default=1)


def groups(matrix: dict[str, Any]) -> list[list[str]]:
    """Sets of gates whose signers must be different persons."""
    return [list(OPENING), *matrix["different_persons"]]
