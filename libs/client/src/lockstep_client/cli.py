"""The `lockstep` command. Libraries that load slowly are imported by the subcommand that needs them, so that help is there at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lockstep_client.commands import agent, dead_letters, escalations, journal, keys, plan, witness
from lockstep_client.commands.audit import audit
from lockstep_client.commands.completion import completion, prepare_completion
from lockstep_client.commands.context import Colour, choose_colour
from lockstep_client.commands.doctor import doctor
from lockstep_client.commands.in_doubt import in_doubt
from lockstep_client.commands.reconcile import reconcile
from lockstep_client.commands.settle import settle, watch
from lockstep_client.commands.sign import sign
from lockstep_client.commands.top import top
from lockstep_client.commands.trace import trace
from lockstep_client.commands.verify import verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Settle plans across chains, banks, a notary and a journal: every leg takes effect, or none does, or you are told at once.",
    epilog="Exit codes: 0 done; 1 refused, or the plan did not settle; 2 bad usage or bad input, nothing was sent; 3 something could not be reached.",
)


@app.callback()
def common(
    color: Annotated[
        Colour, typer.Option("--color", help="When output has colours; NO_COLOR is heeded unless always.")
    ] = Colour.AUTO,
) -> None:
    """Take the options that stand before the subcommand."""
    choose_colour(color)


app.command("settle")(settle)
app.add_typer(plan.app, name="plan")
app.command("sign")(sign)
app.command("watch")(watch)
app.command("top")(top)
app.add_typer(escalations.app, name="escalations")
app.command("in-doubt")(in_doubt)
app.add_typer(dead_letters.app, name="dead-letters")
app.command("audit")(audit)
app.command("reconcile")(reconcile)
app.add_typer(journal.app, name="journal")
app.command("verify")(verify)
app.add_typer(witness.app, name="witness")
app.command("trace")(trace)
app.add_typer(keys.app, name="keys")
app.add_typer(agent.app, name="agent")
app.command("doctor")(doctor)
app.command("completion")(completion)


def main() -> None:
    """The command's entry point."""
    # The transport's own notes about lost connections are no news: the command says itself what could not be reached.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    prepare_completion()
    app()
