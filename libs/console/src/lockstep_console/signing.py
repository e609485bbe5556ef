"""What a person would sign: the very bytes, their digest, and the command that signs them with the person's own key and sends them.

The statements are those that the `lockstep` command makes, by its own functions; nonce and end are drawn here and given to the command, so that it signs
these bytes and no others. Nothing is signed here, and nothing is sent.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.commands.resolutions import Asked, EvidenceFile, check_shown, evidence_in, resolution_statement
from lockstep_client.commands.resolutions import lines as resolution_lines
from lockstep_client.commands.signatures import statement
from lockstep_client.convert import plan_from_pb
from lockstep_kit.canonical import time_text
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.registry import Registry
from lockstep_kit.resolutions import Verb
from lockstep_kit.statements import Gate, Verdict
from lockstep_kit.strict_yaml import parse

Document = dict[str, Any]
#: What stands in a command in place of the person's own key.
KEY: Final = "YOUR-KEY"
#: The file that the person puts the evidence into.
EVIDENCE_FILE: Final = "evidence.json"
#: As long as the command's own signatures.
RESOLUTION_VALID: Final = timedelta(hours=1)
EVIDENCE_CHARACTERS_MAX: Final = 6_000


def gate_to_sign(plan: settlement.Plan, gate: str, verdict: str, registry: Registry) -> Document:
    """The bytes of a gate's statement about the plan as it stands now.

    Raises:
        FieldInvalid: there is no such gate or verdict, or the coordinator shows legs that are not the plan's.
        Refused: there is nothing to sign yet, or what the coordinator shows does not hold.
    """
    require(gate in (Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE), "gate", "must be APPROVE, RELEASE or VALIDATE")
    require(verdict in tuple(Verdict), "verdict", "must be APPROVE or REJECT")
    wanted = statement(Gate(gate), Verdict(verdict), plan_from_pb(plan), registry, None)
    message = wanted.message()
    message.check()
    command = ["lockstep", "sign", wanted.view.header.plan_id, "--gate", gate.lower()]
    if wanted.verdict is Verdict.REJECT:
        command.append("--reject")
    return _shown(message.signed_bytes(), wanted.lines(), command, message.nonce, wanted.expires_at)


def resolution_to_sign(answer: operators.GetEscalationResponse, asked: Asked) -> Document:
    """The bytes of a resolution of an escalation; the coordinator decides whether the verb is allowed when it is brought.

    Raises:
        FieldInvalid: a field is missing or one too many, or the coordinator shows legs that are not the plan's.
        Refused: it shows another escalation or plan.
    """
    until = datetime.now(UTC) + RESOLUTION_VALID
    wanted = resolution_statement(asked, check_shown(answer, asked.escalation_id), until)
    command = ["lockstep", "escalations", "sign", asked.escalation_id, "--verb", asked.verb.value.lower()]
    if asked.leg_id:
        command += ["--leg", asked.leg_id]
    if asked.executed is not None:
        command.append("--executed" if asked.executed else "--not-executed")
    if asked.evidence is not None:
        command += ["--evidence", EVIDENCE_FILE]
    command += ["--detail", asked.detail]
    return _shown(wanted.signed_bytes(), resolution_lines(wanted), command, wanted.nonce, until)


def asked_for(escalation_id: str, verb: str, leg_id: str, executed: str, evidence: str, detail: str) -> Asked:
    """What a page's form asks for.

    Raises:
        FieldInvalid: a field breaks a rule.
    """
    require(verb in tuple(Verb), "verb", "must be RETRY, REVERSE, RESOLVE or FORGET")
    require(bool(detail.strip()), "detail", "must say why, in one sentence: it is journaled, and both operators sign the same")
    require(executed in ("", "yes", "no"), "executed", "must be yes, no or absent")
    require(len(evidence) <= EVIDENCE_CHARACTERS_MAX, "evidence", f"must have {EVIDENCE_CHARACTERS_MAX} characters at the most")
    try:
        shown = evidence_in(parse(evidence, EvidenceFile), "evidence") if evidence.strip() else None
    except FieldInvalid as error:
        raise FieldInvalid("evidence", f"{error.field} {error.rule}") from error
    return Asked(escalation_id, Verb(verb), leg_id, {"": None, "yes": True, "no": False}[executed], shown, detail)


def _shown(octets: bytes, lines: Sequence[str], command: Sequence[str], nonce: bytes, until: datetime) -> Document:
    exact = ["--valid", time_text(until), "--nonce", nonce.hex(), "--key", KEY]
    return {
        "lines": list(lines),
        "text": octets.decode(),
        "hex": octets.hex(),
        "base64": base64.b64encode(octets).decode(),
        "sha256": hashlib.sha256(octets).hexdigest(),
        "byte_count": len(octets),
        "until": time_text(until),
        "command": shlex.join([*command, *exact]),
        "key": KEY,
    }
