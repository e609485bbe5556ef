"""A run before the new code goes no further than the code of before can live with."""

from __future__ import annotations

import pytest

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.migration_steps import Migration, Step, target


def migrations(steps: str) -> list[Migration]:
    """One for each letter: `+` may be met by the code of before, `-` not; named by their number."""
    return [Migration(str(number), Step.PRE if each == "+" else Step.POST) for number, each in enumerate(steps, 1)]


@pytest.mark.parametrize(
    ("steps", "current", "step", "to"),
    [
        ("++-", "", Step.PRE, "3"),
        ("++-", "", Step.ALL, "3"),
        ("+++", "1", Step.PRE, "3"),
        ("++-", "1", Step.PRE, "2"),
        ("++-", "2", Step.PRE, "2"),
        ("++-", "2", Step.POST, "3"),
        ("++-", "1", Step.ALL, "3"),
        ("++--", "1", Step.PRE, "2"),
        ("+-+", "2", Step.PRE, "3"),
        ("+-+", "1", Step.POST, "3"),
        ("++", "2", Step.PRE, "2"),
        ("++", "2", Step.POST, "2"),
    ],
)
def test_how_far_a_run_goes(steps: str, current: str, step: Step, to: str) -> None:
    """An empty database has no code of before; a step that has nothing to do stays where it is."""
    assert target(migrations(steps), current, step) == to


@pytest.mark.parametrize(("steps", "current"), [("+-+", "1"), ("++-+-", "1"), ("+--+", "2")])
def test_an_earlier_step_is_not_left_out(steps: str, current: str) -> None:
    """What only the release before may bring about is not brought about beside its code, nor passed over."""
    with pytest.raises(FieldInvalid, match="step must be post first"):
        target(migrations(steps), current, Step.PRE)


def test_a_newer_database_is_refused() -> None:
    """This release cannot know what its revision means."""
    with pytest.raises(FieldInvalid, match="database is at revision 9"):
        target(migrations("++"), "9", Step.ALL)
