"""Nothing that the services say to their database outlives its transaction: pooled connections go from one user to the next as they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What a session keeps when the transaction ends.
KEPT = re.compile(
    r"""^\s*(?:
        set\s+(?!local\b|transaction\b|constraints\b)(?:session\s+)?[\w.]+(?:\s+to\b|\s*=|\s+authorization\b|\s+characteristics\b)
        | set\s+role\b | listen\s | prepare\s+\w+(?:\s*\(|\s+as\b) | load\s+' | discard\s
        | create\s+(?:local\s+|global\s+)?temp(?:orary)?\s | declare\s.*\bwith\s+hold\b
    ) | \bpg_(?:try_)?advisory_lock | \bset_config\s*\([^)]*,\s*false\s*\)""",
    re.IGNORECASE | re.VERBOSE,
)
#: Those that have a connection of their own, which ends with their work.
APART = {"libs/kit/src/lockstep_kit/migrate.py"}


def statements() -> Iterator[tuple[str, str]]:
    """Where a text is written in the code of the services, and the text; a statement of several is each of them."""
    for folder in ("libs/kit", "libs/chain", "services/*", "sandbox/bank-simulator"):
        for path in ROOT.glob(f"{folder}/src/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield from ((where, each) for each in node.value.split(";"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("set lock_timeout = 1", True),
        ("set session lock_timeout to 1", True),
        ("set role somebody", True),
        ("select pg_advisory_lock(1)", True),
        ("select pg_try_advisory_lock_shared(1)", True),
        ("select set_config('a', 'b', false)", True),
        ("listen one", True),
        ("create temp table a (b int)", True),
        ("declare a cursor with hold for select 1", True),
        ("prepare a as select 1", True),
        ("set local lock_timeout = 1", False),
        ("set transaction isolation level repeatable read, read only", False),
        ("select pg_advisory_xact_lock(1)", False),
        ("update a\nset b = 1", False),
        ("select set_config('a', 'b', true)", False),
    ],
)
def test_what_a_session_would_keep_is_seen(text: str, kept: bool) -> None:
    """By its first words, or by the function that it calls."""
    assert (KEPT.search(text) is not None) == kept


def test_no_statement_leaves_anything_with_its_session() -> None:
    """Where one must, it has a connection apart."""
    found = list(statements())
    assert len(found) > 1_000
    assert [(where, text) for where, text in found if KEPT.search(text) and where.rpartition(":")[0] not in APART] == []
