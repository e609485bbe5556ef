"""Plan files: what a person may write, and what is refused with field and rule."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from lockstep_client.making import draw_plan
from lockstep_client.planfile import Asset, DraftPlan, PlanFile, Venue, deadline, draft
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.plan import Anchoring, CreditTransfer, LegKind, Notarisation, TokenTransfer, legs_root
from lockstep_kit.strict_yaml import FILE_BYTES_MAX, parse, read

EXAMPLE = (Path(__file__).parents[1] / "examples" / "dvp.yaml").read_text()
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
VENUE = Venue(
    assets={"BOND": Asset("eip155:138/erc20:0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", 2), "EUR": Asset("EUR", 2)},
    escrow="0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    chain="eip155:138",
    registry="0x52908400098527886E0F7030069857D2E4169EE7",
)
TOKENS, MONEY = ("legs", 0, "token_transfer"), ("legs", 1, "credit_transfer")


def made(text: str) -> DraftPlan:
    return draft(parse(text, PlanFile), VENUE, plan_id=str(uuid.uuid4()), now=NOW, draw_salt=lambda: bytes(16))


def changed(*path: str | int, to: object) -> str:
    """The example with one value changed; `...` takes it away."""
    document = yaml.safe_load(EXAMPLE)
    holder = document
    for each in path[:-1]:
        holder = holder[each]
    if to is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = to
    return yaml.safe_dump(document, sort_keys=False)


SECURED = (Path(__file__).parents[1] / "examples" / "secured.yaml").read_text()


def test_the_secured_example_is_a_plan() -> None:
    """The documented sample with an undertaking makes a leg of exactly its terms."""
    plan = draft(parse(SECURED, PlanFile), VENUE, plan_id=str(uuid.uuid4()), now=NOW, draw_salt=lambda: bytes(16))
    terms = plan.legs[2].terms
    assert isinstance(terms, IssueInstrument)
    assert (terms.amount, terms.form, terms.governing_rules) == (Amount(AssetId("EUR"), 2_500_000, 2), "STBY", "ISPR")
    assert (terms.issuing_bic, terms.advising_bic, str(terms.expiry_date)) == ("COBADEFFXXX", "BNPAFRPP", "2031-12-31")
    assert (terms.applicant.party_id, terms.applicant_account) == ("buyer", "DE89370400440532013000")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("amount",), "0", "amount"),
        (("asset",), "XXX", "asset"),
        (("applicant", "iban"), "DE89370400440532013001", "applicant.iban"),
        (("applicant", "party"), "nobody", "applicant.party"),
        (("beneficiary", "party"), "buyer", "beneficiary.party"),
        (("beneficiary", "country"), "XX", "beneficiary.country"),
        (("issuer",), "COBA", "issuer"),
        (("advised_by",), "COBA", "advised_by"),
        (("expiry", "date"), "2031-13-01", "expiry.date"),
        (("expiry", "place"), "", "expiry.place"),
        (("terms", "sha256"), "abc", "terms.sha256"),
    ],
)
def test_undertakings_that_are_refused(path: tuple[str, ...], value: str, field: str) -> None:
    """What is wrong with an undertaking is named as the file names it."""
    document = yaml.safe_load(SECURED)
    holder = document["legs"][2]["issue_instrument"]
    for each in path[:-1]:
        holder = holder[each]
    holder[path[-1]] = value
    with pytest.raises(FieldInvalid) as caught:
        made(yaml.safe_dump(document, sort_keys=False))
    assert caught.value.field == f"legs[2].issue_instrument.{field}"


def test_the_example_is_a_plan() -> None:
    """The documented sample makes a plan of two settling legs and the two evidence legs, bound by its root, with exact amounts."""
    plan = draft(parse(EXAMPLE, PlanFile), VENUE, plan_id=str(uuid.uuid4()), now=NOW, draw_salt=lambda: bytes(16))
    assert [leg.kind for leg in plan.legs] == [
        LegKind.TOKEN_TRANSFER,
        LegKind.CREDIT_TRANSFER,
        LegKind.NOTARISATION,
        LegKind.JOURNAL,
    ]
    token, money = plan.legs[0].terms, plan.legs[1].terms
    assert isinstance(token, TokenTransfer)
    assert isinstance(money, CreditTransfer)
    assert token.amount == Amount(AssetId(VENUE.assets["BOND"].asset), 10_000, 2)
    assert money.amount == Amount(AssetId("EUR"), 9_845_000, 2)
    assert plan.header.legs_root == legs_root(plan.legs)
    assert plan.header.deadline == NOW + timedelta(minutes=15)


@pytest.mark.parametrize("anchoring", [None, *Anchoring])
def test_how_a_plan_is_anchored(anchoring: Anchoring | None) -> None:
    """The file says how the notarisation that is added goes on chain; a word that nobody knows is refused by its field."""
    document = yaml.safe_load(EXAMPLE)
    if anchoring is not None:
        document["anchoring"] = anchoring.lower()
    (terms,) = [leg.terms for leg in made(yaml.safe_dump(document)).legs if leg.kind is LegKind.NOTARISATION]
    assert terms == Notarisation(VENUE.chain, VENUE.registry, anchoring)
    with pytest.raises(FieldInvalid) as caught:
        made(yaml.safe_dump(document | {"anchoring": "later"}))
    assert caught.value.field == "anchoring"


def test_json_is_the_same() -> None:
    """A plan file may be JSON."""
    assert parse(json.dumps(yaml.safe_load(EXAMPLE)), PlanFile) == parse(EXAMPLE, PlanFile)


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        (changed(*TOKENS, "asset", to="GOLD"), "legs[0].token_transfer.asset", "must be an ISO 4217 currency"),
        (changed(*TOKENS, "asset", to="USD"), "legs[0].token_transfer.asset", "must be one of BOND, EUR"),
        (changed(*TOKENS, "asset", to="EUR"), "legs[0].token_transfer.asset", "must be a CAIP-19 ERC-20 id"),
        (changed(*MONEY, "asset", to="XXX"), "legs[1].credit_transfer.asset", "must be an ISO 4217 currency"),
        (changed(*MONEY, "amount", to="0"), "legs[1].credit_transfer.amount", "must be greater than zero"),
        (
            changed(*MONEY, "amount", to="-5.00"),
            "legs[1].credit_transfer.amount",
            "must be a plain decimal number greater than zero",
        ),
        (changed(*MONEY, "amount", to="1.005"), "legs[1].credit_transfer.amount", "must have at most 2 decimals"),
        (changed(*MONEY, "amount", to="1e3"), "legs[1].credit_transfer.amount", "must be a plain decimal number"),
        (changed(*MONEY, "amount", to="NaN"), "legs[1].credit_transfer.amount", "must be a plain decimal number"),
        (changed(*MONEY, "amount", to="1,000.00"), "legs[1].credit_transfer.amount", "must be a plain decimal number"),
        (
            changed(*MONEY, "amount", to=1.5),
            "legs[1].credit_transfer.amount",
            "must be text: numbers and times are written in quotes",
        ),
        (
            changed(*MONEY, "amount", to=100),
            "legs[1].credit_transfer.amount",
            "must be text: numbers and times are written in quotes",
        ),
        (changed(*MONEY, "debtor", "iban", to="DE89370400440532013001"), "legs[1].credit_transfer.debtor.iban", "right checksum"),
        (changed(*MONEY, "creditor", "iban", to="DE89370400440532013000"), "legs[1].credit_transfer.creditor.iban", "must differ"),
        (changed(*MONEY, "creditor", "bic", to="BNPAFRP"), "legs[1].credit_transfer.creditor.bic", "must be a BIC of 8 or 11"),
        (changed(*MONEY, "creditor", "bic", to="BNPAZZPP"), "legs[1].credit_transfer.creditor.bic", "ISO 3166 country"),
        (
            changed(*MONEY, "debtor", "institution_bic", to="MARKDEF"),
            "legs[1].credit_transfer.debtor.institution_bic",
            "must be a BIC",
        ),
        (
            changed(*MONEY, "debtor", "institution_bic", to="MARKDEFF"),
            "legs[1].credit_transfer.creditor.institution_bic",
            "both sides",
        ),
        (changed(*MONEY, "charges", to="CRED"), "legs[1].credit_transfer.charges", "DEBT"),
        (
            changed(*TOKENS, "to", "address", to="0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359"),
            "legs[0].token_transfer.to.address",
            "must be an EVM address with its EIP-55 checksum",
        ),
        (
            changed(*TOKENS, "from", "address", to="0x5aAeb6"),
            "legs[0].token_transfer.from.address",
            "must be an EVM address: 0x and 40 hex digits",
        ),
        (changed(*TOKENS, "to", "party", to="nobody"), "legs[0].token_transfer.to.party", "must be a party of the plan"),
        (changed("legs", 1, "id", to="delivery"), "legs[1].id", "must be unique in the plan"),
        (changed("legs", 1, "id", to="Delivery!"), "legs[1].id", "must match"),
        (changed("legs", 1, "id", to="journal"), "legs", "belongs to a leg that is added"),
        (changed("legs", 1, "credit_transfer", to=...), "legs[1]", "must have exactly one of token_transfer, credit_transfer and"),
        (changed("parties", 1, "id", to="seller"), "parties[1].id", "must be unique in the plan"),
        (changed("parties", to=...), "parties", "must be present"),
        (changed("deadline", to="2026-06-01T11:59:59Z"), "deadline", "must lie in the future"),
        (changed("deadline", to="2026-06-01T13:00:00"), "deadline", "must name its offset from UTC"),
        (changed("deadline", to="soon"), "deadline", "must be an RFC 3339 time or a duration"),
        (changed("deadline", to=datetime(2026, 7, 1, tzinfo=UTC)), "deadline", "must be text"),
        (changed("colour", to="blue"), "colour", "must not be there"),
        (changed(*TOKENS, "fee", to="1"), "legs[0].token_transfer.fee", "must not be there"),
        ("deadline: 1h\ndeadline: 2h\n", "deadline", "must be there once (line 2)"),
        ("- 1\n", "file", "is not acceptable"),
        ("{", "file", "must be YAML or JSON"),
        ("? [a, b]\n: c\n", "file", "must have text as keys"),
        ("1: 2\n", "file", "must have text as keys"),
        ("[" * 5000, "file", "must be YAML or JSON"),
        ("!!python/object/apply:os.system ['true']", "file", "must be YAML or JSON"),
        ("a: 1\n---\nb: 2\n", "file", "must be YAML or JSON"),
    ],
)
def test_bad_input_names_field_and_rule(text: str, field: str, rule: str) -> None:
    """Every bad input is refused with the field as the file names it and the rule that it breaks."""
    with pytest.raises(FieldInvalid) as refused:
        made(text)
    assert refused.value.field == field
    assert rule in refused.value.rule


def test_too_many_legs() -> None:
    """A plan larger than the limit is refused."""
    document = yaml.safe_load(EXAMPLE)
    document["legs"] = [document["legs"][0] | {"id": f"leg-{number}"} for number in range(63)]
    with pytest.raises(FieldInvalid, match="legs must be 1 to 64"):
        made(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("octets", "rule"), [(b"x" * (FILE_BYTES_MAX + 1), "must have at most"), (b"\xff\xfe\x00", "must be UTF-8")]
)
def test_files_that_are_none(tmp_path: Path, octets: bytes, rule: str) -> None:
    """A file that is too large or is no text is refused before it is parsed."""
    (tmp_path / "plan.yaml").write_bytes(octets)
    with pytest.raises(FieldInvalid, match=rule):
        read(tmp_path / "plan.yaml", PlanFile)


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is refused by name of the rule."""
    with pytest.raises(FieldInvalid, match="must be readable: No such file"):
        read(tmp_path / "none.yaml", PlanFile)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW + timedelta(seconds=90)),
        ("2d", NOW + timedelta(days=2)),
        ("2026-06-01T15:00:00+02:00", NOW + timedelta(hours=1)),
    ],
)
def test_deadlines(text: str, moment: datetime) -> None:
    """A deadline is a duration from now, or a time with its offset."""
    assert deadline(text, NOW) == moment


def test_salts_are_drawn_for_every_leg() -> None:
    """No two legs share a salt, the added ones included."""
    count = iter(range(100))
    draw: Callable[[], bytes] = lambda: next(count).to_bytes(16, "big")  # noqa: E731
    plan = draft(parse(EXAMPLE, PlanFile), VENUE, plan_id=str(uuid.uuid4()), now=NOW, draw_salt=draw)
    assert len({leg.salt for leg in plan.legs}) == len(plan.legs)


def test_a_plan_id_begins_with_the_time() -> None:
    """So that what the databases keep of plans that are made one after the other lies together; two of one moment differ."""
    first, second = (draw_plan(parse(EXAMPLE, PlanFile), VENUE, NOW).header.plan_id for _ in range(2))
    assert first != second
    for each in (first, second):
        found = uuid.UUID(each)
        assert (found.version, found.int >> 80) == (7, int(NOW.timestamp() * 1_000))
