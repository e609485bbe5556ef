"""Plans: their digest for ever, their leaves, and their form rules."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep_kit.canonical import canonical
from lockstep_kit.convert.plans import leg_from_pb, leg_to_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest, LegId, PartyId, PlanId
from lockstep_kit.plan import (
    Anchoring,
    ChargeBearer,
    Journal,
    Leg,
    Notarisation,
    Party,
    PlanHeader,
    Policy,
    check_header,
    check_leg,
    inclusion_path,
    leg_belongs,
    leg_document,
    legs_root,
)
from lockstep_testkit.factories import BUYER, SELLER, address_of, credit_terms, leg_of, token_terms

LEGS = (
    Leg(LegId("tokens"), bytes(range(16)), (), token_terms()),
    Leg(LegId("cash"), bytes(range(16, 32)), (LegId("tokens"),), credit_terms()),
    Leg(LegId("notarisation"), bytes(16), (), Notarisation("eip155:138", address_of("registry"))),
    Leg(LegId("journal"), bytes([255] * 16), (), Journal()),
)
HEADER = PlanHeader(
    plan_id=PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a11"),
    reference="DVP 1",
    parties=(BUYER, SELLER),
    deadline=datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC),
    policy=Policy(),
    sod_version=1,
    leg_count=4,
    legs_root=legs_root(LEGS),
)


def test_digest_is_for_ever() -> None:
    """The digest of a plan that was signed once never changes, whatever is done to the code: a golden vector."""
    assert [leg.leaf.hex() for leg in LEGS] == [
        "38faf020fafd4bb4161863d6c2c99c66f25f10f829079fd28adba757228fdb2f",
        "ebe8c7506d6786e252d8d01bcb9c9865c1075d846157933b2f6e466d9e883f44",
        "0b517045eaa68c6a2d091da7d8877c475fb446c27234708bef55e14771403a8d",
        "dd4c764318e88c097e7f8021958c714088484b272f0e2d15dcc135a17a7f83e2",
    ]
    assert HEADER.legs_root.hex() == "8fb333d7380b9ec725766da6507014e6593d37d36465eeca5136911ac591bb88"
    assert HEADER.digest.hex() == "6b9b7c4bf853647110ee0fd5939d0e013196a2a9d9ded5a5534da914dd1650ad"


CHANGES: dict[str, Any] = {
    "plan_id": PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a12"),
    "reference": "DVP 2",
    "parties": (SELLER, BUYER),
    "deadline": HEADER.deadline + timedelta(microseconds=1),
    "policy": Policy(accept_expiry_risk=True),
    "sod_version": 2,
    "leg_count": 5,
    "legs_root": Digest(bytes(32)),
}


@pytest.mark.parametrize("field", [each.name for each in fields(PlanHeader)])
def test_digest_binds_every_field(field: str) -> None:
    """Another value of any field gives another digest."""
    assert replace(HEADER, **{field: CHANGES[field]}).digest != HEADER.digest


@pytest.mark.parametrize("index", range(4))
def test_leg_belongs_to_its_place(index: int) -> None:
    """A leg stands at its own place under the root, and a changed leg nowhere."""
    path = inclusion_path(LEGS, index)
    assert leg_belongs(LEGS[index], index, path, HEADER)
    assert not leg_belongs(LEGS[index], (index + 1) % 4, path, HEADER)
    assert not leg_belongs(LEGS[index], index + 4, path, HEADER)
    assert not leg_belongs(replace(LEGS[index], salt=b"another salt, 16"), index, path, HEADER)
    assert not leg_belongs(replace(LEGS[index], depends_on=(LegId("x"),)), index, path, HEADER)
    assert not leg_belongs(LEGS[index], index, path, replace(HEADER, leg_count=3 if index == 3 else 9))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reference": "x" * 141}, "reference"),
        ({"reference": "a\nb"}, "reference"),
        ({"parties": ()}, "parties"),
        ({"parties": (BUYER, BUYER)}, "parties[1].party_id"),
        ({"parties": (Party(PartyId("a"), ""),)}, "parties[0].name"),
        ({"parties": (Party(PartyId("a"), "A", "529900T8BM49AURSDO56"),)}, "parties[0].lei"),
        ({"sod_version": 0}, "sod_version"),
        ({"leg_count": 0}, "leg_count"),
        ({"leg_count": 65}, "leg_count"),
    ],
)
def test_heads_that_are_refused(change: dict[str, Any], field: str) -> None:
    """A head that breaks a form rule is refused with the field at fault."""
    check_header(HEADER)
    with pytest.raises(FieldInvalid) as caught:
        check_header(replace(HEADER, **change))
    assert caught.value.field == field


TOKEN, CASH = token_terms(), credit_terms()
BETWEEN = replace(
    CASH,
    debtor=replace(CASH.debtor, institution_bic="MARKDEFF"),
    creditor=replace(CASH.creditor, institution_bic="BNPAFRPP"),
    charge_bearer=ChargeBearer.SERVICE_LEVEL,
)


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (replace(TOKEN, amount=CASH.amount), "token_transfer.amount.asset"),
        (token_terms(2**96), "token_transfer.amount.minor_units"),
        (replace(TOKEN, escrow=TOKEN.escrow.lower()), "token_transfer.escrow"),
        (replace(TOKEN, escrow=TOKEN.payer), "token_transfer.escrow"),
        (replace(TOKEN, payer="0x" + "0" * 40), "token_transfer.payer"),
        (replace(TOKEN, payee=TOKEN.payer), "token_transfer.payee"),
        (replace(TOKEN, payer_party=PartyId("nobody")), "token_transfer.payer_party"),
        (token_terms(token=TOKEN.payer), "token_transfer.amount.asset"),
        (replace(CASH, amount=TOKEN.amount), "credit_transfer.amount.asset"),
        (credit_terms(10**18), "credit_transfer.amount.minor_units"),
        (replace(CASH, debtor=replace(CASH.debtor, iban="DE89370400440532013001")), "credit_transfer.debtor.iban"),
        (replace(CASH, debtor=replace(CASH.debtor, agent_bic="COBADEF")), "credit_transfer.debtor.agent_bic"),
        (replace(CASH, debtor=replace(CASH.debtor, agent_bic="COBAQQFF")), "credit_transfer.debtor.agent_bic"),
        (replace(CASH, creditor=replace(CASH.creditor, iban=CASH.debtor.iban)), "credit_transfer.creditor.iban"),
        (replace(CASH, creditor=replace(CASH.creditor, name="Käufer")), "credit_transfer.creditor.name"),
        (replace(CASH, creditor=replace(CASH.creditor, party_id=PartyId("nobody"))), "credit_transfer.creditor.party_id"),
        (replace(CASH, remittance="x" * 141), "credit_transfer.remittance"),
        (replace(BETWEEN, debtor=CASH.debtor), "credit_transfer.creditor.institution_bic"),
        (replace(BETWEEN, creditor=CASH.creditor), "credit_transfer.creditor.institution_bic"),
        (replace(BETWEEN, debtor=replace(BETWEEN.debtor, institution_bic="NOBIC")), "credit_transfer.debtor.institution_bic"),
        (replace(BETWEEN, charge_bearer=ChargeBearer.SHARED), "credit_transfer.charge_bearer"),
        (Notarisation("eip155:0", address_of("registry")), "notarisation.chain"),
        (Notarisation("eip155:138", address_of("registry").lower()), "notarisation.registry"),
    ],
)
def test_legs_that_are_refused(terms: Any, field: str) -> None:
    """A leg that breaks a form rule is refused with the field at fault."""
    with pytest.raises(FieldInvalid) as caught:
        check_leg(leg_of("leg", terms), HEADER.parties)
    assert caught.value.field == field


def test_anchoring_is_bound_where_it_is_named() -> None:
    """A plan that goes into batches is another plan, by each way; one that says nothing of it is what it always was; a converted one is the same."""
    plain = Notarisation("eip155:138", address_of("registry"))
    legs = [Leg(LegId("n"), bytes(16), (), replace(plain, anchoring=each)) for each in (None, *Anchoring)]
    assert len({leg.leaf for leg in legs}) == len(legs)
    assert "anchoring" not in canonical(leg_document(legs[0])).decode()
    for leg in legs:
        check_leg(leg, HEADER.parties)
        assert leg_from_pb(leg_to_pb(leg), HEADER) == leg
    unknown = leg_to_pb(legs[1])
    unknown.notarisation.anchoring = 99  # type: ignore[assignment]
    with pytest.raises(FieldInvalid, match=r"^notarisation\.anchoring must be"):
        leg_from_pb(unknown, HEADER)


def test_institutions_are_bound_where_they_are_named() -> None:
    """A transfer between institutions is another leg than one between customers, in each of the two names; a converted one is the same."""
    check_leg(leg_of("leg", BETWEEN), HEADER.parties)
    other = replace(BETWEEN, creditor=replace(BETWEEN.creditor, institution_bic="COBADEFF"))
    plain = replace(CASH, charge_bearer=ChargeBearer.SERVICE_LEVEL)
    made = [replace(LEGS[1], terms=terms) for terms in (plain, BETWEEN, other)]
    assert len({leg.leaf for leg in made}) == 3
    assert [leg_from_pb(leg_to_pb(leg), HEADER) for leg in made] == made


def test_good_legs_pass() -> None:
    """The plan of the golden vector keeps every rule."""
    for leg in LEGS:
        check_leg(leg, HEADER.parties)
    with pytest.raises(FieldInvalid, match="salt"):
        check_leg(replace(LEGS[0], salt=b"short"), HEADER.parties)
    with pytest.raises(FieldInvalid, match="depends_on"):
        check_leg(replace(LEGS[0], depends_on=(LegId("a"), LegId("a"))), HEADER.parties)
