"""What the settings say of endpoints."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lockstep_chain.settings import ChainSettings
from lockstep_chain.standing import Rules

ONE, OTHER = "https://one.example/secret", "https://other.example/secret"
SIGNER = {"kind": "keystore", "keystore_file": "unused", "password_file": "unused"}


def settings(**more: Any) -> ChainSettings:
    return ChainSettings.model_validate({"chain_id": 138, "finality_depth": 0, "signers": [SIGNER]} | more)


def test_endpoints() -> None:
    """Two endpoints are enough; one is, where that is said; neither URL is shown."""
    told = settings(rpc_urls=[ONE, OTHER], agreement_min=2, unmined_max=7)
    assert told.endpoint_rules == Rules(agreement_min=2, pending_apart_max=7)
    assert settings(rpc_urls=[ONE], single_endpoint=True).endpoint_rules.agreement_min == 1
    assert "secret" not in repr(told)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rpc_urls": [ONE]}, "two endpoints at least, or one and single_endpoint"),
        ({"rpc_urls": [ONE, OTHER], "single_endpoint": True}, "two endpoints at least, or one and single_endpoint"),
        ({"rpc_urls": [ONE, ONE]}, "must differ"),
        ({"rpc_urls": [ONE, OTHER], "agreement_min": 3}, "agreement_min must not be above"),
        ({"rpc_urls": [ONE, OTHER], "agreement_min": 0}, "agreement_min"),
        ({"rpc_urls": []}, "rpc_urls"),
        ({"rpc_urls": [ONE, "ftp://other.example"]}, "rpc_urls.1"),
        ({"rpc_urls": [ONE, OTHER], "ws_urls": [ONE]}, "ws_urls.0"),
        ({"rpc_url": ONE}, "rpc_url"),
    ],
)
def test_refused(change: dict[str, Any], why: str) -> None:
    """Too few, the same twice, more agreement than there are endpoints, or no URL: refused, with the field and the rule."""
    with pytest.raises(ValidationError, match=why):
        settings(**change)
