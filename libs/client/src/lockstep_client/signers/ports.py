"""What goes wrong with a key that lies elsewhere."""

from __future__ import annotations


class SignerUnavailable(Exception):
    """The agent or token that has the key gives no signature; nothing was signed.

    Attributes:
        source: "ssh_agent" or "pkcs11".
    """

    def __init__(self, source: str, message: str) -> None:
        super().__init__(message)
        self.source = source
