"""`lockstep keys`: keys that people sign with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep_client.commands.context import KEY_FORMS, Json, emit, run

app = typer.Typer(no_args_is_help=True, help="Keys that people sign with.")


@app.callback()
def _group() -> None:
    """Keys that people sign with."""


@app.command("new")
def new(
    out: Annotated[Path, typer.Option("--out", help="File to write the private key to: PKCS8 PEM, mode 0600; never overwritten.")],
    as_json: Json = False,
) -> None:
    """Draw an Ed25519 key, and print its public half for the registry."""

    async def work() -> None:
        import base64
        import secrets

        from lockstep_kit.fields import FieldInvalid
        from lockstep_kit.key_files import write_signing_key
        from lockstep_kit.signing import SigningKey

        key = SigningKey(secrets.token_bytes(32))
        try:
            write_signing_key(out, key)
        except FileExistsError as error:
            raise FieldInvalid("--out", f"must name a new file: {out} is there, and a key is never overwritten") from error
        public = base64.b64encode(key.public.octets).decode()
        if as_json:
            emit({"key_file": str(out), "public_key": public, "key_id": key.public.key_id})
        else:
            typer.echo(f"private key  {out}\npublic key   {public}\nkey id       {key.public.key_id}")

    run(work, json_wanted=as_json)


@app.command("show")
def show(
    key: Annotated[str, typer.Argument(metavar="KEY", help=f"The key: {KEY_FORMS}.")],
    as_json: Json = False,
) -> None:
    """Show a key's id and its public half, as the registry wants them, wherever the key lies."""

    async def work() -> None:
        import base64

        from lockstep_client.signers import open_signer

        public = open_signer(key, option="KEY").public
        encoded = base64.b64encode(public.octets).decode()
        if as_json:
            emit({"key": key, "public_key": encoded, "key_id": public.key_id})
        else:
            typer.echo(f"public key   {encoded}\nkey id       {public.key_id}")

    run(work, json_wanted=as_json)
