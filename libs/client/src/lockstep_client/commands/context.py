"""What every subcommand shares: options, output for people and for programs, errors in one line, exit codes.

Exit codes: 0 done; 1 refused, or the plan did not settle; 2 bad usage or bad input, nothing was sent; 3 something could not be reached, nothing is known.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer

from lockstep_client.commands.completing import open_plans

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

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
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="Id of the plan.", autocompletion=open_plans)]

#: How long a command works in silence on a terminal.
SILENT_SECONDS: Final = 1.0


class Colour(StrEnum):
    """When output has colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class _Terminal:
    """What the process's terminal is told: the choice of colours, and the sign that something is being done."""

    def __init__(self) -> None:
        self.colour = Colour.AUTO
        self._status: Status | None = None
        self._spoken = False

    def begin(self) -> None:
        """Nothing was said yet."""
        self._spoken = False

    def console(self, *, stderr: bool = False) -> Console:
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        soft_wrap = not stream.isatty()
        match self.colour:
            case Colour.ALWAYS:
                return Console(
                    stderr=stderr, highlight=False, soft_wrap=soft_wrap, force_terminal=True, color_system="256", no_color=False
                )
            case Colour.NEVER:
                return Console(stderr=stderr, highlight=False, soft_wrap=soft_wrap, no_color=True)
            case Colour.AUTO:
                return Console(stderr=stderr, highlight=False, soft_wrap=soft_wrap)

    def busy(self, what: str) -> None:
        """Say that something is being done, until the first output; not after it."""
        if self._spoken:
            return
        self._status = self.console(stderr=True).status(what)
        self._status.start()

    def quiet(self) -> None:
        """Take that back: the line is output's."""
        self._spoken = True
        if self._status is not None:
            self._status.stop()
            self._status = None


_terminal: Final = _Terminal()


def choose_colour(colour: Colour) -> None:
    """Use colours as the command line says."""
    _terminal.colour = colour


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
    _terminal.quiet()
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Standard output for people: colours on terminals only, unless told otherwise (--color, NO_COLOR)."""
    _terminal.quiet()
    return _terminal.console()


def run(work: Callable[[], Awaitable[_T]], *, json_wanted: bool) -> _T:
    """Do the work of a subcommand; every error becomes one line and an exit code."""
    from lockstep_client.reading import ReadingFailed
    from lockstep_client.signers import SignerUnavailable
    from lockstep_kit.certificate import NotAuthorised
    from lockstep_kit.errors import LockstepError
    from lockstep_kit.fields import FieldInvalid

    try:
        return asyncio.run(_shown(work))
    except FieldInvalid as error:
        _fail(BAD_INPUT, "FIELD_INVALID", str(error), json_wanted, {"field": error.field, "rule": error.rule})
    except LockstepError as error:
        from lockstep_client.commands.failures import explained

        failure = explained(error)
        _fail(failure.exit_code, failure.reason, failure.cause, json_wanted, dict(error.metadata), failure.advice)
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


async def _shown(work: Callable[[], Awaitable[_T]]) -> _T:
    """The work, with a sign on terminals that it goes on where it takes longer than a moment in silence."""
    telling = None
    _terminal.begin()
    if sys.stderr.isatty():
        telling = asyncio.get_running_loop().call_later(SILENT_SECONDS, _terminal.busy, "working…")
    try:
        return await work()
    finally:
        if telling is not None:
            telling.cancel()
        _terminal.quiet()


def _fail(exit_code: int, reason: str, line: str, json_wanted: bool, details: Mapping[str, Any], advice: str = "") -> NoReturn:
    """End with the cause in one line and what to do next in another."""
    if json_wanted:
        error = {"reason": reason, "message": line, "exit_code": exit_code}
        error |= ({"next": advice} if advice else {}) | ({"details": details} if details else {})
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False, default=str) + "\n")
    else:
        cause = " ".join(line.split())
        sys.stderr.write(f"{cause}\n" if reason == "FIELD_INVALID" else f"{reason}: {cause}\n")
        if advice:
            sys.stderr.write(f"next: {advice}\n")
    raise typer.Exit(exit_code)
