"""Bugs that are put into the code on purpose: the simulation must notice each of them, or it would not notice such a bug if it were real.

A mutation replaces a piece of one function's text, or the twin of one statement, while it is entered. Text that is not there any more is an error, so that
a mutation cannot outlive the code that it is about.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from lockstep_testkit.simulation import schemas
from lockstep_testkit.simulation.memory import Handler


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug."""

    #: What is wrong with it.
    name: str
    #: Where: module, and the function or Class.function in it.
    module: str
    function: str
    #: The text that is replaced, and what takes its place.
    right: str
    wrong: str
    #: Seeds within which it is noticed.
    seeds: int


MUTATIONS: Final = (
    Mutation(
        "a leg that is prepared counts as one that nothing is held for",
        "coordinator.orders",
        "_held",
        "facts.barred(each) or",
        "facts.barred(each) or each.phase is Phase.PREPARED or",
        100,
    ),
    Mutation(
        "the journal waits for one entry too many",
        "event_journal.operations",
        "judge_closing",
        "head.entry_count + 1 < work.closing.journal_sequence",
        "head.entry_count < work.closing.journal_sequence",
        100,
    ),
    Mutation(
        "what was rolled back stays",
        "lockstep_testkit.simulation.memory",
        "Server.rollback",
        "self._end(tx)",
        "self.commit(tx)",
        100,
    ),
    Mutation(
        "several promises that lapse are commanded as one decision",
        "coordinator.facts",
        "soft_legs",
        "each.promise.soft)",
        "False)",
        400,
    ),
    Mutation(
        "a command counts as answered when it is sent",
        "lockstep_testkit.simulation.outboxes_statements",
        "sent",
        'attempts=row["attempts"] + 1,',
        'attempts=row["attempts"] + 1, answered=True,',
        100,
    ),
    Mutation(
        "a lease is taken under the epoch of its last holder",
        "lockstep_testkit.simulation.leases_statements",
        "acquire",
        'held["counter"] + 1',
        'held["counter"]',
        200,
    ),
    Mutation(
        "a lease that another holds is taken",
        "lockstep_testkit.simulation.leases_statements",
        "acquire",
        'not (held["owner"] == owner or free(held, s.now))',
        "False",
        200,
    ),
    Mutation(
        "one journal event more than was appended counts as appended",
        "coordinator.journal_relay",
        "JournalRelay._take",
        "done[event.plan_id] = event.event.sequence",
        "done[event.plan_id] = event.event.sequence + 1",
        100,
    ),
    Mutation(
        "what the chain did is believed before it is final",
        "lockstep_testkit.simulation.parties",
        "ChainOperations.look",
        "self._chain.final.status(leg)",
        "self._chain.head.status(leg)",
        400,
    ),
    Mutation(
        "a payment whose answer got lost counts as refused",
        "lockstep_testkit.simulation.parties",
        "BankOperations.look",
        "standing = Standing(self.outside(asked))",
        "standing = Standing.REJECTED if self.chance.random() < self.trouble.lost else Standing(self.outside(asked))",
        100,
    ),
    Mutation(
        "an older report is believed",
        "coordinator.reports",
        "admit",
        "report.revision <= known.revision",
        "False",
        400,
    ),
    Mutation(
        "the deadline still counts after the decision",
        "coordinator.facts",
        "cause",
        "return _executing(plan)",
        "return Cause.CONTRADICTION if now > plan.deadline else _executing(plan)",
        200,
    ),
)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """The bug is in the code inside.

    Raises:
        ValueError: the code is not what the mutation thinks.
    """
    module = importlib.import_module(mutation.module)
    owner, _, name = mutation.function.rpartition(".")
    holder: Any = getattr(module, owner) if owner else module
    before = getattr(holder, name)
    after = _changed(module, before, mutation)
    undo = _everywhere(before, after)
    setattr(holder, name, after)
    try:
        yield
    finally:
        setattr(holder, name, before)
        undo()


def _changed(module: Any, function: Callable[..., Any], mutation: Mutation) -> Callable[..., Any]:
    source = textwrap.dedent(inspect.getsource(function))
    # Without what registers it: that stays as it was.
    source = source[re.search(r"^(async )?def ", source, re.MULTILINE).start() :]  # type: ignore[union-attr]
    right, wrong = mutation.right, mutation.wrong
    if right not in source:
        raise ValueError(f"{mutation.name}: {mutation.module}.{mutation.function} holds no {right!r}")
    changed = source.replace(right, wrong, 1)
    names: dict[str, Any] = {}
    exec(compile(changed, f"<{mutation.name}>", "exec"), module.__dict__, names)  # noqa: S102 - our own code, with a bug in it
    found: Callable[..., Any] = names[function.__name__]
    return found


def _everywhere(before: Callable[..., Any], after: Callable[..., Any]) -> Callable[[], None]:
    """Other modules that imported the function, and the schemas that hold it as a twin, get the other one too."""
    places: list[tuple[Any, str]] = [
        (module, name)
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith(("coordinator", "lockstep_", "event_journal"))
        for name, value in list(vars(module).items())
        if value is before
    ]
    for module, name in places:
        setattr(module, name, after)
    twins: list[tuple[dict[str, Handler], str]] = [
        (statements, text) for statements in schemas.all_statements() for text, handler in statements.items() if handler is before
    ]
    for statements, text in twins:
        statements[text] = after

    def undo() -> None:
        for module, name in places:
            setattr(module, name, before)
        for statements, text in twins:
            statements[text] = before

    return undo
