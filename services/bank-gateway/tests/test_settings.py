"""The settings of the way to the bank and of what is agreed with it: one rail, known forms, refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bank_samples import BANK, OURS
from keys import identity
from pydantic import ValidationError

from bank_gateway.agreements import agreement_of
from bank_gateway.messages import Kind
from bank_gateway.settings import BankGatewaySettings

HTTP = {"http": {"url": "https://bank.example"}}


def settings(**changes: Any) -> BankGatewaySettings:
    return BankGatewaySettings.model_validate(
        {
            "database": {"url": "postgresql://gateway@none/none"},
            "tls": dict.fromkeys(("certificate_file", "key_file", "ca_file"), "unused"),
            "participant": {"signing_key_file": "unused", "registry_file": "unused"},
            "own_bic": OURS, "bank_bic": BANK, "currencies": ["EUR"], "rail": HTTP, "schemas": "unused", **changes,
        }
    )  # fmt: skip


def test_agreement_is_what_the_settings_say(tmp_path: Path) -> None:
    """Nothing given agrees nothing; what is given is read from its files."""
    plain = agreement_of(settings())
    assert (plain.taken, plain.business_service, plain.signer, plain.pinned, plain.deviations) == (
        None,
        "",
        None,
        None,
        frozenset(),
    )
    ours = identity(tmp_path, "ours")
    place = "camt.054.001.13 Document/BkToCstmrDbtCdtNtfctn/Ntfctn/Ntry/AddtlNtryInf"
    signatures = {
        "key_file": str(ours.key_file), "certificate_file": str(ours.certificate_file), "pinned": [ours.fingerprint.hex()],
    }  # fmt: skip
    inbound = {"messages": ["pacs.002.001.15"], "business_service": "swift.cbprplus.03", "deviations": [place]}
    agreed = agreement_of(settings(signatures=signatures, inbound=inbound))
    assert (agreed.taken, agreed.business_service, agreed.deviations) == (
        frozenset({Kind.STATUS}),
        "swift.cbprplus.03",
        frozenset({place}),
    )
    assert agreed.signer is not None
    assert agreed.pinned is not None


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("rail", {}),
        ("rail", {**HTTP, "files": {"folder": "shared"}}),
        ("rail", {"http": {"url": "http://bank.example"}}),
        ("rail", {"ftp": {}}),
        ("inbound", {"messages": []}),
        ("inbound", {"messages": ["pacs.002"]}),
        ("inbound", {"deviations": ["Document/Ntry"]}),
        ("signatures", {"key_file": "k", "certificate_file": "c", "pinned": []}),
        ("signatures", {"key_file": "k", "certificate_file": "c", "pinned": ["AA" * 32]}),
        ("signatures", {"key_file": "k", "certificate_file": "c", "pinned": ["aa" * 32], "algorithms": ["rsa-sha1"]}),
    ],
)
def test_what_is_not_agreed_like_that_is_refused(field: str, given: dict[str, Any]) -> None:
    """No rail or two, no pins, another algorithm, a kind that is none: refused by the setting's name."""
    with pytest.raises(ValidationError) as refused:
        settings(**{field: given})
    assert {error["loc"][0] for error in refused.value.errors()} == {field}
