"""`lockstep verify`: what a bundle of evidence proves, offline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lockstep_client.commands.context import Json, emit


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle (`lockstep journal export`).")],
    trust: Annotated[Path, typer.Option("--trust", help="Keys and places that you trust (`lockstep journal trust` drafts one).")],
    as_json: Json = False,
) -> None:
    """Verify a plan's bundle of evidence offline, with nothing but the keys in the trust file. Asks no service and reads no configuration.

    Exits 0 if it is proved, 1 if something fails or the whole is not proved, 2 if a file cannot be read.
    """
    from lockstep_verify.command import text, verify_files
    from lockstep_verify.verifying import EXIT_CODES

    report = verify_files(bundle, trust)
    if as_json:
        emit(report)
    else:
        sys.stdout.write(text(report))
    raise typer.Exit(EXIT_CODES[report["verdict"]])
