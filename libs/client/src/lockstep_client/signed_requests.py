"""What an agent has signed, on disk before anybody sees it: after a crash the very same requests are sent again.

What is signed together is one file, which is there whole or not at all: to have a file outlive a loss of power takes longer than all else about a signature.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lockstep.coordinator.v1.settlement_service_pb2 import SignGateRequest, SignGatesRequest
from lockstep.type.v1 import signature_pb2
from lockstep_kit.convert import time_from_pb
from lockstep_kit.durable_files import write_durably


def place_of(plan_id: str, over: bytes) -> str:
    """A plan with what is signed over: after a leg was driven anew there is other evidence, and another signature is asked for."""
    return f"{plan_id}-{over.hex()[:16]}"


class SignedRequests:
    """The requests of one key, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take up what was signed before, and may still open a gate."""
        self._folder = folder
        self._kept: dict[str, SignGateRequest] = {}
        self._expiries: deque[tuple[datetime, str]] = deque()
        now = datetime.now(UTC)
        for request in _stored(folder):
            if _expiry(request) > now:
                self._remember(request)

    def find(self, place: str, now: datetime) -> SignGateRequest | None:
        """The request that was signed for a place, while it opens the gate."""
        request = self._kept.get(place)
        return request if request is not None and _expiry(request) > now else None

    def keep(self, requests: Sequence[SignGateRequest]) -> None:
        """Have requests outlive a loss of power, before they are sent."""
        if not requests:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{requests[0].request_id}.requests"
        write_durably(path, SignGatesRequest(requests=requests).SerializeToString(deterministic=True), mode=0o600)
        for request in requests:
            self._remember(request)

    def _remember(self, request: SignGateRequest) -> None:
        now = datetime.now(UTC)
        while self._expiries and self._expiries[0][0] <= now:
            expiry, place = self._expiries.popleft()
            kept = self._kept.get(place)
            if kept is not None and _expiry(kept) == expiry:
                del self._kept[place]
        place = place_of(request.plan_id, _over(request))
        self._kept[place] = request
        self._expiries.append((_expiry(request), place))


def _stored(folder: Path) -> Iterable[SignGateRequest]:
    for path in sorted(folder.glob("*.requests")):
        yield from SignGatesRequest.FromString(path.read_bytes()).requests


def _expiry(request: SignGateRequest) -> datetime:
    return time_from_pb(request.signature.expire_time, "expire_time")


def _over(request: SignGateRequest) -> bytes:
    """What a signature is over, beside the plan."""
    signature = request.signature
    match signature.gate:
        case signature_pb2.GATE_RELEASE:
            return signature.votes_digest
        case signature_pb2.GATE_VALIDATE:
            return signature.evidence_digest
        case _:
            return signature.plan_digest
