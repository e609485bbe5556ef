"""A participant's process, as a service's main would be, whose outside world is scripted."""

from __future__ import annotations

import asyncio

from pydantic import Field

from lockstep_kit.participant.engine import declare_failpoints
from lockstep_kit.participant.process import ParticipantProcess
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.settings import ServiceSettings, load
from lockstep_testkit.scripted import ScriptedOperations

NAME = "dlt-gateway"
declare_failpoints(NAME)


class Settings(ServiceSettings):
    """Settings of the scripted participant."""

    participant: ParticipantSettings = Field(description="the participant's half of the protocol")


async def main() -> None:
    settings = load(Settings)
    async with ParticipantProcess.opened(NAME, settings, settings.participant) as process:
        await process.serve(process.engine(ScriptedOperations()))


asyncio.run(main())
