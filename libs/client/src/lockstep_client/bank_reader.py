"""Reads the bank's own book over its inspection interface. What it reads is judged in `bank_evidence`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from lockstep_client.bank_evidence import Booking, Side
from lockstep_client.reading import ReadingFailed
from lockstep_kit.amounts import amount_from_text, known_scale
from lockstep_kit.fields import FieldInvalid

READ_SECONDS: Final = 10.0


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

    async def bookings(self, uetr: str) -> tuple[Booking, ...]:
        """Every booked entry of a payment, on any account.

        Raises:
            ReadingFailed: the bank cannot be asked, or answers with something else.
        """
        try:
            async with self._session.get(f"{self._url}/bookings", params={"uetr": uetr}) as response:
                if response.status != 200:
                    raise ReadingFailed("bank", f"the bank's book answered with HTTP {response.status}")
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ReadingFailed("bank", f"the bank's book cannot be read: {type(error).__name__}") from error
        try:
            return tuple(booking_of(each) for each in answer["bookings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReadingFailed("bank", "the bank's book answered in another form") from error


def booking_of(entry: dict[str, Any]) -> Booking:
    """A booked entry from its JSON form.

    Raises:
        KeyError, TypeError, ValueError: it has another form.
    """
    currency = str(entry["currency"])
    scale = known_scale(currency)
    if scale is None:
        raise FieldInvalid("currency", "must be an ISO 4217 currency")
    return Booking(
        uetr=str(entry["uetr"]),
        iban=str(entry["iban"]),
        side=Side(entry["side"]),
        minor_units=amount_from_text(currency, str(entry["amount"]), scale).minor_units,
        currency=currency,
        reference=str(entry["reference"]),
    )
