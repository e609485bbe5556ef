"""Every short course of orders about one plan, by a record of its own and in batches: both say the same. With one rule broken it is seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from test_rules import DIGEST, ROOT, work

from lockstep_contracts import notary as calls
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.merkle import leaf_hash
from lockstep_kit.participant.ports import Completion, LegWork, PlanOutcome
from lockstep_kit.plan import Anchoring
from lockstep_kit.statements import BatchEvidence
from lockstep_testkit.factories import address_of
from lockstep_testkit.simulation.chain_contracts import Circumstances, Contracts, State
from lockstep_testkit.simulation.registry_contract import NotaryRegistry
from notary.anchors import rules
from notary.anchors.leaves import OUTCOMES, Ending, Saying
from notary.anchors.rules import UNKNOWN, Leaf, Standing
from notary.operations import RULES, finalisation

NAMES = {PlanStatus.NONE: "None", PlanStatus.REGISTERED: "Registered", **OUTCOMES}
ORDERS = (
    work(Phase.PREPARING),
    work(Phase.COMMITTING, PlanOutcome.COMMITTED),
    work(Phase.ABORTING, PlanOutcome.ABORTED),
    work(Phase.ABORTING, PlanOutcome.MIXED),
)
EVENTS = {AnchorKind.REGISTRATIONS: "Registered", AnchorKind.OUTCOMES: "Finalised"}
COURSE_LENGTH = 4


def violations() -> Iterator[str]:
    """Where the batches' word on a plan is another than the contract's, or an answer says what is not so."""
    registry, operator = address_of("registry"), address_of("operator")
    contracts = Contracts(NotaryRegistry(registry, [operator]))
    for course in itertools.product(ORDERS, repeat=COURSE_LENGTH):
        state, standing = State(), UNKNOWN
        for order in course:
            final = finalisation(order)
            if order.phase is Phase.PREPARING:
                call = calls.encode_register_many([DIGEST])
            else:
                call = calls.encode_finalise_many([final])
                if state.plan(DIGEST) is PlanStatus.NONE and final.outcome is not PlanStatus.ABORTED:
                    # What was lost with a restored database is recorded anew; a contract loses nothing.
                    break
            done = contracts.execute(state, operator, registry, call, Circumstances(0))
            said = rules.missing(order, standing)
            if [effect.name for effect in done.effects] != [EVENTS[each.kind] for each in said]:
                yield "what the contract takes, and what is recorded, are not the same"
            standing = rules.recorded(standing, said)
            yield from _differs(state, standing, order)


def _differs(state: State, standing: Standing, order: LegWork) -> Iterator[str]:
    status = NAMES[state.plan(DIGEST)]
    if standing.status != status:
        yield f"the contract says {status}, the batches {standing.status}"
    answer = rules.judge(order, standing)
    told = RULES.table[order.phase, status]
    if order.phase is Phase.PREPARING and status == "Registered" and answer is not None:
        yield "a vote before the root is final"
    anchored = Standing(*(None if each is None else replace(each, root=ROOT) for each in (standing.registration, standing.ending)))
    for seen in (standing, anchored):
        answer = rules.judge(order, seen)
        if isinstance(answer, Completion):
            if answer.finding is not told:
                yield f"the contract's status means {told}, the batches answer {answer.finding}"
            shown = answer.promise.evidence if answer.promise is not None else answer.evidence
            if isinstance(shown, BatchEvidence):
                yield from _shown(seen, shown)
    if isinstance(rules.judge(order, anchored), Completion) is not isinstance(told, Finding):
        yield "what the contract answers, the batches do not"


def _shown(standing: Standing, shown: BatchEvidence) -> Iterator[str]:
    leaves = [each for each in (standing.registration, standing.ending) if each is not None]
    named = [each for each in leaves if leaf_hash(each.saying.leaf_data()) == shown.leaf_hash]
    if not named:
        yield "evidence of a leaf that was never recorded"
    if shown.root is None or any(each.root is None for each in named):
        yield "evidence of a batched leg without a root that is final"


def test_both_say_the_same() -> None:
    """In every course the batches stand where the contract would, and answer what it would."""
    assert set(violations()) == set()


def _registers_late(order: LegWork, standing: Standing) -> tuple[Saying, ...]:
    return (
        SOUND_MISSING(order, Standing(standing.registration, None))
        if order.phase is Phase.PREPARING
        else SOUND_MISSING(order, standing)
    )


def _ends_twice(order: LegWork, standing: Standing) -> tuple[Saying, ...]:
    return SOUND_MISSING(order, Standing(standing.registration, None))


def _never_ends(order: LegWork, standing: Standing) -> tuple[Saying, ...]:
    return tuple(each for each in SOUND_MISSING(order, standing) if not isinstance(each, Ending))


def _forgets_the_registration(standing: Standing, sayings: tuple[Saying, ...]) -> Standing:
    after = SOUND_RECORDED(standing, sayings)
    return Standing(None, after.ending) if after.ending is None else after


def _waits_for_nothing(order: LegWork) -> Anchoring:
    del order
    return Anchoring.DEFERRED


def _shows_the_other(order: LegWork, standing: Standing) -> object:
    answer = SOUND_JUDGE(order, standing)
    if isinstance(answer, Completion) and answer.evidence is not None:
        return replace(answer, evidence=BatchEvidence(leaf_hash(b"another leaf"), ROOT))
    return answer


SOUND_MISSING, SOUND_RECORDED, SOUND_JUDGE = rules.missing, rules.recorded, rules.judge


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("missing", _registers_late),
        ("missing", _ends_twice),
        ("missing", _never_ends),
        ("recorded", _forgets_the_registration),
        ("anchoring_of", _waits_for_nothing),
        ("judge", _shows_the_other),
    ],
)
def test_a_broken_rule_is_seen(monkeypatch: pytest.MonkeyPatch, rule: str, broken: Callable[..., object]) -> None:
    """With one rule broken, some course shows it."""
    monkeypatch.setattr(rules, rule, broken)
    assert next(violations(), None) is not None


def test_the_standing_is_of_leaves() -> None:
    """A standing has the contract's own names."""
    for outcome, name in OUTCOMES.items():
        assert Standing(None, Leaf(Ending(DIGEST, outcome, bytes(32)))).status == name
