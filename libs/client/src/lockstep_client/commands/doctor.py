"""`lockstep doctor`: a whole installation looked at, check by check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep_client.commands.context import Config, Json, Refused, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep_client.configuration import ClientConfiguration
    from lockstep_client.diagnosis import Check, Seen


def doctor(config: Config = None, as_json: Json = False) -> None:
    """Look at a whole installation: connections, certificates, clocks, databases, chain, bank, journal. Exits 1 if a check failed."""

    async def work() -> None:
        from datetime import UTC, datetime

        from lockstep_client.diagnosis import Verdict, diagnose

        seen = await look(read_configuration(config))
        checks = diagnose(seen, datetime.now(UTC))
        counts = {verdict.value: sum(each.verdict is verdict for each in checks) for verdict in Verdict}
        if as_json:
            emit(counts | {"checks": [_document(each) for each in checks]})
        else:
            _show(checks)
        if counts["failed"]:
            named = sorted({each.service for each in checks if each.verdict is Verdict.FAILED})
            raise Refused("INSTALLATION_UNWELL", f"{counts['failed']} checks failed: {', '.join(named)}")

    run(work, json_wanted=as_json)


async def look(configuration: ClientConfiguration) -> Seen:
    """Ask every service at once, and the witness."""
    import asyncio

    from lockstep_client.diagnosis import Seen, ServiceSeen
    from lockstep_client.installation_reader import observe, observe_witness, own_certificate

    async def seen(name: str, address: str | None) -> ServiceSeen:
        return await observe(name, address, configuration.tls) if address else ServiceSeen(name, "", "it was not looked at")

    services, witness = await asyncio.gather(
        asyncio.gather(
            seen("coordinator", configuration.coordinator),
            seen("dlt-gateway", configuration.dlt_gateway),
            seen("bank-gateway", configuration.bank_gateway),
            seen("notary", configuration.notary),
            seen("event-journal", configuration.journal),
        ),
        observe_witness(configuration.notary, configuration.tls),
    )
    return Seen(tuple(services), witness, own_certificate(configuration.tls.certificate_file), configuration.chain)


def _document(check: Check) -> dict[str, str]:
    document = {"service": check.service, "check": check.name, "verdict": check.verdict.value, "text": check.text}
    return document | ({"next": check.advice} if check.advice else {})


def _show(checks: list[Check]) -> None:
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "failed": "bold red"}
    out = console()
    for each in checks:
        line = Text(f"{each.verdict.value:<8}", style=colours[each.verdict.value])
        line.append(f"{each.service:<14}{each.name:<12}", style="default").append(f" {each.text}", style="default")
        out.print(line)
        if each.advice:
            out.print(Text(f"{'':8}next: {each.advice}", style="default"))
