"""Entries of the protocol as the rules take them; the one module that knows both."""

from __future__ import annotations

from lockstep.journal.v1 import entry_pb2
from lockstep_kit.convert import time_from_pb
from lockstep_kit.convert.statements import signature_from_pb
from lockstep_monitor.entries import Delivered


def delivered_from_pb(message: entry_pb2.Entry) -> Delivered:
    """An entry as it was delivered.

    Raises:
        FieldInvalid: it lacks a time or a signature of the right form.
    """
    return Delivered(
        position=message.position,
        plan_id=message.plan_id,
        sequence=message.sequence,
        type=message.type,
        actor=message.actor,
        event_time=time_from_pb(message.event_time, "event_time"),
        payload=message.payload,
        canonical_bytes=message.canonical_bytes,
        signature=signature_from_pb(message.signature),
        erased=message.erased,
    )
