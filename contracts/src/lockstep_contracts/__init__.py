"""Lockstep's contracts as Python sees them: artifacts, calldata, typed data to sign, events and errors.

`escrow`, `notary` and `token` encode calls, `events` decodes what came of them, `gas` says how much gas to send along.
"""

from lockstep_contracts.artifacts import Artifact, artifact
from lockstep_contracts.escrow import LegStatus, LegTerms, Side, leg_id_hash, leg_key, leg_signing_hash, leg_typed_data
from lockstep_contracts.events import ContractError, Event, decode_error, decode_log, event_topic
from lockstep_contracts.notary import AnchorKind, EscalationKind, EscalationRecord, Finalisation, PlanStatus, Root

__all__ = [
    "AnchorKind",
    "Artifact",
    "ContractError",
    "EscalationKind",
    "EscalationRecord",
    "Event",
    "Finalisation",
    "LegStatus",
    "LegTerms",
    "PlanStatus",
    "Root",
    "Side",
    "artifact",
    "decode_error",
    "decode_log",
    "event_topic",
    "leg_id_hash",
    "leg_key",
    "leg_signing_hash",
    "leg_typed_data",
]
