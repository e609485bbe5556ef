"""The accounts that settings name, opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from lockstep_chain.ports import Signer
from lockstep_chain.signers.keystore import KeystoreSigner
from lockstep_chain.signers.pkcs11 import Pkcs11Signer
from lockstep_chain.signers.settings import KeystoreSettings, SignerSettings
from lockstep_kit.fields import require, within


@asynccontextmanager
async def opened(settings: Sequence[SignerSettings]) -> AsyncIterator[tuple[Signer, ...]]:
    """Every account, ready to sign; closed again in the end.

    Raises:
        FieldInvalid: one cannot be opened, or is another than its settings expect, or is named twice.
        SignerUnavailable: a token does not answer.
    """
    async with AsyncExitStack() as stack:
        signers: list[Signer] = []
        for number, each in enumerate(settings):
            with within(f"chain.signers[{number}]"):
                signer = await _open(each)
                stack.push_async_callback(signer.close)
                expected = each.address
                require(expected in (None, signer.address), "address", f"must be the key's, which is {signer.address}")
                known = [known.address for known in signers]
                require(signer.address not in known, "address", f"must not be another signer's too: {signer.address}")
                signers.append(signer)
        yield tuple(signers)


async def _open(settings: SignerSettings) -> KeystoreSigner | Pkcs11Signer:
    if isinstance(settings, KeystoreSettings):
        return await KeystoreSigner.open(settings.keystore_file, settings.password_file)
    return await Pkcs11Signer.open(settings)
