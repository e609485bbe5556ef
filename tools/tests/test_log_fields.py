"""Every field that the services log is listed as one that may be told; one that is not would be withheld without a word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from lockstep_kit.scrubbing import LOG_FIELDS, SPAN_ATTRIBUTES

ROOT = Path(__file__).parents[2]

LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
#: Fields whose values are numbers, which may have any name.
NUMBERS = frozenset(
    """
    failures count legs messages first nonce attempt attempts tip_wei base_fee_wei block_number outages seconds seconds_max tree_size generation entries
    sequence expected matched settled others breaks port exc_info transactions minor_units
    stream_sequence
    """.split()  # noqa: SIM905 - a list of words reads better as words
)


def logged() -> Iterator[tuple[str, str]]:
    """Where a field is logged, and its name."""
    for folder in ("libs", "services"):
        for path in (ROOT / folder).glob("*/src/**/*.py"):
            if path.parts[len(ROOT.parts) + 1] in ("testkit", "verify", "client"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                    target = ast.unparse(node.func.value)
                    if target in ("_log", "log", "structlog.get_logger()"):
                        where = f"{path.relative_to(ROOT)}:{node.lineno}"
                        yield from ((where, each.arg) for each in node.keywords if each.arg)


def test_every_logged_field_is_listed() -> None:
    """By its name in the list, or as a number."""
    found = list(logged())
    assert len(found) > 150
    assert [(where, name) for where, name in found if name not in LOG_FIELDS | NUMBERS] == []


def test_no_list_has_a_name_for_a_secret() -> None:
    """Nobody lists what could be one."""
    words = (
        "password",
        "secret",
        "token",
        "private",
        "seed",
        "iban",
        "name",
        "account",
        "remittance",
        "payload",
        "body",
        "preimage",
    )
    assert [name for name in LOG_FIELDS if any(word in name for word in words)] == []
    assert [name for name in SPAN_ATTRIBUTES if any(word in name for word in words)] == []
