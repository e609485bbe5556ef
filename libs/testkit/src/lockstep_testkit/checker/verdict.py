"""All invariants over one snapshot. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lockstep_testkit.checker.atomicity import check_atomicity
from lockstep_testkit.checker.conservation import check_conservation
from lockstep_testkit.checker.duties import check_duties
from lockstep_testkit.checker.effects import check_effects
from lockstep_testkit.checker.ending import check_ending
from lockstep_testkit.checker.evidence import Evidence, Violation
from lockstep_testkit.checker.fencing import check_fencing
from lockstep_testkit.checker.journalling import check_journal
from lockstep_testkit.checker.telling import check_telling

#: Invariant of DESIGN section 8 -> who judges it.
INVARIANTS: Final[Mapping[str, Callable[[Evidence], Iterator[Violation]]]] = {
    "I1": check_atomicity,
    "I2": check_conservation,
    "I3": check_effects,
    "I4": check_journal,
    "I5": check_ending,
    "I6": check_duties,
    "I7": check_fencing,
    "I8": check_telling,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of every invariant."""

    #: What does not hold.
    violations: tuple[Violation, ...]
    #: Plans by state and outcome, as "CLOSED/COMMITTED".
    plans: Mapping[str, int]

    @property
    def holds(self) -> bool:
        """Whether everything holds."""
        return not self.violations

    def text(self) -> str:
        """One line for each violation."""
        return "\n".join(f"{each.invariant} {each.plan_id} {each.leg_id}: {each.sentence}" for each in self.violations)


def judge(evidence: Evidence) -> Judgement:
    """Every invariant, judged over a snapshot."""
    found = tuple(violation for check in INVARIANTS.values() for violation in check(evidence))
    ends = Counter(f"{plan.state}/{plan.outcome}".rstrip("/") for plan in evidence.plans.values())
    return Judgement(found, dict(sorted(ends.items())))
