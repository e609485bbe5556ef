"""One configuration searched, or one seeded bug hunted: what a lane of the check does, and what a test does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.configurations import CONFIGS
from model.mutations import MUTATIONS
from model.search import Found, Search

BY_NAME: Final = {config.name: config for config in CONFIGS}
MUTANTS: Final = {mutation.name: mutation for mutation in MUTATIONS}
#: A bug that is not caught within so many states is not caught.
HUNTED_STATES_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of a seeded bug."""

    #: Its name.
    name: str
    #: The rule that it breaks.
    rule: str
    #: What the search found.
    found: Found

    @property
    def right(self) -> bool:
        """Whether it was caught by that rule."""
        return self.found.violation is not None and self.found.violation.rule == self.rule


def check(name: str) -> Found:
    """A configuration, searched to its end."""
    return Search(BY_NAME[name]).run()


def mutate(name: str) -> Caught:
    """A seeded bug, hunted in its configuration."""
    mutation = MUTANTS[name]
    with mutation.seeded():
        return Caught(name, mutation.rule, Search(BY_NAME[mutation.config]).run(HUNTED_STATES_MAX))
