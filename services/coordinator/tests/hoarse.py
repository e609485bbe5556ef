"""A participant that answers commands, and whose outcome stream is broken for as long as a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep_kit.participant.servicer import ParticipantServicer


class HoarseServicer(ParticipantServicer):
    """A participant's servicer."""

    #: Whether pages of the stream are lost, and the stream with them.
    hoarse = False

    async def WatchOutcomes(  # noqa: N802
        self, request: messages.WatchOutcomesRequest, context: Any
    ) -> AsyncIterator[messages.WatchOutcomesResponse]:
        async for page in super().WatchOutcomes(request, context):
            if self.hoarse:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream is lost")
            yield page
