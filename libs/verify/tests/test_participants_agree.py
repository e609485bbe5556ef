"""The verifier refuses what coordinator and participants refuse, and nothing else: both are asked about the same plans, drawn at random.

The rules of the kit are what the services run. The verifier has them written again; here it is shown that they say the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as some

from lockstep_kit.amounts import AssetId
from lockstep_kit.canonical import time_from_text
from lockstep_kit.certificate import Certificate, Decision, NotAuthorised, check_commit, check_distinct, check_gate, matrix_of
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId
from lockstep_kit.registry import Actor, GateRule, Limit, Limits, Matrix, RegisteredKey, Registry, Role, Threshold
from lockstep_kit.resolutions import ResolutionSignature, ResolutionStatement, Verb, check_resolution, sign_resolution
from lockstep_kit.sod import check_matrix, scope_of, signatures_needed
from lockstep_kit.statements import Gate, GateSignature, Promise, PromiseKind, Refusal
from lockstep_testkit.bundles.auditor import ACTORS, MATRICES, registry, trust
from lockstep_testkit.bundles.bundle import Exhibit
from lockstep_testkit.bundles.deciding import EYES
from lockstep_testkit.bundles.history import BEGUN, TOKEN, History, committed, mixed, the_plan
from lockstep_testkit.factories import KEYS_FROM, KEYS_UNTIL, PARTICIPANTS, actor_of, key_of
from lockstep_verify.verifying import Report, verify

#: What the kit refuses by -> the checks one of which must fail.
CHECKS_OF: Final = {
    "SOD_VERSION_UNKNOWN": {"MATRIX"},
    "GATE_SIGNATURE": {"GATES", "DECISION"},
    "GATE_ROLE": {"ROLES"},
    "GATE_AGENT": {"AGENTS"},
    "GATE_LIMIT": {"LIMITS"},
    "GATE_SIGNATURES": {"QUORUM"},
    "GATE_SAME_PERSON": {"DUTIES", "QUORUM"},
    "CERTIFICATE_PROMISE_LAPSED": {"DECISION"},
    "CERTIFICATE_DECISION": {"DECISION"},
}
NAMES: Final = tuple(str(each.actor_id) for each in ACTORS)
AMOUNTS: Final = {"EUR": 10_000, TOKEN: 1_000_000}


class Drawn(History):
    """A plan whose cash leg is promised as it was drawn."""

    promise: Promise | None = None

    def vote(self, leg_id: str, answer: Promise | Refusal | None = None) -> None:
        super().vote(leg_id, self.promise if leg_id == "cash" and self.promise is not None else answer)


# -- what is drawn -------------------------------------------------------------------------------------------------------------


def limits_near(rng: Random) -> Limits:
    """Limits around what the plan moves, of one asset or both; or none."""
    if rng.random() < 0.3:
        return None
    assets = rng.sample(sorted(AMOUNTS), rng.choice((1, 2, 2, 2)))
    return tuple(Limit(AssetId(each), AMOUNTS[each] + rng.choice((-1, 0, 1))) for each in assets)


def thresholds_near(rng: Random) -> tuple[Threshold, ...]:
    """A threshold around what the plan moves, sometimes two."""
    asset = rng.choice(sorted(AMOUNTS))
    start = AMOUNTS[asset] + rng.choice((-1, 0, 1))
    found = [Threshold(AssetId(asset), start, rng.choice((1, 2, 2, 3)))]
    if rng.random() < 0.4:
        found.append(Threshold(AssetId(asset), start + rng.choice((-1, 1, 2)), rng.choice((2, 3, 8))))
    return tuple(found)


def matrix_near(rng: Random, matrix: Matrix) -> Matrix:
    """The matrix with one rule of one gate changed; not always one that holds."""
    gate = rng.choice(sorted(matrix.gates))
    rule: GateRule = matrix.gates[gate]
    match rng.randrange(4):
        case 0:
            rule = replace(rule, roles=frozenset(rng.sample(sorted(Role), rng.choice((1, 2)))))
        case 1:
            rule = replace(rule, thresholds=thresholds_near(rng))
        case 2:
            rule = replace(rule, agents=True, agent_limits=limits_near(rng))
        case _:
            groups = tuple(frozenset(rng.sample(sorted(Gate), rng.choice((3, 4, 5)))) for _ in range(rng.choice((1, 2))))
            return replace(matrix, different_persons=groups)
    return replace(matrix, gates={**matrix.gates, gate: rule})


def actor_near(rng: Random, actor: Actor) -> Actor:
    """The actor with one thing changed: roles, limits, its nature, or when its key counts."""
    roles = sorted(actor.roles)
    match rng.randrange(6):
        case 0:
            roles = sorted({*roles, rng.choice(sorted(Role))}) if rng.random() < 0.7 else [rng.choice(sorted(Role))]
            return actor_of(actor.actor_id, roles, agent=actor.agent)
        case 1 | 4 | 5:
            return actor_of(actor.actor_id, roles, limits_near(rng), agent=actor.agent)
        case 2:
            return replace(actor, agent=not actor.agent)
        case _:
            since, until = sorted(BEGUN + timedelta(seconds=rng.randrange(20)) for _ in range(2))
            window = rng.choice(((KEYS_FROM, until), (since, KEYS_UNTIL)))
            return replace(actor, keys=(RegisteredKey(key_of(actor.actor_id).public, *window),))


def plan_near(rng: Random) -> tuple[Drawn, Registry]:
    """A plan of four eyes and its registry, with up to three things changed."""
    actors, matrix = {str(each.actor_id): each for each in ACTORS}, MATRICES[1]
    signers, promise, version = dict(EYES), None, 2
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
        match rng.randrange(7):
            case 0 | 6:
                name = rng.choice([who for group in signers.values() for who in group])
                actors[name] = actor_near(rng, actors[name])
            case 1:
                changed = matrix_near(rng, matrix)
                matrix = changed if loads(changed) else matrix
            case 2 | 3:
                gate = rng.choice(sorted(EYES))
                signers[gate] = tuple(rng.choice(NAMES) for _ in range(1 if gate is Gate.MAKE else rng.choice((1, 2, 2, 3))))
            case 4:
                until = None if rng.random() < 0.5 else BEGUN + timedelta(seconds=rng.choice((5, 3_000)))
                promise = Promise(rng.choice(tuple(PromiseKind)), until)
            case _:
                version = rng.choice((1, 2, 2, 3))
    made = Drawn(the_plan(version), signers=signers)
    made.promise = promise
    committed(made)
    return made, registry(*actors.values(), matrices=(MATRICES[0], matrix))


def loads(matrix: Matrix) -> bool:
    try:
        check_matrix(matrix)
    except FieldInvalid:
        return False
    return True


# -- what the kit says ---------------------------------------------------------------------------------------------------------


def decided_at(made: History) -> Any:
    payload = next(json.loads(each.payload) for each in made.entries if each.document["type"] == "plan.released")
    return time_from_text(payload["decision"]["decided_at"])


def signed_at(made: History, gate: Gate) -> list[GateSignature]:
    return [each for each in made.gates if each.statement.gate is gate]


def certificate_of(made: History) -> Certificate:
    """What the coordinator would show participants."""
    make, approvals, releases = (signed_at(made, gate) for gate in (Gate.MAKE, Gate.APPROVE, Gate.RELEASE))
    return Certificate(
        header=made.case.header,
        make=make[0],
        approve=approvals[0],
        release=releases[0],
        votes=tuple(made.in_order(made.votes)),
        decision=Decision.COMMIT,
        delegated_leg_id="",
        delegated_outcome=None,
        decided_at=decided_at(made),
        further_approvals=tuple(approvals[1:]),
        further_releases=tuple(releases[1:]),
    )


def refusals(made: History, known: Registry) -> Iterator[str]:
    """Everything that keeps coordinator or a participant from going on."""
    case, certificate = made.case, certificate_of(made)
    for leg in case.legs:
        key = case.key(leg.leg_id) if leg.settling else b""
        yield from _refused(lambda: check_commit(certificate, case.binding(leg.leg_id), key, PARTICIPANTS[leg.kind], known))  # noqa: B023 - called at once
    scope, people = scope_of(case.header, case.legs), set[tuple[ActorId, Gate]]()
    recorded = {
        json.loads(each.payload)["gate"]["signature"]: each.document["event_time"]
        for each in made.entries
        if b'"gate":' in each.payload
    }
    for gate in EYES:
        for signed in signed_at(made, gate):
            moments = [time_from_text(str(at)) for at in [recorded.get(signed.signature.octets.hex())] if at]
            for moment in [*moments, *([] if gate is Gate.VALIDATE else [certificate.decided_at])]:
                yield from _refused(lambda: check_gate(signed, gate, scope, known, moment))  # noqa: B023 - called at once
            # That a key did not count is said by the signature's own refusal.
            people |= {(actor.actor_id, gate) for actor in known.actors if signed.signature.key_id == actor.keys[0].public.key_id}
        yield from _refused(lambda: _enough(known, scope, gate, {who for who, at in people if at is gate}))  # noqa: B023 - called at once
    yield from _refused(lambda: check_distinct([who for who, _ in sorted(people)]))


def _enough(known: Registry, scope: Any, gate: Gate, people: set[ActorId]) -> None:
    if len(people) < signatures_needed(matrix_of(scope, known), gate, scope):
        raise NotAuthorised("GATE_SIGNATURES", "too few")


def _refused(asked: Callable[[], object]) -> Iterator[str]:
    try:
        asked()
    except NotAuthorised as refusal:
        yield refusal.reason


def judged(made: History, known: Registry) -> tuple[Report, dict[str, str]]:
    bundle = Exhibit(made).bundle(anchored=False)
    report = verify(json.dumps(bundle).encode(), json.dumps(trust(known)).encode())
    return report, {each["name"]: each["result"] for each in report["checks"]}


@given(some.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_decisions(seed: int) -> None:
    """A decision is refused by the verifier exactly if coordinator or a participant refuses it, and by the check that is named for their reason."""
    made, known = plan_near(Random(seed))
    reasons = set(refusals(made, known))
    report, results = judged(made, known)
    assert (report["verdict"] == "PROVED") == (not reasons), (reasons, results)
    for reason in reasons:
        # What relies on a check that failed is not made any more.
        assert any(results[name] != "PASSED" for name in CHECKS_OF[reason]), (reason, results)


@given(some.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_matrices(seed: int) -> None:
    """A matrix that no service loads is refused in a trust file, and one that they load is taken."""
    rng, matrix = Random(seed), MATRICES[1]
    for _ in range(rng.choice((1, 2, 3))):
        matrix = matrix_near(rng, matrix)
    report = verify(b"{}", json.dumps(trust(registry(matrices=(matrix,)))).encode())
    # The bundle is read first, and has nothing in it.
    assert report["place"] == "bundle.format"
    report = verify(BUNDLE, json.dumps(trust(registry(matrices=(matrix,)))).encode())
    assert (report["verdict"] == "UNREADABLE") == (not loads(matrix)), (report, matrix)


BUNDLE: Final = json.dumps(Exhibit(committed(History())).bundle(anchored=False)).encode()


@given(some.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_resolutions(seed: int) -> None:
    """A resolution is refused by the verifier exactly if a participant or the coordinator refuses it."""
    rng = Random(seed)
    actors = {str(each.actor_id): each for each in ACTORS}
    operators = ["erin", "frank"]
    for _ in range(rng.choice((0, 1, 1, 2))):
        match rng.randrange(3):
            case 0:
                operators[rng.randrange(len(operators))] = rng.choice(NAMES)
            case 1:
                name = rng.choice([*operators, "bob"])
                actors[name] = actor_near(rng, actors[name])
            case _:
                operators = operators[:1] if rng.random() < 0.5 else [*operators, "erin"]
    made = mixed(History(operators=tuple(operators)))
    known = registry(*actors.values())
    _, results = judged(made, known)
    if results["GATES"] != "PASSED":
        return
    entry = next(each for each in made.entries if each.document["type"] == "exception.resolved")
    mandate = json.loads(entry.payload)["resolution"]
    signatures = list(_signatures(made, mandate, operators))
    barred = {
        actor.actor_id
        for actor in known.actors
        for key in actor.keys
        if key.public.key_id in {each.signature.key_id for each in made.gates}
    }
    at = time_from_text(str(entry.document["event_time"]))
    refused = list(_refused(lambda: check_resolution(signatures, made.case.header.digest, Verb.RESOLVE, known, at, barred)))
    assert (results["RESOLUTIONS"] == "PASSED") == (not refused), (refused, operators)


def _signatures(made: History, mandate: dict[str, Any], operators: list[str]) -> Iterator[ResolutionSignature]:
    for each, who in zip(mandate["signatures"], operators, strict=True):
        said = ResolutionStatement(made.resolved[-1], bytes.fromhex(each["nonce"]), time_from_text(each["expires_at"]))
        yield sign_resolution(said, key_of(who))
