"""What spans tell of messages to and from the bank, as OpenTelemetry's conventions for messaging have it."""

from __future__ import annotations

from typing import Literal


def messaging(operation: Literal["send", "process"], bank_bic: str, message_id: str) -> dict[str, str]:
    """Attributes of a span about one message; the bank is the destination, or whom it came from."""
    return {
        "messaging.system": "iso20022",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": bank_bic,
        "messaging.message.id": message_id,
    }
