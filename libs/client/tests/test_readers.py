"""Readers of the bank's book and of the span store, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lockstep_client.bank_evidence import Entry
from lockstep_client.bank_reader import BankReader
from lockstep_client.reading import ReadingFailed
from lockstep_client.span_reader import read_traces

UETR = "6b7e0c39-4b84-4b0b-9a2c-0a5c2f3d1e77"
ROW = {
    "entry_id": 1,
    "posting_id": 7,
    "reference": "x",
    "uetr": UETR,
    "account_id": "DE 1/2",
    "currency": "EUR",
    "balance_after": 0,
}


class Pages:
    """A server of JSON documents by path."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.url = ""
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.headers.get("Authorization", "Bearer secret") != "Bearer secret":
            return web.json_response({}, status=401)
        if request.path not in self.documents:
            return web.json_response({}, status=404)
        return web.json_response(self.documents[request.path])


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    """A running server."""
    served = Pages()
    app = web.Application()
    app.router.add_get("/{path:.*}", served.answer)
    running = web.AppRunner(app, access_log=None)
    await running.setup()
    await web.TCPSite(running, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{running.addresses[0][1]}"
    yield served
    await running.cleanup()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


async def test_the_book_is_read(pages: Pages, token: Path) -> None:
    """Entries arrive in minor units, with what books told from what holds, and with whose account it is."""
    pages.documents["/entries"] = {
        "entries": [ROW | {"kind": "HOLD", "amount": -5}, ROW | {"kind": "SETTLE", "amount": 5, "account_id": "V"}]
    }
    pages.documents["/accounts/DE 1/2"] = {"owner_bic": None}
    pages.documents["/accounts/V"] = {"owner_bic": "BNPAFRPPXXX"}
    async with BankReader(pages.url, token) as reader:
        held, booked = (await reader.entries([UETR]))[UETR]
    assert held == Entry(UETR, "7", False, "DE 1/2", "", -5, "EUR")
    assert booked == Entry(UETR, "7", True, "V", "BNPAFRPPXXX", 5, "EUR")


async def test_payments_are_read_together(pages: Pages, token: Path) -> None:
    """Payments are asked for at once, and whose an account is once; each is given its own entries, one without any none."""
    other, unknown = "7" + UETR[1:], "8" + UETR[1:]
    rows = [ROW | {"kind": "SETTLE", "amount": 5}, ROW | {"kind": "SETTLE", "amount": 7, "uetr": other}]
    pages.documents |= {"/entries": {"entries": rows}, "/accounts/DE 1/2": {"owner_bic": None}}
    async with BankReader(pages.url, token) as reader:
        found = await reader.entries([UETR, other, unknown])
    assert {uetr: [each.minor_units for each in entries] for uetr, entries in found.items()} == {UETR: [5], other: [7], unknown: []}
    assert pages.asked == ["/entries", "/accounts/DE 1/2"]


@pytest.mark.parametrize(
    "entries",
    [
        [{}],
        [ROW | {"kind": "SETTLE", "amount": "5"}],
        [ROW | {"kind": "SETTLE", "amount": 5.0}],
        [1],
        7,
        [ROW | {"kind": "SETTLE", "amount": 5, "uetr": "another"}],
    ],
)
async def test_another_form(pages: Pages, token: Path, entries: Any) -> None:
    """What has another form is not read as anything."""
    pages.documents |= {"/entries": {"entries": entries}, "/accounts/DE 1/2": {"owner_bic": None}}
    async with BankReader(pages.url, token) as reader:
        with pytest.raises(ReadingFailed, match="another form"):
            await reader.entries([UETR])


async def test_a_bank_that_does_not_answer(pages: Pages, token: Path, tmp_path: Path) -> None:
    """A wrong token, or nobody there: nothing is known."""
    (tmp_path / "wrong").write_text("wrong")
    async with BankReader(pages.url, tmp_path / "wrong") as reader:
        with pytest.raises(ReadingFailed, match="HTTP 401"):
            await reader.entries([UETR])
    async with BankReader("http://127.0.0.1:1", token) as reader:
        with pytest.raises(ReadingFailed, match="cannot be read"):
            await reader.entries([UETR])


async def test_traces_are_read(pages: Pages) -> None:
    """Each trace of a plan arrives with its spans; a store that fails is said to."""
    pages.documents |= {"/traces": {"traces": [{"trace_id": "ab", "span_count": 1}]}, "/traces/ab": {"spans": [{"span_id": "1"}]}}
    assert await read_traces(pages.url, "p") == [{"trace_id": "ab", "span_count": 1, "spans": [{"span_id": "1"}]}]
    del pages.documents["/traces/ab"]
    with pytest.raises(ReadingFailed, match="HTTP 404"):
        await read_traces(pages.url, "p")
