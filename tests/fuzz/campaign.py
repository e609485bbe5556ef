"""A fuzzing campaign: batches of calls, each made, judged, and its effects looked for."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from fuzz import calling, mutating
from fuzz.callers import Caller
from fuzz.corpus import Corpus
from fuzz.effects import World, carried, differences, settled
from fuzz.judging import Judge, reason_of
from fuzz.surface import Method
from lockstep.participant.v1 import leg_pb2

#: Calls under way at one time.
AT_ONCE: Final = 24
#: Calls whose effects are looked for together.
BATCH: Final = 1_000
#: Share of calls by somebody who may make them.
ALLOWED: Final = 0.6
#: Share of batches in which nobody may do what he tries: after those nothing whatever may have changed.
STRICT: Final = 0.25
FINDINGS_MAX: Final = 200
#: What a call is refused with before any handler sees it: by who calls, by its deadline, or, where much is called, by the limits.
BEFORE_HANDLERS: Final = frozenset(
    (
        "CALLER_NOT_ALLOWED",
        "DEADLINE_REQUIRED",
        "DEADLINE_TOO_CLOSE",
        "CALLS_TOO_FAST",
        "CALLS_TOO_MANY",
        "WATCHERS_TOO_FAST",
        "SHARE_TAKEN",
    )
)
#: Anybody with a certificate may watch whether a server is well, for as long as he likes.
HEALTH_WATCH: Final = "/grpc.health.v1.Health/Watch"


@dataclass(frozen=True, slots=True)
class Planned:
    """A call that is to be made."""

    #: Its number in its seed.
    number: int
    #: Who calls.
    caller: Caller
    #: What.
    method: Method
    #: With which request.
    request: mutating.Request
    #: And how.
    manner: calling.Manner


@dataclass
class Campaign:
    """Calls from one seed."""

    #: What decides.
    seed: int
    #: What can be called.
    methods: Sequence[Method]
    #: By whom.
    callers: Sequence[Caller]
    #: Over these channels, by caller and server.
    channels: Mapping[tuple[str, str], grpc.aio.Channel]
    #: What requests are made from.
    corpus: Corpus
    #: Who judges answers.
    judge: Judge
    #: What may have been changed.
    world: World
    #: What became of the processes, and what they have logged since the last time, as findings.
    health: Callable[[], Sequence[str]]
    #: Calls whose effects are looked for together.
    batch: int = BATCH
    #: What was found, each with what is needed to see it again.
    findings: list[str] = field(default_factory=list)
    #: Calls made.
    calls: int = 0
    #: Answers by code and reason.
    answers: Counter[str] = field(default_factory=Counter)
    #: Calls that reached a handler, by method.
    reached: Counter[str] = field(default_factory=Counter)
    #: Calls that were accepted though they can change something, by method.
    accepted: Counter[str] = field(default_factory=Counter)
    #: What became of commands to participants, by verdict and reason.
    commands: Counter[str] = field(default_factory=Counter)
    #: (caller, server, method) that was tried.
    tried: set[tuple[str, str, str]] = field(default_factory=set)
    #: Seconds and calls of batches in which everything was refused, and of the others.
    spent: dict[bool, list[float]] = field(default_factory=lambda: {True: [0.0, 0], False: [0.0, 0]})
    #: What accepted calls of this batch, and of any, are about.
    _about: set[str] = field(default_factory=set)
    _ever: set[str] = field(default_factory=set)

    async def run(self, calls: int, seconds_max: float = float("inf")) -> None:
        """Make so many calls, or stop earlier when the time is over; findings are in `findings`."""
        ends = time.monotonic() + seconds_max
        number = 0
        while number < calls and time.monotonic() < ends and len(self.findings) < FINDINGS_MAX:
            count = min(self.batch, calls - number)
            strict = random.Random(f"{self.seed}/batch/{number}").random() < STRICT
            before, money = await settled(self.world), await self.world.money()
            self._about.clear()
            began = time.monotonic()
            await self._make([self.planned(number + each, strict=strict) for each in range(count)])
            self.spent[strict][0] += time.monotonic() - began
            self.spent[strict][1] += count
            number += count
            after = await self.world.state()
            self._ever |= self._about
            carriers = carried(after, self._ever)
            where = f"seed {self.seed}, calls {number - count} to {number - 1}{', all of them forbidden' if strict else ''}"
            self.findings += [f"{where}: {each}" for each in differences(before, after, self._about, carriers)]
            self.findings += [f"{where}: money: {each}" for each in differences(money, await self.world.money())]
            self.findings += [f"{where}: {each}" for each in self.health()]

    def planned(self, number: int, *, strict: bool) -> Planned:
        """The call of a number: the same for the same seed and corpus."""
        rng = random.Random(f"{self.seed}/{number}")
        method = self.methods[rng.randrange(len(self.methods))]
        may = [each for each in self.callers if each.name and method.may_be_called_by(each.name)]
        may_not = [each for each in self.callers if each not in may]
        chosen = may if may and not (strict and may_not) and rng.random() < ALLOWED else may_not or may
        # Who does not even get a connection is tried, and not as often as who does.
        weights = [1.0 if each.connects else 0.15 for each in chosen]
        caller = rng.choices(chosen, weights)[0]
        request = mutating.make(rng, method.request, self.corpus)
        return Planned(
            number, caller, method, request, calling.manner(rng, streams=method.streams, endless=method.path == HEALTH_WATCH)
        )

    async def _make(self, planned: list[Planned]) -> None:
        waiting = iter(planned)

        async def work() -> None:
            for each in waiting:
                await self._one(each)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

    async def _one(self, planned: Planned) -> None:
        self.calls += 1
        caller, method = planned.caller, planned.method
        self.tried.add((caller.label, method.server, method.path))
        channel = self.channels[caller.label, method.server]
        try:
            answer = await calling.call(channel, method.path, planned.request.octets, planned.manner, streams=method.streams)
        except TimeoutError:
            self._found(planned, "no answer came", None)
            return
        reason = reason_of(answer)
        self.answers[f"{answer.code} {reason}".rstrip()] += 1
        for finding in self.judge.findings(caller, method, answer):
            self._found(planned, finding, answer)
        if answer.code == "OK" or (reason and reason not in BEFORE_HANDLERS):
            self.reached[f"{method.server} {method.path}"] += 1
        for each in commanded(method, answer):
            verdict = leg_pb2.CommandVerdict.Name(each.verdict).removeprefix("COMMAND_VERDICT_")
            self.commands[f"{verdict} {each.rejection.reason}".rstrip()] += 1
            if each.rejection.reason and each.rejection.reason not in self.judge.reasons.known:
                self._found(planned, f"the reason {each.rejection.reason} is not in docs/errors.md", answer)
        if method.writes and may_have_effect(method, planned.request.octets, answer):
            self.accepted[method.path] += 1
            self._about |= named(GetMessageClass(method.request), planned.request.octets)

    def _found(self, planned: Planned, finding: str, answer: calling.Answer | None) -> None:
        if len(self.findings) < FINDINGS_MAX:
            sent = planned.request.octets
            shown = sent.hex() if len(sent) <= 2_000 else f"{sent[:200].hex()}... ({len(sent)} bytes)"
            self.findings.append(
                f"seed {self.seed}, call {planned.number}: {planned.caller.label} {planned.method.path} at {planned.method.server}: {finding}"
                f" [{'; '.join(planned.request.story)}; {planned.manner}; answer {answer.code if answer else None}; request {shown}]"
            )

    def document(self) -> dict[str, Any]:
        """The result, for programs."""
        refused, others = self.spent[True], self.spent[False]
        return {
            "seed": self.seed,
            "calls_total": self.calls,
            "methods_total": len({(each.server, each.path) for each in self.methods}),
            "methods_reached": len(self.reached),
            "callers_total": len(self.callers),
            "pairs_tried": len(self.tried),
            "violations": len(self.findings),
            "calls_per_second_forbidden": round(refused[1] / refused[0], 1) if refused[0] else None,
            "calls_per_second_mixed": round(others[1] / others[0], 1) if others[0] else None,
            "accepted": dict(sorted(self.accepted.items())),
            "commands": dict(self.commands.most_common()),
            "answers": dict(self.answers.most_common()),
        }


def may_have_effect(method: Method, octets: bytes, answer: calling.Answer) -> bool:
    """Whether a call can have changed something: it was accepted, or the caller did not hear what became of it."""
    if answer.refused and answer.code != "DEADLINE_EXCEEDED":
        return False
    if method.path.endswith("/GetLeg"):
        return answer.code != "OK" or _parsed(method.request, octets).HasField("raise_to")
    answers = commanded(method, answer)
    return not answers or any(each.verdict != leg_pb2.COMMAND_VERDICT_REJECTED for each in answers)


def commanded(method: Method, answer: calling.Answer) -> Sequence[leg_pb2.CommandAnswer]:
    """What became of each command of a batch; empty where there was none."""
    if answer.code != "OK" or method.streams or "answers" not in method.response.fields_by_name:
        return ()
    found = _parsed(method.response, answer.messages[0]).answers
    return [each for each in found if isinstance(each, leg_pb2.CommandAnswer)]


def _parsed(described: Any, octets: bytes) -> Any:
    message = GetMessageClass(described)()
    try:
        message.ParseFromString(octets)
    except DecodeError:
        message.Clear()
    return message


def named(kind: type[Message], octets: bytes) -> set[str]:
    """The plans and other things that a request names: every text in it under a name that ends in _id."""
    message = kind()
    try:
        message.ParseFromString(octets)
    except DecodeError:
        return set()
    return set(_names(message))


def _names(message: Message) -> list[str]:
    found = []
    for described, value in message.ListFields():
        several = value if described.is_repeated else (value,)
        if described.message_type is not None and not described.message_type.GetOptions().map_entry:
            found += [name for each in several for name in _names(each)]
        elif described.type == described.TYPE_STRING and described.name in (
            "plan_id",
            "request_id",
            "escalation_id",
            "dead_letter_id",
        ):
            found += [each for each in several if len(each) >= 8]
    return found
