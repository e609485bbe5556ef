"""A sandbox that is fuzzed: who calls it over which channels, what its processes log and use, and whether it still settles afterwards."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fuzz.callers import callers, channels_to
from fuzz.campaign import BATCH, Campaign
from fuzz.corpus import Corpus
from fuzz.effects import SandboxWorld
from fuzz.judging import Judge, Reasons, log_findings
from fuzz.plans import gather, plans
from fuzz.surface import Method, methods_of
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import CLIENT, SERVICES, Sandbox
from lockstep_testkit.crew import Crew, draw_address

ERRORS_PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Processes:
    """The services' processes, as the kernel and their logs tell of them."""

    #: Whose they are.
    sandbox: Sandbox
    _read: dict[str, int] = field(default_factory=dict)

    def health(self) -> Sequence[str]:
        """Processes that ended, and what their logs have new that they must not have."""
        found = [f"{name} ended with {code}" for name, code in self.sandbox.supervisor.ended().items()]
        for name in SERVICES:
            with self.sandbox.supervisor.log_path(name).open("rb") as log:
                log.seek(self._read.get(name, 0))
                octets = log.read()
            # The last line may not be written to its end.
            whole = octets[: octets.rfind(b"\n") + 1]
            self._read[name] = self._read.get(name, 0) + len(whole)
            found += log_findings(name, whole.decode(errors="replace"))
        return found

    def processor_seconds(self) -> dict[str, float]:
        """What each service has used so far."""
        found = {}
        for name in SERVICES:
            fields = Path(f"/proc/{self.sandbox.supervisor.pid(name)}/stat").read_text().rsplit(")", 1)[1].split()
            found[name] = (int(fields[11]) + int(fields[12])) / _TICKS
        return found


@dataclass
class Fuzzing:
    """Everything that a campaign needs of a running sandbox."""

    #: It.
    sandbox: Sandbox
    #: The people around it.
    crew: Crew
    #: Its processes.
    processes: Processes
    #: What can be called.
    methods: list[Method]
    #: What requests are made from.
    corpus: Corpus

    @asynccontextmanager
    async def campaign(self, seed: int, batch: int = BATCH) -> AsyncIterator[Campaign]:
        """A campaign over channels of its own; nobody but its callers does anything meanwhile."""
        sandbox = self.sandbox
        who = callers(sandbox.authority, sandbox.run.path / f"foreign-{seed}")
        targets = {name: sandbox.address(name) for name in SERVICES}
        async with channels_to(who, targets, sandbox.tls(CLIENT).ca_file) as channels, self.crew.paused_validator():
            judge, world = Judge(Reasons.read(ERRORS_PAGE)), SandboxWorld(sandbox)
            yield Campaign(seed, self.methods, who, channels, self.corpus, judge, world, self.processes.health, batch)

    async def still_settles(self) -> None:
        """Raise unless a plan still comes to its end, everything paid once."""
        payee = draw_address()
        plan = await self.crew.settled(self.crew.payments(payee=payee))
        await self.crew.assert_settled_once(plan.header.plan_id, payee)


@asynccontextmanager
async def fuzzing(folder: Path) -> AsyncIterator[Fuzzing]:
    """A sandbox with plans to forge from."""
    async with Sandbox(RuntimeDirectory.create(folder), sampled_ratio=0.0) as sandbox, Crew(sandbox) as crew:
        corpus = Corpus()
        await plans(crew, corpus)
        who = callers(sandbox.authority, folder / "foreign")
        targets = {name: sandbox.address(name) for name in SERVICES}
        async with channels_to(
            [each for each in who if each.label in (CLIENT, "coordinator")], targets, sandbox.tls(CLIENT).ca_file
        ) as channels:
            methods = await methods_of({name: channels[CLIENT, name] for name in SERVICES})
            readers = {
                (each.server, each.path): channels[label, each.server]
                for each in methods
                for label in ("coordinator", CLIENT)
                if each.may_be_called_by(label)
            }
            await gather(sandbox, corpus, methods, readers)
        yield Fuzzing(sandbox, crew, Processes(sandbox), methods, corpus)
