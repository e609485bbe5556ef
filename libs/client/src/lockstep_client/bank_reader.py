"""Reads the bank's own book over its inspection interface. What it reads is judged in `bank_evidence`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp

from lockstep_client.bank_evidence import Entry
from lockstep_client.instrument_evidence import UndertakingFact
from lockstep_client.reading import ReadingFailed

READ_SECONDS: Final = 10.0
#: Kinds of postings that book a payment; the others hold money for it and let it go.
BOOKING_KINDS: Final = frozenset({"SETTLE", "PAYMENT"})
#: Payments whose entries are asked for at once, and the most that they may have together.
PAYMENTS_MAX: Final = 64
ENTRIES_MAX: Final = 10_000


class BankReader:
    """A bank's book, asked over HTTP with a bearer token. An async context manager."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READ_SECONDS), headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def entries(self, uetrs: Sequence[str]) -> dict[str, tuple[Entry, ...]]:
        """Every entry of each payment, on any account; whose an account is is asked once for all of them.

        Raises:
            ReadingFailed: the bank cannot be asked, or answers with something else.
        """
        found: dict[str, list[Entry]] = {uetr: [] for uetr in uetrs}
        owners: dict[str, str] = {}
        for at in range(0, len(uetrs), PAYMENTS_MAX):
            asked = [("uetr", uetr) for uetr in uetrs[at : at + PAYMENTS_MAX]]
            answer = await self._get("/entries", [*asked, ("limit", str(ENTRIES_MAX))])
            try:
                rows = list(answer["entries"])
                for account in sorted({str(row["account_id"]) for row in rows} - owners.keys()):
                    owners[account] = await self._correspondent(account)
                for row in rows:
                    entry = entry_of(row, owners[str(row["account_id"])])
                    found[entry.uetr].append(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise ReadingFailed("bank", "the bank's book answered in another form") from error
            if len(rows) == ENTRIES_MAX:
                raise ReadingFailed("bank", "the bank's book has more entries than it shows at once")
        return {uetr: tuple(entries) for uetr, entries in found.items()}

    async def undertaking(self, uetr: str) -> UndertakingFact | None:
        """The undertaking that the bank keeps under a UETR, be it a draft, issued or neither; None where it has none.

        Raises:
            ReadingFailed: the bank cannot be asked, or answers with something else.
        """
        answer = await self._get("/undertakings", [("uetr", uetr)])
        try:
            return next((undertaking_of(row) for row in answer["undertakings"]), None)
        except (KeyError, TypeError, ValueError) as error:
            raise ReadingFailed("bank", "the bank's register of undertakings answered in another form") from error

    async def _correspondent(self, account: str) -> str:
        """Bank whose account it is; "" for any other account."""
        shown = await self._get(f"/accounts/{quote(account, safe='')}", [])
        return str(shown["owner_bic"] or "")

    async def _get(self, path: str, query: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
        try:
            async with self._session.get(f"{self._url}{path}", params=query) as response:
                if response.status != 200:
                    raise ReadingFailed("bank", f"the bank's book answered with HTTP {response.status}")
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ReadingFailed("bank", f"the bank's book cannot be read: {type(error).__name__}") from error
        if not isinstance(answer, dict):
            raise ReadingFailed("bank", "the bank's book answered in another form")
        return answer


def entry_of(row: dict[str, Any], correspondent_bic: str) -> Entry:
    """An entry from its JSON form.

    Raises:
        KeyError, TypeError: it has another form.
    """
    if type(row["amount"]) is not int:
        raise TypeError("an entry counts minor units")
    return Entry(
        uetr=str(row["uetr"]),
        posting=str(row["posting_id"]),
        books=row["kind"] in BOOKING_KINDS,
        account=str(row["account_id"]),
        correspondent_bic=correspondent_bic,
        minor_units=row["amount"],
        currency=str(row["currency"]),
    )


def undertaking_of(row: dict[str, Any]) -> UndertakingFact:
    """An undertaking from its JSON form.

    Raises:
        KeyError, TypeError: it has another form.
    """
    amount = row["amount"]
    if amount is not None and type(amount) is not int:
        raise TypeError("an undertaking counts minor units")
    texts = ("state", "number", "account_id", "applicant_name", "beneficiary_name", "advised_to", "expires_on", "issuance_sha256")
    state, number, account, applicant, beneficiary, advised_to, expires_on, issuance = (str(row[name] or "") for name in texts)
    return UndertakingFact(
        state=state,
        number=number,
        account=account,
        minor_units=amount or 0,
        currency=str(row["currency"] or ""),
        applicant=applicant,
        beneficiary=beneficiary,
        advised_to=advised_to,
        expires_on=expires_on,
        issuance_sha256=issuance,
    )
