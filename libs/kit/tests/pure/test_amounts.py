"""Amounts: exact, with the asset's own scale, and one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.amounts import MINOR_UNITS_MAX, Amount, AssetId, amount_from_text, amount_of, erc20_asset, known_scale
from lockstep_kit.fields import FieldInvalid
from lockstep_testkit.factories import address_of

TOKEN = f"eip155:138/erc20:{address_of('token')}"


@given(st.integers(0, MINOR_UNITS_MAX), st.integers(0, 36))
def test_text_reads_back(minor_units: int, scale: int) -> None:
    """Decimal text says the count exactly, and reads back as the same amount unless it is zero."""
    text = Amount(AssetId(TOKEN), minor_units, scale).text()
    assert text.replace(".", "").lstrip("0") == str(minor_units).lstrip("0")
    if minor_units:
        assert amount_from_text(TOKEN, text, scale) == Amount(AssetId(TOKEN), minor_units, scale)


@pytest.mark.parametrize(
    ("asset", "text", "scale", "minor_units"),
    [
        ("EUR", "1000.00", 2, 100_000),
        ("EUR", "0.01", 2, 1),
        ("JPY", "500", 0, 500),
        ("BHD", "1.5", 3, 1_500),
        (TOKEN, "0.000001", 18, 10**12),
    ],
)
def test_text_of_people(asset: str, text: str, scale: int, minor_units: int) -> None:
    """What people write becomes the count of minor units."""
    assert amount_from_text(asset, text, scale).minor_units == minor_units


@pytest.mark.parametrize(
    "text", ["0", "0.00", "-1", "+1", "1e3", "1,000.00", ".5", "5.", "01", " 1", "1 ", "1.000", "", "\u0661", "0x10"]
)
def test_text_that_is_refused(text: str) -> None:
    """Zero, signs, exponents, separators, blanks, other digits, and more decimals than the asset has."""
    with pytest.raises(FieldInvalid):
        amount_from_text("EUR", text, 2)


@pytest.mark.parametrize(
    ("asset", "minor_units", "scale", "field"),
    [
        ("EUR", "100", 3, "scale"),
        ("XAU", "100", 2, "asset"),
        ("EUX", "100", 2, "asset"),
        ("eur", "100", 2, "asset"),
        ("EUR", "0", 2, "minor_units"),
        ("EUR", "007", 2, "minor_units"),
        ("EUR", "-7", 2, "minor_units"),
        ("EUR", "7.0", 2, "minor_units"),
        (TOKEN, str(2**256), 18, "minor_units"),
        (TOKEN, "1", 37, "scale"),
        (TOKEN, "1", -1, "scale"),
        (TOKEN.lower(), "1", 18, "asset"),
        ("eip155:0/erc20:" + address_of("token"), "1", 18, "asset"),
        ("eip155:138/erc721:" + address_of("token"), "1", 18, "asset"),
    ],
)
def test_fields_that_are_refused(asset: str, minor_units: str, scale: int, field: str) -> None:
    """A message's amount is refused with the field at fault."""
    with pytest.raises(FieldInvalid) as caught:
        amount_of(asset, minor_units, scale)
    assert caught.value.field == field


def test_scales() -> None:
    """ISO 4217 fixes a currency's scale; a token's contract fixes the token's."""
    assert (known_scale("EUR"), known_scale("JPY"), known_scale("KWD"), known_scale(TOKEN)) == (2, 0, 3, None)
    assert erc20_asset(TOKEN).chain == "eip155:138"


@pytest.mark.parametrize(("minor_units", "scale"), [(-1, 2), (2**256, 2), (1, 37), (1, -1)])
def test_impossible_amounts(minor_units: int, scale: int) -> None:
    """An impossible amount cannot be made at all."""
    with pytest.raises(ValueError, match="an amount is"):
        Amount(AssetId("EUR"), minor_units, scale)
