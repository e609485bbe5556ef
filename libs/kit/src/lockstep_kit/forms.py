"""Forms of the outside world's identifiers: IBAN, BIC, LEI, EVM addresses, the characters of payment messages. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from eth_utils.address import is_checksum_address
from pycountry import countries
from schwifty import BIC, IBAN
from schwifty.exceptions import SchwiftyException
from stdnum import lei

from lockstep_kit.fields import FieldInvalid, require

_BIC: Final = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?")
_EVM_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_FIN_X: Final = re.compile(r"[0-9a-zA-Z/\-?:().,'+ ]*")
_CHAIN: Final = re.compile(r"eip155:[1-9][0-9]{0,17}")
#: A checksum costs a hash of the address; most come again and again.
_has_checksum: Final = lru_cache(4_096)(is_checksum_address)


def check_iban(text: str, field: str) -> None:
    """ISO 13616: country structure and mod-97 checksum, upper case without blanks.

    Raises:
        FieldInvalid: it is no IBAN.
    """
    try:
        written = _iban_written(text)
    except SchwiftyException as error:
        raise FieldInvalid(field, "must be an IBAN with its country's structure and a right checksum (ISO 13616)") from error
    require(written == text, field, "must be an IBAN in upper case without blanks")


@lru_cache(4_096)
def _iban_written(text: str) -> str:
    """An IBAN as it is written; accounts come again and again."""
    return str(IBAN(text))


def check_bic(text: str, field: str) -> None:
    """ISO 9362: 8 or 11 characters with an ISO 3166 country. The ECB's own TRGTXEPM BICs carry "XE" and are allowed.

    Raises:
        FieldInvalid: it is no BIC.
    """
    require(_BIC.fullmatch(text) is not None, field, "must be a BIC of 8 or 11 upper-case characters (ISO 9362)")
    if text.startswith("TRGTXEPM"):
        return
    try:
        _read_bic(text)
    except SchwiftyException as error:
        raise FieldInvalid(field, "must be a BIC with an ISO 3166 country (ISO 9362)") from error


#: Banks come again and again. What is no BIC is refused anew each time.
_read_bic: Final = lru_cache(4_096)(BIC)


def check_lei(text: str, field: str) -> None:
    """ISO 17442: 20 characters with mod-97 checksum.

    Raises:
        FieldInvalid: it is no LEI.
    """
    require(len(text) == 20 and text.isupper() and lei.is_valid(text), field, "must be an LEI (ISO 17442)")


def check_evm_address(text: str, field: str) -> None:
    """An address with its EIP-55 checksum, other than the zero address.

    Raises:
        FieldInvalid: another form, or a wrong or missing checksum.
    """
    require(_EVM_ADDRESS.fullmatch(text) is not None, field, "must be an EVM address: 0x and 40 hex digits")
    require(int(text, 16) != 0, field, "must not be the zero address")
    require(_has_checksum(text), field, "must be an EVM address with its EIP-55 checksum")


def check_chain(text: str, field: str) -> None:
    """A CAIP-2 id of an EVM chain.

    Raises:
        FieldInvalid: another form.
    """
    require(_CHAIN.fullmatch(text) is not None, field, "must be a CAIP-2 id eip155:<chain>")


def check_text(text: str, field: str, *, length_max: int, empty: bool = False) -> None:
    """Free text without control characters or blanks at its ends.

    Raises:
        FieldInvalid: too long, empty where it must not be, or with other characters.
    """
    # Every text passes here: what is right costs no call and no sentence.
    if len(text) > length_max:
        raise FieldInvalid(field, f"must have at most {length_max} characters")
    if not text and not empty:
        raise FieldInvalid(field, "must be present")
    if text != text.strip() or not text.isprintable():
        raise FieldInvalid(field, "must have no control characters and no blanks at its ends")


def check_fin_x(text: str, field: str, *, length_max: int, empty: bool = False) -> None:
    """Text of the SWIFT X character set, as payment messages carry it.

    Raises:
        FieldInvalid: as `check_text`, or other characters.
    """
    check_text(text, field, length_max=length_max, empty=empty)
    require(_FIN_X.fullmatch(text) is not None, field, "must hold characters of the SWIFT X set only")


def check_country(text: str, field: str) -> None:
    """ISO 3166-1: two upper-case letters.

    Raises:
        FieldInvalid: it is no country.
    """
    known = len(text) == 2 and text.isupper() and countries.get(alpha_2=text) is not None
    require(known, field, "must be an ISO 3166-1 country of two upper-case letters")
