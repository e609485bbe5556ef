"""Who decided, rightly and wrongly: plans of several eyes, and one for each way in which somebody could decide who may not, or one person for two.

What is wrong is written down by the coordinator and the journal together, and signed by the persons themselves: nothing but the matrix of duties, the
limits and the operators' signatures can show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from lockstep_kit.amounts import AssetId
from lockstep_kit.canonical import Document, time_from_text
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.plan import Policy
from lockstep_kit.registry import Actor, GateRule, Limit, Matrix, RegisteredKey, Registry, Role, Threshold
from lockstep_kit.resolutions import Verb
from lockstep_kit.statements import Gate, Promise, PromiseKind, Refusal
from lockstep_testkit.bundles.auditor import MATRICES, registry, trust
from lockstep_testkit.bundles.history import TOKEN, History, committed, mixed, reversed_, the_plan
from lockstep_testkit.factories import KEYS_FROM, SIGNERS, actor_of, key_of

#: Two of each, as the second version of the matrix asks for.
EYES: Final[Mapping[Gate, tuple[str, ...]]] = {
    Gate.MAKE: ("alice",),
    Gate.APPROVE: ("bob", "heidi"),
    Gate.RELEASE: ("carol", "ivan"),
    Gate.VALIDATE: ("dave", "judy"),
}
_ONE: Final[Mapping[Gate, tuple[str, ...]]] = {gate: (who,) for gate, who in SIGNERS.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """A plan, what the auditor trusts, and the checks that must fail; of one that holds those that cannot be made."""

    #: Of its vector.
    name: str
    #: What was written.
    history: History
    #: The auditor's.
    trust: dict[str, Any]
    #: PROVED or FAILED.
    verdict: str
    #: Written down by hand.
    expects: tuple[str, ...]


def four_eyes(**signers: tuple[str, ...]) -> History:
    """A plan that takes two of each, decided by them, or by those who are named for a gate."""
    return committed(History(the_plan(2), signers={**EYES, **{Gate(gate): who for gate, who in signers.items()}}))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _held()
    yield from _by_the_wrong_ones()
    yield from _operators()


_NOTHING_WENT_WRONG: Final = ("AUDIT_LOG", "RESOLUTIONS", "REVERSALS")


def _held() -> Iterator[Case]:
    yield Case("four-eyes", four_eyes(), trust(), "PROVED", _NOTHING_WENT_WRONG)
    open_to_agents = replace(MATRICES[0].gates[Gate.APPROVE], agents=True, agent_limits=_limited(10_000))
    third = replace(MATRICES[0], version=3, gates={**MATRICES[0].gates, Gate.APPROVE: open_to_agents})
    by_agent = committed(History(the_plan(3), signers={**_ONE, Gate.APPROVE: ("robot",)}))
    yield Case(
        "risk-that-was-accepted",
        committed(SoftPromise(the_plan(policy=Policy(accept_expiry_risk=True)))),
        trust(),
        "PROVED",
        _NOTHING_WENT_WRONG,
    )
    yield Case("agent-within-its-ceiling", by_agent, _trusted(matrices=(third,)), "PROVED", _NOTHING_WENT_WRONG)


def _by_the_wrong_ones() -> Iterator[Case]:
    def failed(name: str, history: History, check: str, *changed: Actor, trusted: dict[str, Any] | None = None) -> Case:
        return Case(name, history, trusted or _trusted(*changed), "FAILED", (check,))

    yield failed("approver-missing", four_eyes(APPROVE=("bob",)), "QUORUM")
    yield failed("releaser-missing", four_eyes(RELEASE=("carol",)), "QUORUM")
    yield failed("validator-missing", four_eyes(VALIDATE=("dave",)), "QUORUM")
    yield failed("approver-counted-twice", four_eyes(APPROVE=("bob", "bob")), "QUORUM")
    maker_too = actor_of("alice", (Role.MAKER, Role.APPROVER))
    yield failed("maker-approves", four_eyes(APPROVE=("alice", "bob")), "DUTIES", maker_too)
    both = actor_of("bob", (Role.APPROVER, Role.RELEASER))
    yield failed("approver-releases", four_eyes(RELEASE=("carol", "bob")), "DUTIES", both)
    yield failed("approver-without-the-role", four_eyes(), "ROLES", actor_of("bob", (Role.RELEASER,)))
    yield failed("approver-over-the-limit", four_eyes(), "LIMITS", actor_of("bob", (Role.APPROVER,), _limited(9_999)))
    euro_alone = actor_of("carol", (Role.RELEASER,), (Limit(AssetId("EUR"), 10**9),))
    yield failed("releaser-without-a-limit-for-the-token", four_eyes(), "LIMITS", euro_alone)
    yield failed("agent-over-its-ceiling", four_eyes(APPROVE=("bob", "robot")), "AGENTS")
    by_agent = committed(History(signers={**_ONE, Gate.RELEASE: ("carol",), Gate.APPROVE: ("robot",)}))
    yield failed("agent-where-none-may-sign", by_agent, "AGENTS")
    yield failed("matrix-unknown", four_eyes(), "MATRIX", trusted=_trusted(matrices=MATRICES[:1]))
    yield failed("three-approvers-by-the-auditor-s-matrix", four_eyes(), "QUORUM", trusted=_trusted(matrices=(_three_approve(),)))
    yield failed("key-over-when-it-was-decided", four_eyes(), "DECISION", _over_when_decided(four_eyes()))
    yield failed("risk-that-nobody-accepted", committed(SoftPromise()), "DECISION")


def _operators() -> Iterator[Case]:
    def failed(name: str, history: History, *changed: Actor, made: Callable[[History], History] = mixed) -> Case:
        return Case(name, made(history), _trusted(*changed), "FAILED", ("RESOLUTIONS",))

    yield failed("resolution-by-one", History(operators=("frank",)))
    yield failed("resolution-by-one-person-twice", History(operators=("frank", "frank")))
    yield failed("resolution-by-no-operator", History(operators=("grace", "frank")))
    yield failed("resolution-by-the-approver", History(operators=("bob", "frank")), actor_of("bob", (Role.APPROVER, Role.OPERATOR)))
    yield failed("resolution-by-a-stranger", History(operators=("mallory", "frank")))
    yield failed("resolution-used-again", UsedAgain())
    yield failed("resolution-of-another-plan", Resolved({"plan_digest": sha256(b"another plan")}))
    yield failed("resolution-of-another-exception", Resolved({"escalation_id": "escalation-2"}))
    yield failed("resolution-of-another-leg", Resolved({"leg_id": "tokens", "verb": Verb.RETRY}))
    yield failed("resolution-changed", Reworded())
    yield failed("resolution-lost", Unsigned())
    retried = Resolved({"verb": Verb.RETRY, "detail": ""})
    yield Case("resolution-of-another-verb", reversed_(retried), trust(), "FAILED", ("RESOLUTIONS", "REVERSALS"))
    yield Case("reversed-by-no-order", reversed_(OtherOrder()), trust(), "FAILED", ("REVERSALS",))


def _trusted(*changed: Actor, matrices: tuple[Matrix, ...] = MATRICES) -> dict[str, Any]:
    held: Registry = registry(*changed, matrices=matrices)
    return trust(held)


def _limited(euro_cents: int) -> tuple[Limit, ...]:
    return (Limit(AssetId("EUR"), euro_cents), Limit(TOKEN, 10**12))


def _three_approve() -> Matrix:
    rule: GateRule = replace(MATRICES[1].gates[Gate.APPROVE], thresholds=(Threshold(TOKEN, 1, 3),), agents=False, agent_limits=())
    return replace(MATRICES[1], gates={**MATRICES[1].gates, Gate.APPROVE: rule})


def _over_when_decided(history: History) -> Actor:
    """The approver, with a key that counted when the approval was recorded, and no more when it was decided a moment later."""
    released = next(each.document for each in history.entries if each.document["type"] == "plan.released")
    decided = time_from_text(str(released["event_time"]))
    bob = actor_of("bob", (Role.APPROVER,))
    return replace(bob, keys=(RegisteredKey(key_of("bob").public, KEYS_FROM, decided.replace(second=decided.second - 1)),))


class SoftPromise(History):
    """The bank holds nothing, and the decision is not left to it."""

    def vote(self, leg_id: str, answer: Promise | Refusal | None = None) -> None:
        """The vote; a soft one of the cash leg."""
        super().vote(leg_id, Promise(PromiseKind.BEST_EFFORT, None) if leg_id == "cash" else answer)


class Resolved(History):
    """The operators sign something else."""

    def __init__(self, changes: Mapping[str, Any], case: Any = None) -> None:
        super().__init__(case or the_plan())
        self._changes = dict(changes)

    def resolve(self, verb: Verb, document: Mapping[str, Document], /, **changes: Any) -> None:
        """The resolution, changed."""
        super().resolve(verb, document, **changes, **self._changes)


class UsedAgain(History):
    """What two operators signed once takes effect twice."""

    def resolve(self, verb: Verb, document: Mapping[str, Document], /, **changes: Any) -> None:
        """The resolution, twice."""
        super().resolve(verb, document, **changes)
        super().resolve(verb, {}, **changes)


class Unsigned(History):
    """Something is resolved, and nobody has signed what."""

    def resolve(self, verb: Verb, document: Mapping[str, Document], /, **changes: Any) -> None:
        """The entry alone."""
        self.record("exception.resolved", self.operators[-1], "operator", document)


class Reworded(History):
    """The coordinator records another sentence than the operators signed."""

    def record(self, type_: str, actor: str, role: str, document: Any, *, bound: bool = True) -> None:
        """The entry, unless it is bent."""
        said = document
        if "resolution" in document:
            mandate = document["resolution"]
            said = document | {"resolution": mandate | {"resolution": mandate["resolution"] | {"detail": "nothing happened"}}}
        super().record(type_, actor, role, said, bound=bound)


class OtherOrder(History):
    """The participant answers an order that nobody gave."""

    def resolve(self, verb: Verb, document: Mapping[str, Document], /, **changes: Any) -> None:
        """The resolution; what is answered is another."""
        super().resolve(verb, document, **changes)
        self.order = Digest(sha256(b"another order"))
