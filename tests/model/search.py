"""The search: every state that a configuration can come to, breadth first, so that the first counterexample found is a shortest one.

Beside the rules about states it checks both directions of reachability: from every state found, a state in which the plan is closed or a person is
called can be reached by moves that need neither fault nor person. So "everything ends" is not vacuous, and nothing gets stuck in silence.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from coordinator.model import Cause, State
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Command, Phase
from lockstep_kit.participant.ports import PlanOutcome
from model.invariants import Aspect, Broken, Trace, Violation, aspect, broken
from model.moves import Bare, Moves
from model.world import Config, Fault, Outside

#: A configuration that grows beyond this is not one that every run can search.
STATES_MAX: Final = 600_000
LIVENESS: Final = "I5 everything ends or calls a person"


@dataclass(slots=True)
class Found:
    """What a search found."""

    #: The configuration.
    config: str
    #: States and moves searched.
    states: int = 0
    transitions: int = 0
    #: Processor time that it took.
    seconds: float = 0.0
    #: The first rule that does not hold, and how it comes about.
    violation: Violation | None = None
    trace: tuple[str, ...] = ()
    #: Whether every state was searched.
    exhausted: bool = True
    #: Rows of production's tables that were used.
    arcs: set[tuple[State, Decision | None, Cause]] = field(default_factory=set)
    commands: set[tuple[Phase | None, Command]] = field(default_factory=set)
    findings: set[tuple[Phase, Phase]] = field(default_factory=set)


class Search:
    """One configuration's search."""

    def __init__(self, config: Config) -> None:
        self.moves: Final = Moves(config)
        self._config = config
        self._numbers: dict[Bare, int] = {}
        self._states: list[Bare] = []
        self._parents = array("i")
        self._fair: list[tuple[int, ...]] = []
        self._ends = bytearray()
        self._aspects: dict[int, Aspect] = {}
        self._traces: dict[tuple[int, int], tuple[Trace, int]] = {}
        self._judged: dict[tuple[object, ...], tuple[Violation, ...]] = {}

    def run(self, states_max: int = STATES_MAX) -> Found:
        """Search until every state was seen, or a rule does not hold."""
        found = Found(self._config.name)
        began = time.process_time()
        at = -1
        try:
            self._reach(self.moves.first(), -1)
            while at + 1 < len(self._states):
                at += 1
                found.transitions += self._expand(at)
                if len(self._states) > states_max:
                    found.exhausted = False
                    break
            else:
                self._check_ends()
        except Broken as failed:
            found.violation = failed.violation
            found.trace = self._trace(failed.at if isinstance(failed, BrokenAt) else at)
        except AssertionError as failed:
            found.violation = Violation("production's own assertion", str(failed))
            found.trace = self._trace(at)
        found.states, found.seconds = len(self._states), time.process_time() - began
        judge = self.moves.judge
        found.arcs, found.commands, found.findings = judge.arcs, judge.commands, judge.findings
        return found

    def _expand(self, at: int) -> int:
        count, fair = 0, []
        for step in self.moves.after(self._states[at]):
            count += 1
            number = self._numbers.get(step.state)
            if number is None:
                number = self._reach(step.state, at)
            if step.fair:
                fair.append(number)
        self._fair.append(tuple(fair))
        return count

    def _reach(self, state: Bare, parent: int) -> int:
        number = self._numbers[state] = len(self._states)
        self._states.append(state)
        self._parents.append(parent)
        self._ends.append(self._judge(state, number))
        return number

    def _judge(self, state: Bare, number: int) -> bool:
        """Whether the state ends the plan or calls a person; raises where it breaks a rule."""
        plan = self._aspects.get(state[0])
        if plan is None:
            plan = self._aspects[state[0]] = aspect(self.moves.plan(state))
        legs: list[Trace] = []
        informed = True
        for place, local in enumerate(state[6:]):
            known = self._traces.get((place, local))
            if known is None:
                known = self._traces[place, local] = self._trace_of(place, local)
            trace, revision = known
            legs.append(trace)
            informed = informed and not _hidden(trace) and self.moves.stack.plans[state[0]].legs[place].revision >= revision
        tampered = self._tampered(state)
        key = (plan, tuple(legs), informed, tampered)
        violations = self._judged.get(key)
        if violations is None:
            # A coordinator that was taken over can do harm; what the participants themselves must not do is judged at each answer.
            hostile = Fault.HOSTILE in self._config.faults
            found = () if hostile else tuple(broken(plan, key[1], informed=informed, tampered=tampered))
            violations = self._judged[key] = found
        if violations:
            raise BrokenAt(violations[0], number)
        held = any(each.outside is Outside.HELD and each.settling for each in legs)
        return plan.escalated or (plan.state is State.CLOSED and (not held or plan.outcome is PlanOutcome.MIXED))

    def _trace_of(self, place: int, local: int) -> tuple[Trace, int]:
        shape = self._config.legs[place]
        site = self.moves.stack.sites[self.moves.locals[local].site]
        phase = None if site.record is None else site.record.fence.phase
        revision = 0 if site.record is None else site.record.fence.revision
        return Trace(shape.leg_id, shape.kind.settling, phase, site.outside), revision

    def _tampered(self, state: Bare) -> bool:
        spoils = (Fault.BREAK, Fault.ROGUE, Fault.RETURN, Fault.LAPSE)
        return any(
            left < self._config.faults[kind]
            for kind, left in zip(self._config.faults, self.moves.faults[state[4]], strict=True)
            if kind in spoils
        )

    def _check_ends(self) -> None:
        """Both directions: every state can come to an end by fair moves."""
        if Fault.HOSTILE in self._config.faults:
            return
        ends = self._ends
        self._spread()
        for number, state in enumerate(self._states):
            # Whoever waits too long is called, sooner or later.
            if not ends[number] and self.moves.escalates(state):
                ends[number] = 1
        self._spread()
        stuck = ends.find(0)
        if stuck >= 0:
            plan = self.moves.plan(self._states[stuck])
            raise BrokenAt(Violation(LIVENESS, f"plan {plan.state}/{plan.decision}"), stuck)

    def _spread(self) -> None:
        ends, changed = self._ends, True
        while changed:
            changed = False
            for number in range(len(self._states) - 1, -1, -1):
                if not ends[number] and any(ends[each] for each in self._fair[number]):
                    ends[number] = changed = True

    def _trace(self, number: int) -> tuple[str, ...]:
        """How a state comes about, in words."""
        path = []
        while number >= 0:
            path.append(number)
            number = self._parents[number]
        path.reverse()
        words = []
        for before, after in pairwise(path):
            try:
                words.append(
                    next(each.label for each in self.moves.after(self._states[before]) if each.state == self._states[after])
                )
            except (Broken, StopIteration):
                words.append("…")
        return tuple(words)


def _hidden(trace: Trace) -> bool:
    """Whether the participant itself has not found out yet what is true outside."""
    if trace.outside is Outside.EXECUTED:
        return trace.phase not in (Phase.COMMITTED, Phase.REVERSING)
    return trace.outside is Outside.GONE and trace.phase in (Phase.PREPARED, Phase.COMMITTING, Phase.COMMITTED)


class BrokenAt(Broken):
    """A rule does not hold in a state."""

    def __init__(self, violation: Violation, at: int) -> None:
        super().__init__(*violation)
        self.at = at
