"""`lockstep completion`: what makes a shell complete commands, options and the ids of open plans."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Final

import typer

PROGRAM: Final = "lockstep"
#: Set by the shells' scripts when they ask what a word can become.
ASKED: Final = "_LOCKSTEP_COMPLETE"


class Shell(StrEnum):
    """Shells that can be told."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print what a shell must read to complete commands, options and plan ids: `source <(lockstep completion bash)`."""
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=ASKED, shell=shell.value))


def prepare_completion() -> None:
    """Answer a shell that asks what a word can become."""
    if ASKED in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
