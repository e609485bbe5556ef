"""docs/journal.md: the journal's event types, and what the payload of each holds, as the table that journal and coordinator run has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protocol_page import table

from lockstep_kit.document_forms import Form, Several, Shape, Tagged
from lockstep_kit.journal_payloads import PAYLOADS, VERSION

INTRODUCTION = f"""\
# The journal's events

This page is generated from the table that the journal checks by and the coordinator writes by (`make docs`):
`libs/kit/src/lockstep_kit/journal_payloads.py`. There are these {len(PAYLOADS)} event types and no others.

A payload is an RFC 8785 object of at most 65,536 bytes. It names its version, which is {VERSION}, and holds the fields of its type and no others: a
field that is missing, too many, or of another form is refused with its path and the rule, as INVALID for that event alone. Times are RFC 3339 in UTC with
six decimals. Entries of before payloads had versions name none, hold the same otherwise, and are read as they are.
"""

MEANINGS: Mapping[str, str] = {
    "plan.created": "the plan was accepted, with its maker's signature",
    "plan.initiated": "its execution was asked for; its checks began",
    "plan.ready": "its checks passed; the participants are asked to prepare",
    "leg.prepared": "a participant voted YES",
    "leg.refused": "a participant voted NO, or refused for good what it was told to execute",
    "plan.approved": "every participant voted YES and the approver signed",
    "plan.released": "the releaser signed, and with that it was decided",
    "leg.executed": "a leg took effect; with the last one the plan goes to validation",
    "evidence.validated": "the validator signed, for or against",
    "plan.committed": "every leg took effect and the evidence was accepted",
    "plan.aborted": "nothing of the plan takes effect any more",
    "exception.raised": "a person was called",
    "exception.resolved": "what operators, or the signed policy, decided took effect",
    "leg.reversed": "what a leg had done is undone",
    "plan.closed": "the seal, written by the journal itself: the plan's end, and the chain before it",
}


def page() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, "## Event types\n", _types(), "## Objects\n", *_objects()])


def _types() -> str:
    rows = [
        (
            f"`{name}`",
            MEANINGS[name],
            ", ".join([f"`{each}`" for each in shape.required] + [f"`{each}`?" for each in shape.optional]),
        )
        for name, shape in PAYLOADS.items()
    ]
    return table(("type", "when", "payload (? where it may be absent)"), rows)


def _objects() -> Iterator[str]:
    met: set[str] = set()
    # The fields that are not objects, as all types have them; then each object once, in the order in which types use them.
    plain = {name: form for shape in PAYLOADS.values() for name, form in _fields(shape).items() if not tuple(_inner(form))}
    yield "Fields of payloads that are not objects:\n"
    yield table(("field", "rule"), [(f"`{name}`", _rule(form)) for name, form in plain.items()])
    for event_type, shape in PAYLOADS.items():
        for name, form in _fields(shape).items():
            for inner in _inner(form):
                yield from _object(f"`{name}` of `{event_type}`", inner, met)


def _object(where: str, shape: Shape, met: set[str]) -> Iterator[str]:
    if shape.name in met:
        return
    met.add(shape.name)
    yield f"### {shape.name}\n"
    yield f"First met as {where}.\n"
    yield table(
        ("field", "", "rule"),
        [(f"`{name}`", "" if name in shape.required else "may be absent", _rule(form)) for name, form in _fields(shape).items()],
    )
    for name, form in _fields(shape).items():
        for inner in _inner(form):
            yield from _object(f"`{name}` of {shape.name}", inner, met)


def _fields(shape: Shape) -> dict[str, Form]:
    return {**shape.required, **shape.optional}


def _inner(form: Form) -> Iterator[Shape]:
    match form:
        case Shape():
            yield form
        case Tagged():
            yield from form.shapes.values()
        case Several():
            yield from _inner(form.of)
        case _:
            pass


def _rule(form: Form) -> str:
    return f"{form.rule}, each of which {_rule(form.of)}" if isinstance(form, Several) else form.rule
