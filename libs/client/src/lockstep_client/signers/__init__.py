"""Persons' keys: in a file, in an SSH agent, or on a PKCS#11 token. `open_signer` takes the name of any of them."""

from lockstep_client.signers.opening import open_signer
from lockstep_client.signers.ports import SignerUnavailable

__all__ = ["SignerUnavailable", "open_signer"]
