"""The bank-gateway as `bank_gateway.main` puts it together, over a simulated bank and the line to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bank_gateway.courier import Courier
from bank_gateway.gateway import BankOperations
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.settings import BankGatewaySettings, HttpRailSettings, RailSettings
from lockstep_kit.db import DatabaseSettings
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.rpc import TlsSettings
from lockstep_testkit.simulation.bank_book import Book
from lockstep_testkit.simulation.bank_desk import Desk
from lockstep_testkit.simulation.bank_line import Line, RailTrouble
from lockstep_testkit.simulation.bank_messages import BANK_BIC, CUSTOMER_BIC
from lockstep_testkit.simulation.chance import Seeded
from lockstep_testkit.simulation.loop import Process
from lockstep_testkit.simulation.timeline import Timeline

if TYPE_CHECKING:
    from lockstep_kit.db import Database

#: The longest hold that is agreed with the bank, unless a seed says otherwise; far longer than a seed lives.
HOLD_SECONDS_MAX: Final = 6 * 86_400.0
_NO_FILE: Final = Path("none")


@cache
def schemas() -> Schemas:
    """The official schemas, compiled once for all seeds."""
    root = next(parent for parent in Path(__file__).parents if (parent / ".schemas" / "xsd").is_dir())
    return Schemas(root / ".schemas" / "xsd")


@cache
def settings(hold_seconds: float) -> BankGatewaySettings:
    """Settings of the gateway; times are short, as the coordinator's are."""
    return BankGatewaySettings(
        database=DatabaseSettings(url="postgresql://bank_gateway@none/none"),
        tls=TlsSettings(certificate_file=_NO_FILE, key_file=_NO_FILE, ca_file=_NO_FILE),
        # The engine is given its own; the gateway's operations do not look at these.
        participant=ParticipantSettings(signing_key_file=_NO_FILE, registry_file=_NO_FILE),
        own_bic=CUSTOMER_BIC,
        bank_bic=BANK_BIC,
        currencies=("EUR",),
        rail=RailSettings(http=HttpRailSettings(url="https://none")),
        schemas=_NO_FILE,
        hold_max_hours=hold_seconds / 3600,
        inquiry_seconds=3.0,
        inquiry_seconds_max=20.0,
    )


class BankParty:
    """The bank with its book, and what its gateway is made of."""

    def __init__(
        self,
        seeded: Seeded,
        outside: Process,
        timeline: Timeline,
        counts: dict[str, int],
        money: dict[str, int],
        promise_seconds: float | None,
    ) -> None:
        self.book: Final = Book(money)
        # Where holds stand for ever, it is the bank that does not end them; a gateway always says until when it wants them.
        lapses = promise_seconds is not None
        self.desk: Final = Desk(self.book, seeded.stream("bank"), outside, timeline, counts, lapses=lapses)
        self.trouble: Final = RailTrouble()
        self._hold_seconds = promise_seconds or HOLD_SECONDS_MAX
        self._chance: random.Random = seeded.stream("rail")
        self._outside = outside
        self._counts = counts

    def gateway(self, db: Database, engine_of: Callable[[Any], ParticipantEngine]) -> tuple[ParticipantEngine, tuple[Loop, ...]]:
        """What `bank_gateway.main.run` makes: the engine, and the loops beside the server."""
        operations = BankOperations(settings(self._hold_seconds), schemas())
        engine = engine_of(operations)
        rail = Line(self.desk, self.trouble, self._chance, self._outside, self._counts)
        return engine, Courier(db, engine, operations, rail).loops()
