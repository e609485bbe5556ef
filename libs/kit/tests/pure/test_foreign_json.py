"""JSON from outside: what is meant is read as it is, and what would exhaust the stack is refused before anything recurses."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.foreign_json import DEPTH_MAX, TooDeep, read_json

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.text('"\\[]{}\n', max_size=8)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\[]{}ab'), inner), max_leaves=20)
#: Deep enough to end a process whose limit of recursion was raised, and to no purpose where it was not.
DEEP = 200_000


@given(DOCUMENTS, st.booleans())
def test_reads_what_json_reads(document: object, ascii_only: bool) -> None:
    """Brackets and quotes inside of strings count for nothing."""
    assert read_json(json.dumps(document, ensure_ascii=ascii_only).encode(errors="surrogatepass")) == document


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]")])
def test_the_deepest_is_read_and_no_deeper(opened: str, closed: str) -> None:
    """The limit itself is allowed; one more is refused."""
    per = opened.count("[") + opened.count("{")
    whole = DEPTH_MAX // per
    assert read_json(f"{opened * whole}1{closed * whole}".encode())
    with pytest.raises(TooDeep):
        read_json(f"{opened * whole}[1]{closed * whole}".encode())


@pytest.mark.parametrize("octets", [b"", b"[", b"]" * 5, b'"\\', b"\xff", "[1]".encode("utf-16"), b'["' + b'\\"' * 100])
def test_what_is_no_json_is_refused(octets: bytes) -> None:
    """Whatever is wrong is a ValueError."""
    with pytest.raises(ValueError, match=r"\w"):
        read_json(octets)


def test_a_text_that_never_ends_costs_no_more_than_its_length() -> None:
    """A string that is not closed is looked at once, however many quotes it holds."""
    began = time.thread_time()
    with pytest.raises(ValueError, match=r"\w"):
        read_json(b'"' + b'\\"' * 500_000)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize("octets", ["b'[' * DEEP", "b'{\"a\":' * DEEP"])
def test_a_raised_limit_of_recursion_ends_no_process(octets: str) -> None:
    """In a process that may recurse as deeply as it likes, such a document is refused, and the process lives."""
    script = (
        "import sys; sys.setrecursionlimit(10**6)\n"
        "from lockstep_kit.foreign_json import TooDeep, read_json\n"
        f"DEEP = {DEEP}\n"
        f"try: read_json({octets})\n"
        "except TooDeep: print('refused')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "refused\n"), ran.stderr
