"""How far a run of migrations goes: before a release's code is there only to where the code of before can live; what that code still needs goes after it.

A migration is of the step `pre` unless its file says `STEP = "post"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import takewhile

from lockstep_kit.fields import require
from lockstep_kit.values import dataclass


class Step(StrEnum):
    """A part of an upgrade."""

    #: Before the first replica of the new release: code of the release before runs on.
    PRE = "pre"
    #: After the last replica of the old one.
    POST = "post"
    #: Both, where nothing runs.
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Migration:
    """One revision of a service's database."""

    #: Its name.
    revision: str
    #: PRE or POST.
    step: Step


def target(migrations: Sequence[Migration], current: str, step: Step) -> str:
    """The revision that a run goes to: `migrations` are all, oldest first, `current` is the database's, "" for an empty one.

    Raises:
        FieldInvalid: an earlier release's last step is still to be run, or the revision is none of these.
    """
    names = [each.revision for each in migrations]
    require(not current or current in names, "database", f"is at revision {current}, which this release does not know")
    pending = migrations[names.index(current) + 1 :] if current else migrations
    if step is not Step.PRE or not current or not pending:
        return names[-1]
    ready = [each.revision for each in takewhile(lambda each: each.step is Step.PRE, pending)]
    left = [each.revision for each in pending[len(ready) :] if each.step is Step.PRE]
    message = f"must be post first, with the release before: revision {left[0] if left else ''} comes after one that only its code may meet"
    require(not left, "step", message)
    return ready[-1] if ready else current
