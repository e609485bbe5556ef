"""`lockstep dead-letters`: commands that their participant will never take as they are."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep_client.commands.context import Config, Json, console, emit, read_configuration, run

app = typer.Typer(no_args_is_help=True, help="List dead letters, and have them sent again.")


@app.command("list")
def list_letters(
    every: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Letters at the most.")] = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first."""

    async def work() -> None:
        from lockstep_client.commands.resolutions import operators_of
        from lockstep_client.operator_documents import letter_document
        from lockstep_client.operator_rendering import letters_table

        configuration = read_configuration(config)
        found = []
        async with operators_of(configuration) as client:
            async for each in client.list_dead_letters(replayed=every, page_size=min(limit, 200)):
                found.append(each)
                if as_json:
                    emit(letter_document(each))
                if len(found) == limit:
                    break
        if not as_json:
            console().print(letters_table(found))

    run(work, json_wanted=as_json)


@app.command("replay")
def replay(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="Id of the dead letter.")],
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", help="UUID of the request: give the same one to repeat a request whose answer was lost."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have a dead letter's command sent again, as it was authorised."""

    async def work() -> None:
        from lockstep_client.commands.resolutions import operators_of
        from lockstep_client.operator_documents import letter_document
        from lockstep_client.operator_rendering import letters_table

        configuration = read_configuration(config)
        async with operators_of(configuration) as client:
            sent = await client.replay_dead_letter(letter, request_id=request_id)
        if as_json:
            emit(letter_document(sent))
        else:
            console().print(letters_table([sent]))

    run(work, json_wanted=as_json)
