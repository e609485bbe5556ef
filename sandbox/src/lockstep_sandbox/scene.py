"""Who trades in the sandbox: two parties with tokens, money and accounts, and the bank that keeps them. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from lockstep_sandbox.deployment import TokenTerms

BANK_BIC: Final = "SNDBDEFFXXX"
BANK_NAME: Final = "Sandbox Bank"
BANK_ZONE: Final = "Europe/Berlin"
#: BIC under which Lockstep instructs the bank.
OWN_BIC: Final = "LCKSDEFFXXX"
#: As whom the bank knows Lockstep.
COUNTERPARTY: Final = "Lockstep"
#: Lends intraday credit.
PROVIDER_BIC: Final = "MARKDEFFXXX"
CURRENCY: Final = "EUR"
#: A security token, which the escrow controls; and one that nobody controls, so that what was paid of it stays paid.
BOND: Final = TokenTerms(
    "BOND",
    "Sandbox Bond 2031",
    2,
    minted={"seller": 1_000_000_00, "issuer": 1_000_000_00},
    allowing=("seller",),
    controlled=True,
)
COIN: Final = TokenTerms("COIN", "Sandbox Coin", 18, minted={"seller": 1_000_000 * 10**18}, allowing=("seller",))


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with an account at the bank."""

    #: Name in plans.
    party_id: str
    #: Legal name, as the bank knows it.
    name: str
    #: ISO 13616.
    iban: str
    #: Opening balance, decimal text.
    opening: str
    #: Intraday credit that a liquidity provider lends at the most, decimal text; "" for a holder without a line.
    credit: str = ""
    #: Up to what the bank issues undertakings for it, decimal text; "" for a holder without a facility.
    facility: str = ""

    def account(self) -> dict[str, Any]:
        """The account as the bank opens it."""
        opened = {"account": self.iban, "owner": self.name, "currency": CURRENCY, "opening_balance": self.opening}
        line = {"provider": "Liquidity Bank", "provider_bic": PROVIDER_BIC, "limit": self.credit}
        facility = {"facility": self.facility} if self.facility else {}
        return {**opened, **facility, "credit_line": line} if self.credit else opened | facility


BUYER: Final = Holder("buyer", "Buyer Bank NV", "DE89370400440532013000", "5000000.00", facility="10000000.00")
SELLER: Final = Holder("seller", "Seller AG", "DE75512108001245126199", "10000.00")
#: Has an account, and hardly any money.
PAUPER: Final = Holder("pauper", "Pauper GmbH", "DE12500105170648489890", "25.00")
#: Pays out of what a liquidity provider lends within the day, as long as it lends.
BORROWER: Final = Holder("borrower", "Borrower SE", "DE62370400440532013001", "1000.00", credit="1000000.00")


#: Everybody with an account at the bank.
HOLDERS: Final = (BUYER, SELLER, PAUPER, BORROWER)


def bank_seed(gateway_identity: str) -> dict[str, Any]:
    """With what the bank opens; the gateway is known by its certificate."""
    return {
        "bic": BANK_BIC,
        "name": BANK_NAME,
        # No hours, weekdays or holidays: unlike a real bank, this one settles at every hour of every day, so that a demonstration does not depend on when
        # it is given. The gateway's calendar says the same.
        "time_zone": BANK_ZONE,
        "accounts": [holder.account() for holder in HOLDERS],
        "terms": {"end_of_day": "23:30"},
        "counterparties": [{"name": COUNTERPARTY, "bic": OWN_BIC, "identities": [gateway_identity]}],
    }


def delivery_versus_payment(
    seller_address: str,
    buyer_address: str,
    *,
    reference: str,
    quantity: str,
    price: str,
    payer: Holder = BUYER,
    deadline: str = "30m",
) -> dict[str, Any]:
    """A plan file: the seller delivers bonds, the payer pays for them."""
    return {
        "reference": reference,
        "deadline": deadline,
        "parties": [{"id": SELLER.party_id, "name": SELLER.name}, {"id": payer.party_id, "name": payer.name}],
        "legs": [
            {
                "id": "bonds",
                "token_transfer": {
                    "asset": BOND.symbol,
                    "amount": quantity,
                    "from": {"party": SELLER.party_id, "address": seller_address},
                    "to": {"party": payer.party_id, "address": buyer_address},
                },
            },
            {
                "id": "cash",
                "credit_transfer": {
                    "asset": CURRENCY,
                    "amount": price,
                    "debtor": {"party": payer.party_id, "name": payer.name, "iban": payer.iban, "bic": BANK_BIC},
                    "creditor": {"party": SELLER.party_id, "name": SELLER.name, "iban": SELLER.iban, "bic": BANK_BIC},
                    "remittance": reference,
                },
            },
        ],
    }


def guarantee(*, amount: str, expiry_date: str, applicant: Holder = BUYER, beneficiary: Holder = SELLER) -> dict[str, Any]:
    """A leg of a plan file: the bank issues a standby letter of credit for one holder in favour of another."""
    return {
        "id": "guarantee",
        "issue_instrument": {
            "asset": CURRENCY,
            "amount": amount,
            "applicant": {
                "party": applicant.party_id,
                "name": applicant.name,
                "town": "Frankfurt am Main",
                "country": "DE",
                "iban": applicant.iban,
            },
            "beneficiary": {"party": beneficiary.party_id, "name": beneficiary.name, "town": "Hamburg", "country": "DE"},
            "issuer": BANK_BIC,
            "advised_by": BANK_BIC,
            "expiry": {"date": expiry_date, "place": "FRANKFURT AM MAIN"},
            "terms": {
                "name": "STANDBY-2031.pdf",
                "sha256": hashlib.sha256(b"the terms of the standby letter of credit").hexdigest(),
            },
        },
    }
