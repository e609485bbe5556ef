"""What readers of the outside world raise."""

from __future__ import annotations


class ReadingFailed(Exception):
    """Something outside could not be read, so nothing is known about it.

    Attributes:
        source: "chain", "bank" or "spans".
        message: one sentence.
    """

    def __init__(self, source: str, message: str) -> None:
        super().__init__(message)
        self.source = source
        self.message = message
