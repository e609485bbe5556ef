"""Amounts: integer counts of minor units, with the asset and its scale. No floating point anywhere. Pure."""

from __future__ import annotations

import re
from typing import Final, NewType

from iso4217 import Currency

from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_evm_address
from lockstep_kit.values import dataclass

AssetId = NewType("AssetId", str)

MINOR_UNITS_MAX: Final = 2**256 - 1
#: Largest amount that an ISO 20022 message carries (ActiveCurrencyAndAmount: 18 digits).
CURRENCY_MINOR_UNITS_MAX: Final = 10**18 - 1
#: Largest amount that the escrow keeps of one leg.
TOKEN_MINOR_UNITS_MAX: Final = 2**96 - 1
SCALE_MAX: Final = 36

_MINOR: Final = re.compile(r"0|[1-9][0-9]{0,77}")
_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,77})(?:\.([0-9]{1,36}))?")
_ERC20: Final = re.compile(r"(eip155:[1-9][0-9]{0,17})/erc20:(0x[0-9a-fA-F]{40})")


@dataclass(frozen=True, slots=True)
class Amount:
    """An exact quantity of one asset."""

    #: ISO 4217 code or CAIP-19 id.
    asset: AssetId
    #: Count of minor units, not negative.
    minor_units: int
    #: Decimal places of the asset.
    scale: int

    def __post_init__(self) -> None:
        """Keep impossible amounts from existing."""
        if not 0 <= self.minor_units <= MINOR_UNITS_MAX or not 0 <= self.scale <= SCALE_MAX:
            raise ValueError("an amount is a count of at most 2^256-1 minor units with 0 to 36 decimal places")

    def text(self) -> str:
        """Decimal text with exactly `scale` places."""
        digits = str(self.minor_units).rjust(self.scale + 1, "0")
        return digits if self.scale == 0 else f"{digits[: -self.scale]}.{digits[-self.scale :]}"

    def __str__(self) -> str:
        return f"{self.text()} {self.asset}"


@dataclass(frozen=True, slots=True)
class Erc20Asset:
    """The parts of a CAIP-19 ERC-20 id."""

    #: CAIP-2 id of the chain.
    chain: str
    #: EIP-55 address of the token contract.
    token: str


def amount_of(asset: str, minor_units: str, scale: int) -> Amount:
    """An amount from the parts that a message carries.

    Raises:
        FieldInvalid: asset, minor_units or scale has another form; the amount is zero.
    """
    scale_known = known_scale(asset)
    require(_MINOR.fullmatch(minor_units) is not None, "minor_units", "must be decimal digits without sign or leading zero")
    require(0 <= scale <= SCALE_MAX, "scale", f"must be 0 to {SCALE_MAX}")
    require(scale_known is None or scale == scale_known, "scale", f"must be {scale_known}, the scale of {asset}")
    count = int(minor_units)
    require(count > 0, "minor_units", "must be greater than zero")
    require(count <= MINOR_UNITS_MAX, "minor_units", "must be below 2^256")
    return Amount(AssetId(asset), count, scale)


def amount_from_text(asset: str, text: str, scale: int) -> Amount:
    """An amount from decimal text, as people write it.

    Raises:
        FieldInvalid: no plain decimal number, zero or negative, or more decimals than the asset has.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise FieldInvalid("amount", "must be a plain decimal number greater than zero, written as text")
    whole, places = match.group(1), match.group(2) or ""
    require(len(places) <= scale, "amount", f"must have at most {scale} decimals, as {asset} has")
    return amount_of(asset, str(int(whole + places.ljust(scale, "0"))), scale)


def known_scale(asset: str) -> int | None:
    """Scale that a standard fixes for the asset: of a currency its ISO 4217 exponent; None for tokens, whose contract fixes it.

    Raises:
        FieldInvalid: neither a currency of ISO 4217 with an exponent nor a CAIP-19 ERC-20 id.
    """
    if ":" in asset:
        erc20_asset(asset)
        return None
    try:
        exponent = Currency(asset).exponent
    except ValueError:
        exponent = None
    if exponent is None:
        raise FieldInvalid("asset", "must be an ISO 4217 currency with minor units or a CAIP-19 ERC-20 id")
    return int(exponent)


def is_currency(asset: str) -> bool:
    """Whether the asset is money at a bank."""
    return ":" not in asset


def erc20_asset(asset: str) -> Erc20Asset:
    """The parts of a CAIP-19 ERC-20 id.

    Raises:
        FieldInvalid: another form, or the address fails its EIP-55 checksum.
    """
    match = _ERC20.fullmatch(asset)
    if match is None:
        raise FieldInvalid("asset", "must be a CAIP-19 id eip155:<chain>/erc20:<address>")
    check_evm_address(match.group(2), "asset")
    return Erc20Asset(match.group(1), match.group(2))
