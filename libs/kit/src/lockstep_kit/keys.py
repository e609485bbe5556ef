"""Decision keys: what a leg must be shown before it may execute (docs/protocol.md, "Decision keys"). Pure.

The coordinator draws one key per plan. Each leg has its own key, derived from it, and is locked with that key's SHA-256. A leg gets its key only
after the decision; a leg's key says nothing about the plan's key or another leg's.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from lockstep_kit.ids import Digest, LegId, PlanId, sha256

PLAN_KEY_BYTES: Final = 32
_LABEL: Final = b"lockstep/key/v1"


def leg_key(plan_key: bytes, plan_id: PlanId, leg_id: LegId) -> bytes:
    """HMAC-SHA256(plan key, label | plan id | leg id), parts parted by 0x1f; 32 bytes."""
    message = b"\x1f".join((_LABEL, plan_id.encode("ascii"), leg_id.encode("ascii")))
    return hmac.new(plan_key, message, hashlib.sha256).digest()


def lock_of(key: bytes) -> Digest:
    """The lock that a leg's key opens: its SHA-256."""
    return sha256(key)


def opens(key: bytes, lock: bytes) -> bool:
    """Whether a key opens a lock, in constant time."""
    return hmac.compare_digest(sha256(key), lock)
