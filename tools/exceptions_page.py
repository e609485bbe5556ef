"""docs/exceptions.md: every code with its category, and what becomes of it, as the code routes it."""

from __future__ import annotations

from protocol_page import table

from coordinator.commands import REPEAT_FIRST, REPEAT_MAX, REPEAT_MIN
from coordinator.routing import AT_ONCE, ATTEMPTS_MAX, CATEGORIES, OVERTAKEN, Category, Route, route
from lockstep_kit.certificate import Decision

INTRODUCTION = """\
# Exceptions

This page is generated from `services/coordinator/src/coordinator/routing.py` (`make docs`). An exception is what a command, a check or
the journal meets that is no progress: it has a code and a category, and one pure function says what becomes of it, given what is
decided about the plan and how often it was met.

| route | what happens |
|---|---|
| RETRY | the command is sent again; an answer that is missing for too long calls a person by time (`UNKNOWN_TOO_OLD`) |
| ABORT | nothing was decided yet: the plan is given up, and every hold released |
| PARK | a person is called (an escalation); the command is sent again meanwhile |
| DEAD_LETTER | the command is given up, and a person is called at once; `lockstep dead-letters replay` sends it again |
"""


def page() -> str:
    """The page's text."""
    return f"{INTRODUCTION}\n{repeats()}\n{routes()}\n{codes()}"


def repeats() -> str:
    """How commands are repeated."""
    first, most, least = (int(each.total_seconds()) for each in (REPEAT_FIRST, REPEAT_MAX, REPEAT_MIN))
    return (
        "## Trying again\n\nAt one layer only, the coordinator's relay: neither gRPC channels nor participants repeat a command on their own. The pause is "
        f"drawn\nbetween {least} s and a limit that begins at {first} s, doubles, and ends at {most} s (capped exponential back-off, full jitter). "
        "A caller of\nthe coordinator may repeat its own request, which carries its id, while the answer is UNAVAILABLE.\n"
    )


def routes() -> str:
    """What becomes of each category."""
    rows = []
    for category in Category:
        for code, told in _cases(category):
            for attempts, often in _counts(category, code):
                cells = [_cell(category, code, decision, attempts) for decision in (None, *Decision)]
                rows.append((category.value, told, often, *cells))
    return "## Routes\n\n" + table(("category", "code", "met", "undecided", *(each.value for each in Decision)), rows)


def _cases(category: Category) -> list[tuple[str, str]]:
    if category is not Category.CONTROL:
        return [("", "any")]
    named = [(min(codes), ", ".join(sorted(codes))) for codes in (OVERTAKEN, AT_ONCE)]
    return [*named, ("", "any other")]


def _counts(category: Category, code: str) -> list[tuple[int, str]]:
    if category is Category.CONTROL and not code:
        return [(1, f"up to {ATTEMPTS_MAX - 1} times"), (ATTEMPTS_MAX, f"{ATTEMPTS_MAX} times and more")]
    return [(1, "always")]


def _cell(category: Category, code: str, decision: Decision | None, attempts: int) -> str:
    told: Route = route(category, code, decision, attempts)
    return told.value


def codes() -> str:
    """Every code, by category."""
    rows = [
        (category.value, ", ".join(sorted(code for code, found in CATEGORIES.items() if found is category)))
        for category in Category
    ]
    return "## Codes\n\ndocs/errors.md says what each means. A code that is not here counts as `control`.\n\n" + table(
        ("category", "codes"), rows
    )
