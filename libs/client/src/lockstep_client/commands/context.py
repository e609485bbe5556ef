"""What every subcommand shares: options, output for people and for programs, errors in one line, exit codes.

Exit codes: 0 done; 1 refused, or the plan did not settle; 2 bad usage or bad input, nothing was sent; 3 something could not be reached, nothing is known.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lockstep_client.configuration import ClientConfiguration

_T = TypeVar("_T")

OK: Final = 0
REFUSED: Final = 1
BAD_INPUT: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one per line.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file. [$LOCKSTEP_CONFIG, else .sandbox/current/client.yaml here or above]"),
]
KEY_FORMS: Final = "a file, ssh-agent:FINGERPRINT-or-comment, or pkcs11:… (RFC 7512)"
Key = Annotated[str, typer.Option("--key", metavar="KEY", help=f"Key of the person who signs: {KEY_FORMS}.")]
Nonce = Annotated[
    str, typer.Option("--nonce", help="Nonce of a statement whose bytes were shown before, 32 hex digits. [drawn freshly]")
]
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="Id of the plan.")]

#: What to do next, by the reason of a refusal.
_ADVICE: Final[Mapping[str, str]] = {
    "PLAN_NOT_FOUND": "see `lockstep plan list`",
    "CHECKPOINT_PENDING": "the journal signs one within seconds: try again, or wait longer (--wait)",
    "AUDIT_LOG_NOT_FOUND": "only a plan that did not settle has one, once nothing is held for it any more",
    "PLAN_STATE": "see `lockstep plan show`",
    "PLAN_CHANGED": "look at the plan again, then cancel with its present etag",
    "PLAN_FROZEN": "operators must look at the plan's journal",
    "GATE_ALREADY_OPEN": "nothing more is to be signed at this gate",
    "GATE_SAME_PERSON": "somebody who has not signed this plan yet must sign",
    "GATE_ROLE": "use the key of somebody who has the role",
    "GATE_SIGNATURE": "use a key that is registered and valid now",
    "GATE_EXPIRED": "sign again",
    "GATE_NONCE_REUSED": "sign again",
    "GATE_VOTES_DIGEST": "the votes have changed: sign again",
    "GATE_EVIDENCE_DIGEST": "the evidence has changed: sign again",
    "ESCALATION_NOT_FOUND": "see `lockstep escalations list`",
    "DEAD_LETTER_NOT_FOUND": "see `lockstep dead-letters list`",
    "RESOLUTION_NOT_ALLOWED": "see what is allowed: `lockstep escalations show`",
    "RESOLUTION_CLOSED": "nothing more is to be signed about it",
    "RESOLUTION_SAME_PERSON": "an operator must sign who has signed neither this nor one of the plan's gates",
    "RESOLUTION_ROLE": "use the key of an operator",
    "RESOLUTION_SIGNATURE": "use a key that is registered and valid now",
    "RESOLUTION_EXPIRED": "sign again",
    "RESOLUTION_NONCE_REUSED": "sign again",
    "RESOLUTION_LEG": "name the leg that the escalation is about, or none",
    "RESOLUTION_EVIDENCE": "show the bank's evidence of a payment, the chain's of a token transfer",
    "STEP_DEPENDENCY_FAILED": "mend depends_on in the plan file",
    "REQUEST_ID_REUSED": "make a new plan",
    "CALLER_NOT_ALLOWED": "use a client certificate that may call this method (tls in the configuration)",
}


class Refused(Exception):
    """The command was understood and something keeps it from being done.

    Attributes:
        reason: UPPER_SNAKE.
        message: one sentence, with what to do next.
        details: what a program may want to know besides.
    """

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details = dict(details or {})


def read_configuration(config: Path | None) -> ClientConfiguration:
    """The configuration that the command is to use.

    Raises:
        FieldInvalid: there is none, or it breaks a rule.
    """
    from lockstep_client import configuration
    from lockstep_kit.fields import within

    path = configuration.find_configuration(config, os.environ.get(configuration.ENVIRONMENT), Path.cwd())
    with within(str(path)) if path.is_file() else within("--config"):
        return configuration.read_configuration(path)


def emit(document: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Standard output for people: colours on terminals only."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def run(work: Callable[[], Awaitable[_T]], *, json_wanted: bool) -> _T:
    """Do the work of a subcommand; every error becomes one line and an exit code."""
    from lockstep_client.reading import ReadingFailed
    from lockstep_client.signers import SignerUnavailable
    from lockstep_kit.certificate import NotAuthorised
    from lockstep_kit.errors import LockstepError
    from lockstep_kit.fields import FieldInvalid

    async def begin() -> _T:
        return await work()

    try:
        return asyncio.run(begin())
    except FieldInvalid as error:
        _fail(BAD_INPUT, "FIELD_INVALID", str(error), json_wanted, {"field": error.field, "rule": error.rule})
    except LockstepError as error:
        _fail(*_of_service(error), json_wanted, dict(error.metadata))
    except NotAuthorised as error:
        _fail(REFUSED, error.reason, error.detail, json_wanted, {})
    except Refused as error:
        _fail(REFUSED, error.reason, error.message, json_wanted, error.details)
    except SignerUnavailable as error:
        _fail(UNREACHABLE, "KEY_UNAVAILABLE", str(error), json_wanted, {"source": error.source})
    except ReadingFailed as error:
        _fail(UNREACHABLE, f"{error.source.upper()}_UNREADABLE", error.message, json_wanted, {})
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        _fail(BAD_INPUT, "FILE_UNREADABLE", f"{named}{error.strerror or error}", json_wanted, {})
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _of_service(error: Any) -> tuple[int, str, str]:
    """Exit code, reason and line of a service's error."""
    import grpc

    if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return (
            UNREACHABLE,
            error.reason,
            f"{error.message or 'no answer'}; nothing is known of the request: look at the plan, or try again",
        )
    line = "; ".join(str(each) for each in error.fields) or error.message
    advice = _ADVICE.get(error.reason)
    exit_code = BAD_INPUT if error.code is grpc.StatusCode.INVALID_ARGUMENT else REFUSED
    return exit_code, error.reason, f"{line}; {advice}" if advice else line


def _fail(exit_code: int, reason: str, line: str, json_wanted: bool, details: Mapping[str, Any]) -> NoReturn:
    if json_wanted:
        document = {
            "error": {"reason": reason, "message": line, "exit_code": exit_code} | ({"details": details} if details else {})
        }
        sys.stderr.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
    else:
        sys.stderr.write(f"{reason}: {' '.join(line.split())}\n" if reason != "FIELD_INVALID" else f"{' '.join(line.split())}\n")
    raise typer.Exit(exit_code)
