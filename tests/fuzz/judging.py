"""What may come of a call, and what may not. Pure: answers in, findings out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fuzz.callers import Caller
from fuzz.calling import Answer
from fuzz.surface import Method
from lockstep_kit.rpc.limits import Excess

DENIED: Final = "CALLER_NOT_ALLOWED"
#: Who calls too much is told so before it is known whether it may call.
FULL: Final = frozenset(Excess)
#: Errors in a log that forged statements of a lying coordinator have to lead to.
ALARMS: Final = ("escalation_conflict",)
#: What gRPC itself says before any handler is asked, without a reason: a message or metadata that is too large, too many calls, a deadline.
TRANSPORT: Final = frozenset({"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"})
#: What a caller hears that gets no connection.
UNCONNECTED: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
#: Health is gRPC's own service, and answers without reasons.
HEALTH: Final = frozenset({"NOT_FOUND", "UNIMPLEMENTED", "OK", *TRANSPORT})
_ROW: Final = re.compile(r"^\| ([A-Z][A-Z0-9_]+(?:, [A-Z][A-Z0-9_]+)*) \| ([^|]*) \|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reasons:
    """What docs/errors.md lists."""

    #: Reason of a call -> its code.
    codes: Mapping[str, str]
    #: Every reason of the page.
    known: frozenset[str]

    @classmethod
    def read(cls, page: Path) -> Reasons:
        """From the page."""
        text = page.read_text()
        calls = text.split("\n## Calls\n")[1].split("\n## ")[0]
        codes = {name.strip(): code.strip() for names, code in _ROW.findall(calls) for name in names.split(",")}
        return cls(codes, frozenset(name.strip() for names, _ in _ROW.findall(text) for name in names.split(",")))


@dataclass
class Judge:
    """Judges answers one after another, and remembers who was denied how."""

    #: What the services may answer with.
    reasons: Reasons
    #: (caller, server, method) -> whether it was denied.
    standing: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    #: How the first denial looked, and whose it was: all look so, whoever is denied what.
    denial: tuple[Answer, str] | None = None

    def findings(self, caller: Caller, method: Method, answer: Answer) -> Iterator[str]:
        """What is wrong with an answer."""
        if not caller.connects:
            if answer.code not in UNCONNECTED or answer.status or answer.messages:
                yield f"a caller without a certificate of the authority was answered: {answer.code}"
            return
        reason = reason_of(answer)
        yield from self._of_access(caller, method, answer, reason)
        if answer.code in ("INTERNAL", "UNKNOWN", "DATA_LOSS"):
            yield f"{answer.code} {reason}: {answer.text}"
        elif method.service == "grpc.health.v1.Health":
            if answer.code not in HEALTH and not reason:
                yield f"health answered {answer.code}"
        elif answer.code != "OK" and not reason and answer.code not in TRANSPORT:
            yield f"{answer.code} without a reason: {answer.text}"
        elif reason:
            yield from self._of_reason(answer, reason)

    def _of_access(self, caller: Caller, method: Method, answer: Answer, reason: str) -> Iterator[str]:
        denied = reason == DENIED
        allowed = bool(caller.name) and method.may_be_called_by(caller.name)
        if (answer.code in TRANSPORT and not reason) or reason in FULL:
            return
        if not denied and not allowed:
            yield f"a caller that may not call was answered otherwise than by {DENIED}: {answer.code} {reason}"
        key = caller.label, method.server, method.path
        if self.standing.setdefault(key, denied) != denied:
            yield f"a caller was {'denied' if denied else 'let in'}, and was {'let in' if denied else 'denied'} with another request"
        if denied:
            self.denial = self.denial or (answer, f"{caller.label} {method.path}")
            if self.denial[0] != answer:
                yield f"a denial tells something: {self.denial[1]} was denied in other words"

    def _of_reason(self, answer: Answer, reason: str) -> Iterator[str]:
        if reason not in self.reasons.known:
            yield f"the reason {reason} is not in docs/errors.md"
        expected = self.reasons.codes.get(reason)
        if expected is not None and expected != answer.code:
            yield f"{reason} came with {answer.code}, and docs/errors.md says {expected}"
        status = status_pb2.Status.FromString(answer.status)
        if code_pb2.Code.Name(status.code) != answer.code:
            yield f"the status in the trailer says {code_pb2.Code.Name(status.code)}, the call {answer.code}"


def reason_of(answer: Answer) -> str:
    """The reason of a refusal; "" without one, or with more than one."""
    try:
        status = status_pb2.Status.FromString(answer.status)
    except DecodeError:
        return ""
    found = []
    for each in status.details:
        info = error_details_pb2.ErrorInfo()
        if each.Unpack(info):
            found.append(info)
    return found[0].reason if len(found) == 1 and found[0].domain == "lockstep" else ""


def log_findings(name: str, text: str) -> Iterator[str]:
    """What a service's log must not hold: an error, or a traceback."""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            if "Traceback" in line or "Exception" in line or "Fatal" in line:
                yield f"{name} wrote: {line[:300]}"
        elif entry.get("event") in ALARMS:
            continue
        elif entry.get("level") in ("error", "critical") or "Traceback" in str(entry.get("exception", "")):
            yield f"{name} logged: {line[-1_500:]}"
