"""What of the transaction machine's tables is written once, and out of the role's reach from then on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: What a transaction does, whom it serves, and which leg an order is of.
CHAIN_FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "evm_signer": ("chain_id", "address"),
    "evm_transaction": (
        "id", "chain_id", "idempotency_key", "payload_hash", "to_address", "data", "value", "gas_limit", "purpose", "plan_id", "leg_id",
        "traceparent", "created_at", "updated_at",
    ),
    "chain_order": ("plan_id", "leg_id", "phase", "attempt", "intent_key", "entry_key", "ordered_at", "order_no"),
}  # fmt: skip
