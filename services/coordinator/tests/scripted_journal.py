"""A journal for tests of the coordinator: it keeps what it is given, in order, and checks what each event says."""

from __future__ import annotations

import json
from typing import Any

import grpc

from lockstep.journal.v1 import (
    entry_pb2,
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep_kit.canonical import Document, canonical
from lockstep_kit.convert import epoch_from_pb
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.journal_payloads import VERSION, check_payload
from lockstep_kit.participant.ports import Closing
from lockstep_testkit.factories import PlanCase


class Journal(journal_service_pb2_grpc.JournalServiceServicer, journal_reader_service_pb2_grpc.JournalReaderServiceServicer):
    """Takes events as the journal does: densely numbered per plan, the same again as before, others never."""

    def __init__(self) -> None:
        self.chains: dict[str, list[journal_service_pb2.Event]] = {}
        self.conflicts: set[str] = set()
        self.fences: dict[str, Epoch] = {}
        #: Plan -> how it was ordered to be closed: from then on its chain ends with a seal.
        self.seals: dict[str, Closing] = {}
        #: Plans whose payloads were erased.
        self.erased: set[str] = set()
        #: Whether it takes nothing now.
        self.deaf = False

    async def ListEntries(  # noqa: N802
        self, request: journal_reader_service_pb2.ListEntriesRequest, context: Any
    ) -> journal_reader_service_pb2.ListEntriesResponse:
        """Two entries a page."""
        chain, after = self._entries(request.plan_id), int(request.page_token or 0)
        more = str(after + 2) if len(chain) > after + 2 else ""
        return journal_reader_service_pb2.ListEntriesResponse(entries=chain[after : after + 2], next_page_token=more)

    def _entries(self, plan_id: str) -> list[entry_pb2.Entry]:
        events = list(self.chains.get(plan_id, []))
        seal = self.seals.get(plan_id)
        if seal is not None:
            transition: dict[str, Document] = {"transition_no": seal.transition_no, "from": seal.from_state, "to": "CLOSED"}
            document: dict[str, Document] = {"outcome": seal.outcome.value, "evidence_digest": seal.evidence_digest.hex()}
            document |= {"version": VERSION, "transition": transition, "entry_count": len(events), "head_hash": "00" * 32}
            payload = canonical(document)
            check_payload("plan.closed", document)
            events.append(journal_service_pb2.Event(sequence=len(events) + 1, type="plan.closed", payload=payload))
        return [
            entry_pb2.Entry(
                plan_id=plan_id,
                sequence=event.sequence,
                type=event.type,
                actor=event.actor,
                actor_role=event.actor_role,
                event_time=event.event_time,
                payload=b"" if plan_id in self.erased else event.payload,
                payload_hash=sha256(event.payload),
                erased=plan_id in self.erased,
            )
            for event in events
        ]

    async def Append(self, request: journal_service_pb2.AppendRequest, context: Any) -> journal_service_pb2.AppendResponse:  # noqa: N802
        if self.deaf:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return journal_service_pb2.AppendResponse(answers=[self._append(each) for each in request.events])

    async def RaiseFence(  # noqa: N802
        self, request: journal_service_pb2.RaiseFenceRequest, context: Any
    ) -> journal_service_pb2.RaiseFenceResponse:
        self.fences[request.plan_id] = epoch_from_pb(request.epoch)
        return journal_service_pb2.RaiseFenceResponse()

    def _append(self, event: journal_service_pb2.Event) -> journal_service_pb2.AppendAnswer:
        epoch = epoch_from_pb(event.epoch)
        event.ClearField("epoch")
        try:
            check_payload(event.type, json.loads(event.payload))
        except FieldInvalid as finding:
            return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_INVALID, message=str(finding))
        if epoch < self.fences.get(event.plan_id, epoch):
            return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_STALE)
        chain = self.chains.setdefault(event.plan_id, [])
        if event.plan_id in self.conflicts:
            return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_CONFLICT, message="another event")
        if event.sequence > len(chain) + 1:
            return journal_service_pb2.AppendAnswer(
                verdict=journal_service_pb2.APPEND_VERDICT_GAP, expected_sequence=len(chain) + 1
            )
        if event.sequence <= len(chain):
            same = chain[event.sequence - 1] == event
            verdict = journal_service_pb2.APPEND_VERDICT_APPENDED if same else journal_service_pb2.APPEND_VERDICT_CONFLICT
            return journal_service_pb2.AppendAnswer(verdict=verdict)
        chain.append(event)
        return journal_service_pb2.AppendAnswer(verdict=journal_service_pb2.APPEND_VERDICT_APPENDED, entry_hash=bytes(32))

    def types(self, plan: PlanCase) -> list[str]:
        return [each.type for each in self.chains[plan.plan_id]]

    def payloads(self, plan: PlanCase) -> list[dict[str, Any]]:
        return [json.loads(each.payload) for each in self.chains[plan.plan_id]]
