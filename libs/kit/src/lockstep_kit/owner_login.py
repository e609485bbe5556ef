"""How a program that runs as a database's owner reaches it: migrations, and what operators do to a database with a service's own tools."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url


def add_owner_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command line that say where the database is and who owns it. The password stands in a file, since everybody sees command lines."""
    parser.add_argument("--owner-url", required=True, help="postgresql://owner@host:port/database, without a password")
    parser.add_argument("--owner-password-file", type=Path, help="file with the owner's password")


def owner_url(told: argparse.Namespace) -> str:
    """The owner's URL, with the password of the file where one is named; where none is, as libpq finds it.

    Raises:
        OSError: the file cannot be read.
    """
    url, path = make_url(told.owner_url), told.owner_password_file
    if path is not None:
        url = url.set(password=path.read_text().strip())
    return url.render_as_string(hide_password=False)


@asynccontextmanager
async def owner_connection(told: argparse.Namespace) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection as the owner.

    Raises:
        OSError: the password's file cannot be read, or nobody listens there.
        asyncpg.PostgresError: the server does not let the owner in.
    """
    connection = await asyncpg.connect(owner_url(told))
    try:
        yield connection
    finally:
        await connection.close()
