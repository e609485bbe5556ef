"""Spans: one settlement, one trace, across services, restarts and waits.

A row that causes later work keeps the W3C trace context of whoever caused it (`cause_traceparent`), and the work goes on in that trace (`span`, `plan_spans`).
Nothing stays open while something is waited for: what waits is a row, and what comes of it is another span of the same trace. A span of a trace that is
not recorded costs next to nothing, unless it fails unexpectedly: then it is recorded after all.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Final, TypeAlias, TypeVar

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

Attributes: TypeAlias = Mapping[str, str | int | bool | Sequence[str]]
_PlanId = TypeVar("_PlanId", bound=str)
_T = TypeVar("_T")

PLAN_ID: Final = "lockstep.plan_id"
PLAN_IDS: Final = "lockstep.plan_ids"
LEG_ID: Final = "lockstep.leg_id"
#: Attribute of spans that are recorded whatever becomes of their trace.
ALWAYS: Final = "lockstep.always"

_TRACER: Final = trace.get_tracer("lockstep")
#: W3C Trace Context, section 3.2; later versions may append to it.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_NO_PLANS: Final[Attributes] = {}
_NOTHING: Final = contextlib.nullcontext()

#: Plans that the work is about: every span inside tells them.
_plans_told: ContextVar[Attributes] = ContextVar("plans_told")
#: Span of the call that is being served.
_served: ContextVar[Span] = ContextVar("served")
#: Trace context that the call came with.
_caller: ContextVar[str | None] = ContextVar("caller")


# -- Trace contexts ------------------------------------------------------------------------------------------------------


def traceparent_of(context: SpanContext) -> str | None:
    """W3C trace context of a span; None of one that is in no trace."""
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@functools.lru_cache(maxsize=8_192)
def context_of(traceparent: str | None) -> SpanContext:
    """The span that a trace context names; an invalid one where there is none, or it is malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or (found[1] == "00" and found[5]):
        return trace.INVALID_SPAN_CONTEXT
    flags = TraceFlags(int(found[4], 16) & TraceFlags.SAMPLED)
    return SpanContext(int(found[2], 16), int(found[3], 16), is_remote=True, trace_flags=flags)


def current_traceparent() -> str | None:
    """W3C trace context of the work that is going on; None where there is none."""
    return traceparent_of(_current())


def cause_traceparent() -> str | None:
    """W3C trace context to keep in a row that causes later work: the caller's where the call came with one.

    The caller's span is in another process, and is told there also when this one is killed before it has told anybody of its own.
    """
    current, caller = current_traceparent(), _caller.get(None)
    return caller if caller is not None and trace_id_of(caller) == trace_id_of(current) else current


def trace_id_of(traceparent: str | None) -> str:
    """Trace id (32 hex digits) in a trace context, or ""."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""


def is_recording() -> bool:
    """Whether spans of the work that is going on are recorded."""
    return trace.get_current_span().is_recording()


def _current() -> SpanContext:
    return trace.get_current_span().get_span_context()


# -- Spans ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def span(
    name: str,
    *,
    traceparent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
    links: Sequence[SpanContext] = (),
    always: bool = False,
) -> Iterator[Span]:
    """A span of the current trace, or of the one whose context was kept in a row. Log lines written inside carry the plan of its attributes.

    It is recorded if its trace is; `always`: whatever becomes of the trace.
    """
    own = attributes or {}
    told = own if PLAN_ID in own or PLAN_IDS in own else {**_plans_told.get(_NO_PLANS), **own}
    stored = context_of(traceparent)
    parent = stored if stored.is_valid else _current()
    with _telling(told):
        if parent.is_valid and not parent.trace_flags.sampled and not always:
            with _unrecorded(name, parent, kind, told) as current:
                yield current
            return
        with _TRACER.start_as_current_span(
            name,
            context=_below(parent) if stored.is_valid else None,
            kind=kind,
            attributes={**told, ALWAYS: True} if always else told,
            links=[Link(each) for each in links if each.is_valid],
            # What a call that was served ended with is said by its status.
            record_exception=kind is not SpanKind.SERVER,
            set_status_on_exception=kind is not SpanKind.SERVER,
        ) as current:
            yield current


@contextlib.contextmanager
def detail(name: str, kind: SpanKind, attributes: Attributes) -> Iterator[Span | None]:
    """A span of work that is worth telling only as part of other work: where no recorded span is current, there is none."""
    if not is_recording():
        yield None
        return
    with span(name, kind=kind, attributes=attributes) as current:
        yield current


def event(name: str, attributes: Attributes) -> None:
    """Something that happened, told by the current span."""
    current = trace.get_current_span()
    if current.is_recording():
        current.add_event(name, attributes)


@contextlib.contextmanager
def plan_spans(
    name: str,
    traceparents: Mapping[_PlanId, str | None],
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
) -> Iterator[dict[_PlanId, str | None]]:
    """A span in the trace of each plan (plan id -> trace context), for work that is done for all of them at once.

    The first one, which is recorded if any is, tells of all plans and is the current one; the others link to it. Work that somebody in another trace asked
    for links to that. Yields each plan's trace context inside, for what the work causes.
    """
    # Of several traces the current one leads, or one that is recorded: what is below it is seen then.
    asking, of = _current(), {plan_id: context_of(each) for plan_id, each in traceparents.items()}
    ordered = list(of)
    if len(of) > 1:
        ordered.sort(
            key=lambda each: (not of[each].is_valid, of[each].trace_id != asking.trace_id, not of[each].trace_flags.sampled, each)
        )
    if not ordered:
        yield {}
        return
    first = of[ordered[0]]
    here = asking.is_valid and first.trace_id in (asking.trace_id, trace.INVALID_TRACE_ID)
    with contextlib.ExitStack() as stack:
        lead = stack.enter_context(
            span(
                name,
                traceparent=None if here else traceparents[ordered[0]],
                kind=kind,
                attributes={**(attributes or {}), **plans_told(ordered)},
                links=() if here else (asking,),
            )
        ).get_span_context()
        beside: dict[int, SpanContext] = {first.trace_id: lead, lead.trace_id: lead, trace.INVALID_TRACE_ID: lead}
        for plan_id in ordered[1:]:
            theirs = of[plan_id]
            if not theirs.trace_flags.sampled:
                # What is not recorded goes on as it came.
                beside.setdefault(theirs.trace_id, theirs)
            elif theirs.trace_id not in beside:
                told = {**(attributes or {}), PLAN_ID: plan_id}
                beside[theirs.trace_id] = stack.enter_context(_beside(name, theirs, kind, told, lead))
        yield {each: traceparent_of(beside[of[each].trace_id]) for each in ordered}


@contextlib.contextmanager
def _beside(name: str, parent: SpanContext, kind: SpanKind, told: Attributes, lead: SpanContext) -> Iterator[SpanContext]:
    """A span of another trace than the current one, beside it."""
    begun = _TRACER.start_span(name, context=_below(parent), kind=kind, attributes=told, links=[Link(lead)])
    try:
        yield begun.get_span_context()
    except BaseException as error:
        begun.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        begun.end()


@contextlib.contextmanager
def _unrecorded(name: str, parent: SpanContext, kind: SpanKind, told: Attributes) -> Iterator[Span]:
    """Work of a trace that is not recorded: what it causes belongs to the trace all the same."""
    begun, current = time.time_ns(), NonRecordingSpan(parent)
    token = contexts.attach(trace.set_span_in_context(current))
    try:
        yield current
    except Exception as error:
        _record_failure(name, current, kind, told, begun, error)
        raise
    finally:
        contexts.detach(token)


def _record_failure(name: str, parent: Span, kind: SpanKind, told: Attributes, begun: int, error: Exception) -> None:
    """Record afterwards what failed, unless it was refused: a refusal is an answer, and anybody can have as many as they like."""
    from lockstep_kit.errors import LockstepError
    from lockstep_kit.fields import FieldInvalid

    if kind is SpanKind.SERVER or isinstance(error, (LockstepError, FieldInvalid)):
        return
    context = trace.set_span_in_context(parent)
    late = _TRACER.start_span(name, context=context, kind=kind, attributes={**told, ALWAYS: True}, start_time=begun)
    late.record_exception(error)
    late.set_status(Status(StatusCode.ERROR, type(error).__name__))
    late.end()


def _below(parent: SpanContext) -> contexts.Context:
    return trace.set_span_in_context(NonRecordingSpan(parent))


# -- Plans ---------------------------------------------------------------------------------------------------------------


def telling(plan_ids: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """Spans and log lines inside, and the call that is being served, say that they are about these plans."""
    return _telling(plans_told(plan_ids)) if plan_ids else _NOTHING


def plans_told(plan_ids: Sequence[str]) -> Attributes:
    """Attribute that says which plans a span is about."""
    return {PLAN_ID: plan_ids[0]} if len(plan_ids) == 1 else {PLAN_IDS: list(plan_ids)}


def apart() -> None:
    """What the current task does from here on belongs to no trace and tells no plans but those that it names: it is done for many callers at once."""
    contexts.attach(contexts.Context())
    _plans_told.set(_NO_PLANS)
    _served.set(trace.INVALID_SPAN)
    _caller.set(None)
    structlog.contextvars.clear_contextvars()


@contextlib.contextmanager
def _telling(told: Attributes) -> Iterator[None]:
    """Log lines and spans inside, and the call that is being served, tell the plans."""
    plans = {name: told[name] for name in (PLAN_ID, PLAN_IDS) if name in told}
    if not plans or plans == _plans_told.get(_NO_PLANS):
        yield
        return
    served = _served.get(None)
    if served is not None and served.is_recording():
        served.set_attributes(plans)
    named = [plans[PLAN_ID]] if PLAN_ID in plans else plans[PLAN_IDS]
    bound = structlog.contextvars.bound_contextvars(plan_id=named[0]) if isinstance(named, list) and len(named) == 1 else _NOTHING
    token = _plans_told.set(plans)
    try:
        with bound:
            yield
    finally:
        _taken_back(_plans_told, token)


def _taken_back(variable: ContextVar[_T], token: Token[_T]) -> bool:
    """Give a variable back its value of before. False where that is another context's: what is ended from outside, as by a crash, ends in another one."""
    try:
        variable.reset(token)
    except ValueError:
        return False
    return True


# -- Calls ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(name: str, traceparent: str | None, attributes: Attributes) -> Iterator[Span]:
    """The span of a call that is being served, in its caller's trace, or in one of its own. What is done inside says which plans it is about."""
    parent = context_of(traceparent)
    told = traceparent_of(parent)
    here = contexts.Context() if told is None else _below(parent)
    before = contexts.attach(here)
    caller = _caller.set(told or _caller.get(None))
    try:
        with span(name, kind=SpanKind.SERVER, attributes=attributes) as current:
            served = _served.set(current)
            try:
                yield current
            finally:
                _taken_back(_served, served)
    finally:
        if _taken_back(_caller, caller):
            contexts.detach(before)
