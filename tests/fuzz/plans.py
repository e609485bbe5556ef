"""Plans to forge from: one settled, one cancelled, one half executed with its ticket, and two that wait for a person; and what all services say of them."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from fuzz import mutating
from fuzz.calling import CALL_SECONDS, STREAM_SECONDS, Manner, call
from fuzz.corpus import Corpus
from fuzz.surface import Method
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.participant.v1 import leg_pb2, participant_service_pb2
from lockstep.type.v1 import certificate_pb2, outcome_pb2, signature_pb2
from lockstep.type.v1.outcome_pb2 import Epoch
from lockstep_client.client import draw_request_id
from lockstep_kit import ids
from lockstep_kit.convert import gate_to_pb
from lockstep_sandbox import outside
from lockstep_sandbox.stack import PARTICIPANTS, Sandbox
from lockstep_testkit.crew import Crew, draw_address
from lockstep_testkit.ownership import as_owner

#: Longer than any run.
DEADLINE: Final = "20h"
#: Rounds of reading that fill the corpus; what the first finds the next ones ask about.
ROUNDS: Final = 12
#: Columns of a participant's legs, and the messages that they hold.
_COLUMNS: Final[dict[str, type[Message]]] = {
    "binding": leg_pb2.LegBinding,
    "certificate": certificate_pb2.DecisionCertificate,
    "closing": leg_pb2.Closing,
    "permit": signature_pb2.Permit,
    "vote": outcome_pb2.SignedVote,
    "outcome": outcome_pb2.SignedOutcome,
    "authority": certificate_pb2.AbortAuthority,
}


async def plans(crew: Crew, corpus: Corpus) -> None:
    """Settle, cancel, break and leave plans; their requests go into the corpus as they were sent."""
    await crew.driven(await _begun(crew, corpus, crew.payments()))
    cancelled = await crew.awaiting(await _begun(crew, corpus, crew.payments()), "release")
    cancel = messages.CancelPlanRequest(
        request_id=draw_request_id(),
        plan_id=cancelled.header.plan_id,
        etag=cancelled.etag,
        cancel=gate_to_pb(crew.signature(cancelled, "cancel")),
    )
    bare, stub = crew.stub()
    await stub.CancelPlan(cancel, timeout=CALL_SECONDS)
    await bare.close()
    corpus.harvest(cancel)
    await crew.driven(cancelled.header.plan_id)
    await _broken(crew, corpus)
    for gate in ("approve", "release"):
        await crew.awaiting(await _begun(crew, corpus, crew.payments()), gate)


async def _begun(crew: Crew, corpus: Corpus, document: dict[str, Any]) -> str:
    create = crew.create_request({**document, "deadline": DEADLINE})
    bare, stub = crew.stub()
    plan = (await stub.CreatePlan(create, timeout=CALL_SECONDS)).plan
    await bare.close()
    corpus.harvest(create)
    await crew.executed(plan)
    return str(plan.header.plan_id)


async def _broken(crew: Crew, corpus: Corpus) -> None:
    """The bank keeps one of two promises: half of the plan took effect, and operators have a ticket."""
    document = crew.payments(payee=draw_address(), price="60.00")
    other: dict[str, Any] = json.loads(json.dumps(document["legs"][1])) | {"id": "fee"}
    document["legs"].append(other)
    document["policy"] = {"accept_expiry_risk": True}
    plan_id = await _begun(crew, corpus, document)
    await crew.awaiting(plan_id, "release")
    uetr = str(ids.uetr(ids.plan_id(plan_id), ids.leg_id("fee")))
    await outside.bank_command(
        crew.sandbox, "/misbehaviours", {"kind": "refuse", "stage": "release", "reason": "AC06", "uetr": uetr}
    )
    await crew.driven(plan_id, until=("PARTIALLY_EXECUTED",))


# -- What services say -------------------------------------------------------------------------------------------------


async def gather(
    sandbox: Sandbox, corpus: Corpus, methods: list[Method], channels: Mapping[tuple[str, str], grpc.aio.Channel]
) -> None:
    """Fill the corpus with what the participants have stored and with what every reading method answers; `channels` by server and method."""
    created = [
        messages.CreatePlanRequest.FromString(each) for each in corpus.messages[messages.CreatePlanRequest.DESCRIPTOR.full_name]
    ]
    makes = {each.header.plan_id: each.make for each in created}
    async for message in _stored(sandbox, makes):
        corpus.harvest(message)
    rng = random.Random(1)
    for _ in range(ROUNDS):
        for method in methods:
            channel = channels.get((method.server, method.path))
            if method.writes or channel is None:
                continue
            octets = mutating.build(rng, method.request, corpus).SerializeToString()
            seconds = STREAM_SECONDS if method.streams else CALL_SECONDS
            answer = await call(channel, method.path, octets, Manner(seconds), streams=method.streams)
            for each in answer.messages:
                corpus.harvest(GetMessageClass(method.response).FromString(each))


async def _stored(sandbox: Sandbox, makes: Mapping[str, signature_pb2.GateSignature]) -> AsyncIterator[Message]:
    """What participants have stored, and the commands that brought it, as the coordinator would send them again."""
    for participant in PARTICIPANTS:
        async with as_owner(sandbox, participant) as database:
            rows = await database.fetch("select * from participant_leg order by plan_id, leg_id")
        for row in rows:
            parts = {column: _read(kind, row[column]) for column, kind in _COLUMNS.items() if row[column]}
            for each in parts.values():
                yield each
            yield participant_service_pb2.GetLegRequest(plan_id=row["plan_id"], leg_id=row["leg_id"])
            for request in _commands(row, parts, makes):
                yield request


def _commands(row: Any, parts: dict[str, Any], makes: Mapping[str, signature_pb2.GateSignature]) -> list[Message]:
    epoch = Epoch(generation=row["epoch_generation"], counter=row["epoch_counter"])
    binding, closing = parts["binding"], parts.get("closing")
    moment = Timestamp()
    moment.FromDatetime(row["hold_until"] or row["prepare_by"])
    prepare = leg_pb2.PrepareCommand(
        epoch=epoch,
        binding=binding,
        make=makes[row["plan_id"]],
        prepare_by=binding.plan.deadline,
        hold_until=moment,
        payer_signature=row["payer_signature"],
        permit=parts.get("permit"),
    )
    commit = leg_pb2.CommitCommand(epoch=epoch, binding=binding, key=row["key"], closing=closing)
    abort = leg_pb2.AbortCommand(epoch=epoch, binding=binding, authority=parts.get("authority"), closing=closing)
    reverse = leg_pb2.ReverseCommand(epoch=epoch, binding=binding)
    certificates = [parts["certificate"]] if "certificate" in parts else []
    return [
        participant_service_pb2.PrepareRequest(commands=[prepare]),
        participant_service_pb2.CommitRequest(commands=[commit], certificates=certificates),
        participant_service_pb2.AbortRequest(commands=[abort]),
        participant_service_pb2.ReverseRequest(commands=[reverse]),
    ]


def _read(kind: type[Message], octets: bytes) -> Any:
    try:
        return kind.FromString(octets)
    except DecodeError as error:
        raise AssertionError(f"what is stored is no {kind.DESCRIPTOR.full_name}") from error
