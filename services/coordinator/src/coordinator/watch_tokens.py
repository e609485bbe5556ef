"""Places in the log of all plans as tokens: sealed, since a number in it would tell how much happens to plans that the caller may not see.

Every replica opens them: the key is drawn from the key that seals plans' keys. A token is for the caller, the filter and the log that it was given for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

import grpc
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid

PURPOSE: Final = "lockstep/watch-plans/v1"
_NUMBER_BYTES: Final = 8
_MARK_BYTES: Final = 16
_TOKEN_BYTES: Final = SecretBox.NONCE_SIZE + SecretBox.MACBYTES + _NUMBER_BYTES + _MARK_BYTES


def expired(why: str) -> LockstepError:
    """The refusal of a token whose place is no longer there."""
    return LockstepError(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", f"{why}: watch again without it")


class WatchTokens:
    """Seals places, and opens them again."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys: the first seals, all open."""
        self._boxes: Final = [SecretBox(each) for each in keys]

    def seal(self, number: int, *bound: str) -> str:
        """A place, bound to what it is for."""
        octets = self._boxes[0].encrypt(number.to_bytes(_NUMBER_BYTES, "big") + _mark(bound))
        return base64.urlsafe_b64encode(octets).decode("ascii")

    def open(self, token: str, *bound: str) -> int:
        """The place in a token that is for this.

        Raises:
            FieldInvalid: no token of such a watch.
            LockstepError: RESUME_TOKEN_EXPIRED; it is for something else, or sealed with a key that is no more.
        """
        try:
            octets = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            octets = b""
        if len(octets) != _TOKEN_BYTES:
            raise FieldInvalid("resume_token", "must be a token of a message of WatchPlans")
        opened = next((found for each in self._boxes if (found := _opened(each, octets))), b"")
        if opened[_NUMBER_BYTES:] != _mark(bound):
            raise expired("the token is of another caller or filter, or of a log that is no more")
        return int.from_bytes(opened[:_NUMBER_BYTES], "big")


def _opened(box: SecretBox, octets: bytes) -> bytes:
    try:
        return box.decrypt(octets)
    except CryptoError:
        return b""


def _mark(bound: Sequence[str]) -> bytes:
    return hashlib.sha256("\x1f".join(bound).encode()).digest()[:_MARK_BYTES]
