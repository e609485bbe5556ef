"""The journal's log, as its witness asks for it. Holds no rules."""

from __future__ import annotations

from typing import Final

import grpc

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep_kit.errors import from_rpc
from lockstep_kit.failpoints import declare, failpoint

#: A note, or a proof, is far smaller. What is larger is not read.
MESSAGE_BYTES_MAX: Final = 64 << 10

#: The journal's reason for having no checkpoint of so many leaves.
PENDING: Final = "CHECKPOINT_PENDING"

#: The journal has understood the question, and does not answer it.
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.DATA_LOSS,
    }
)

declare("notary.witness.ask.before_send", "notary.witness.ask.after_send")


class LogUnanswered(Exception):
    """The journal has not answered: nothing is known, and it is asked again."""


class JournalLog:
    """Asks the journal."""

    def __init__(self, channel: grpc.aio.Channel, call_seconds: float) -> None:
        self._stub = stubs.JournalReaderServiceStub(channel)
        self._call_seconds = call_seconds

    async def newest(self) -> bytes | None:
        """The newest checkpoint's signed note; None when the journal has none.

        Raises:
            LogUnanswered: nothing is known.
        """
        await failpoint("notary.witness.ask.before_send")
        try:
            answer = await self._stub.GetCheckpoint(messages.GetCheckpointRequest(), timeout=self._call_seconds)
        except grpc.aio.AioRpcError as error:
            found = from_rpc(error)
            if found.reason == PENDING or found.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise LogUnanswered(f"no checkpoint: {found}") from error
        await failpoint("notary.witness.ask.after_send")
        return answer.checkpoint.signed_note

    async def consistency(self, from_size: int, to_size: int) -> tuple[bytes, ...] | None:
        """The consistency proof between two sizes; None when the journal refuses it.

        Raises:
            LogUnanswered: nothing is known.
        """
        request = messages.GetConsistencyProofRequest(from_size=from_size, to_size=to_size)
        try:
            answer = await self._stub.GetConsistencyProof(request, timeout=self._call_seconds)
        except grpc.aio.AioRpcError as error:
            found = from_rpc(error)
            # What it says to be pending too: it has shown a checkpoint of that size.
            if found.code in _REFUSALS:
                return None
            raise LogUnanswered(f"no consistency proof: {found}") from error
        return tuple(answer.path)
