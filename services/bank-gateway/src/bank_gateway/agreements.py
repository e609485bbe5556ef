"""The agreement with the bank, as the settings name it: keys and certificates are read from files."""

from __future__ import annotations

from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.signatures import Pinned, Signer
from bank_gateway.settings import BankGatewaySettings


def agreement_of(settings: BankGatewaySettings) -> Agreement:
    """What the settings agree.

    Raises:
        FieldInvalid: a file holds no key or certificate that can be used.
        OSError: a file cannot be read.
    """
    inbound, signatures = settings.inbound, settings.signatures
    return Agreement(
        taken=None if inbound.messages is None else frozenset(inbound.messages),
        business_service=inbound.business_service,
        signer=None if signatures is None else Signer.read(signatures.key_file, signatures.certificate_file),
        pinned=None if signatures is None else Pinned(map(bytes.fromhex, signatures.pinned), signatures.algorithms),
        deviations=frozenset(inbound.deviations),
    )
