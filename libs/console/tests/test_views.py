"""What the page is told, by pure functions: the board and its cursors, plans, chains, and the bytes that people sign."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from datetime import UTC, datetime
from typing import Any

import pytest
from console_world import a_plan, chain_of, escalated, shown

from lockstep.type.v1 import certificate_pb2, resolution_pb2
from lockstep_client.commands.signatures import statement
from lockstep_client.convert import plan_from_pb
from lockstep_client.planfile import deadline
from lockstep_console import signing, views
from lockstep_console.board import STATES, Board
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.resolutions import Verb
from lockstep_kit.statements import Gate, Verdict
from lockstep_testkit.factories import PARTICIPANTS, registry_of

REGISTRY = registry_of()


def board(*plans: Any, number: int = 100) -> Board:
    made = Board("epoch", changes_max=number)
    made.take(plans, as_of="now", truncated=False)
    return made


def test_the_board_counts_every_state() -> None:
    """Each of the twelve states is counted, also where no plan stands in it."""
    document = board(shown(a_plan()), shown(a_plan()), shown(a_plan(), "CLOSED")).document()
    assert len(STATES) == 12
    assert set(document["counts"]) == set(STATES)
    assert (document["counts"]["PREPARED"], document["counts"]["CLOSED"], sum(document["counts"].values())) == (2, 1, 3)


def test_only_what_changed_is_a_change() -> None:
    """A plan that was seen before with the same etag is no change; one with another is, and so is one that is gone."""
    one, two = a_plan(), a_plan()
    made = board(shown(one), shown(two))
    assert made.take([shown(one), shown(two)], as_of="then", truncated=False) == 0
    assert made.take([shown(one, "EXECUTING", etag="2")], as_of="then", truncated=False) == 2
    changes = made.since(2)
    assert changes is not None
    assert [(each.event, each.document["plan_id"]) for each in changes] == [("gone", two.plan_id), ("plan", one.plan_id)]
    assert [each["plan_id"] for each in made.document()["plans"]] == [one.plan_id]


def test_a_cursor_gives_exactly_the_rest() -> None:
    """From each cursor that was given the rest follows, without gap or duplicate."""
    case = a_plan()
    made = board()
    for number in range(1, 6):
        made.take([shown(case, etag=str(number))], as_of="now", truncated=False)
    for number in range(6):
        place = made.place(made.cursor(number))
        assert place == number
        changes = made.since(place)
        assert changes is not None
        assert [each.number for each in changes] == list(range(number + 1, 6))


@pytest.mark.parametrize("cursor", ["", "epoch", "epoch-", "epoch-6", "epoch--1", "other-2", "epoch-²", "epoch-" + "9" * 400, "-"])
def test_a_cursor_that_was_never_given(cursor: str) -> None:
    """Another process's cursor, or one that nobody gave, has no place: the whole board is told."""
    assert board(*(shown(a_plan()) for _ in range(5))).place(cursor) is None


def test_a_cursor_that_is_too_old() -> None:
    """Where changes after a cursor are no longer kept, that is said, and nothing is left out in silence."""
    made = board(*(shown(a_plan()) for _ in range(5)), number=3)
    assert made.since(1) is None
    rest = made.since(2)
    assert rest is not None
    assert [each.number for each in rest] == [3, 4, 5]


def test_hostile_names_stay_what_they_are() -> None:
    """Names in plans go through as text: nothing is escaped here, and nothing taken away, since the page never makes markup of it."""
    hostile = '<script>alert(1)</script>"\u202e'
    (line,) = board(shown(a_plan(), reference=hostile)).document()["plans"]
    assert line["reference"] == hostile


def test_gates_are_checked_with_the_consoles_registry() -> None:
    """A signature that the console's own registry does not show to be the named person's is said not to hold."""
    case = a_plan()
    plan = shown(case)
    view = views.plan_view(plan, [], REGISTRY)
    assert [(each["gate"], each["good"]) for each in view["gates"]] == [("MAKE", True), ("APPROVE", True)]
    assert view["findings"] == []
    assert [each["gate"] for each in view["gates_awaited"]] == ["RELEASE"]
    plan.gates[1].actor_id = "carol"
    assert [each["good"] for each in views.plan_view(plan, [], REGISTRY)["gates"]] == [True, False]
    others = registry_of({"mallory": ()}, set(PARTICIPANTS.values()))
    assert [each["good"] for each in views.plan_view(shown(case), [], others)["gates"]] == [False, False]


def test_a_changed_leg_is_told() -> None:
    """A coordinator that shows other legs than the plan's, or a vote that was not signed so, is told on the page."""
    plan = shown(a_plan())
    plan.legs[1].vote.lock = bytes(32)
    assert "VOTE_SIGNATURE" in {each["rule"] for each in views.plan_view(plan, [], REGISTRY)["findings"]}
    del plan.legs[0]
    assert "LEGS_ROOT_DIFFERS" in {each["rule"] for each in views.plan_view(plan, [], REGISTRY)["findings"]}


def test_a_chain_that_holds() -> None:
    """An honest chain holds; one that is not as long yet as the coordinator says is behind, and not broken."""
    case = a_plan()
    plan = shown(case)
    plan.journal_sequence = 3
    view = views.journal_view(plan, chain_of(case), REGISTRY)
    assert (view["verdict"], view["entry_count"], view["findings"]) == ("HOLDS", 3, [])
    assert [each["payload"]["n"] for each in view["entries"]] == [1, 2, 3]
    plan.journal_sequence = 4
    assert views.journal_view(plan, chain_of(case), REGISTRY)["verdict"] == "BEHIND"


@pytest.mark.parametrize("lie", ["payload", "signer", "gap", "other plan"])
def test_a_chain_that_does_not_hold(lie: str) -> None:
    """A changed payload, another signer, a missing entry and another plan's chain are found by the console itself."""
    case = a_plan()
    plan, entries = shown(case), chain_of(case)
    match lie:
        case "payload":
            entries[1].payload = b'{"n":7}'
        case "signer":
            entries = chain_of(case, by="notary")
        case "gap":
            del entries[1]
        case _:
            entries = chain_of(a_plan())
    view = views.journal_view(plan, entries, REGISTRY)
    assert view["verdict"] == "BROKEN"
    assert view["findings"]
    assert "do not sign" in view["says"]


# -- what people sign -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_bytes_of_a_gate_are_the_commands(verdict: Verdict) -> None:
    """With the nonce and the end that the shown command names, the `lockstep` command's own function makes the very bytes that are shown."""
    plan = shown(a_plan())
    told = signing.gate_to_sign(plan, "RELEASE", verdict, REGISTRY)
    words = shlex.split(told["command"])
    given = {name: words[words.index(name) + 1] for name in ("--gate", "--valid", "--nonce", "--key")}
    until = deadline(given["--valid"], datetime.now(UTC))
    chosen = Verdict.REJECT if "--reject" in words else Verdict.APPROVE
    theirs = statement(Gate(given["--gate"].upper()), chosen, plan_from_pb(plan), REGISTRY, until, bytes.fromhex(given["--nonce"]))
    octets = theirs.message().signed_bytes()
    assert chosen is verdict
    assert told["hex"] == octets.hex()
    assert base64.b64decode(told["base64"]) == octets
    assert (told["sha256"], told["byte_count"]) == (hashlib.sha256(octets).hexdigest(), len(octets))
    assert (
        json.loads(told["text"].partition("\n")[2] or told["text"][told["text"].index("{") :])["votes_digest"]
        == plan.votes_digest.hex()
    )


def test_each_showing_has_a_nonce_of_its_own() -> None:
    """Two persons who sign the same gate do not use one nonce."""
    plan = shown(a_plan())
    assert (
        signing.gate_to_sign(plan, "RELEASE", "APPROVE", REGISTRY)["hex"]
        != signing.gate_to_sign(plan, "RELEASE", "APPROVE", REGISTRY)["hex"]
    )


@pytest.mark.parametrize(
    ("gate", "verdict"), [("MAKE", "APPROVE"), ("CANCEL", "APPROVE"), ("release", "APPROVE"), ("RELEASE", "MAYBE")]
)
def test_gates_that_nobody_signs_here(gate: str, verdict: str) -> None:
    """Another gate or verdict is refused, and the field is named."""
    with pytest.raises(FieldInvalid, match="must be"):
        signing.gate_to_sign(shown(a_plan()), gate, verdict, REGISTRY)


def test_a_resolution_is_shown_with_its_command() -> None:
    """The words that a person wrote are one argument of the command, whatever is in them."""
    case = a_plan()
    answer = escalated(case, shown(case), [(resolution_pb2.VERB_RETRY, "")])
    detail = 'it\'s back; $(rm -rf /) `x` "y"'
    told = signing.resolution_to_sign(answer, signing.asked_for("escalation-1", "RETRY", "", "", "", detail))
    words = shlex.split(told["command"])
    assert words[:5] == ["lockstep", "escalations", "sign", "escalation-1", "--verb"]
    assert words[words.index("--detail") + 1] == detail
    document = json.loads(told["text"][told["text"].index("{") :])
    assert (document["nonce"], document["expires_at"]) == (words[words.index("--nonce") + 1], words[words.index("--valid") + 1])


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("verb", ("STEAL", "", "", "", "why")),
        ("detail", ("RETRY", "", "", "", "  ")),
        ("executed", ("RESOLVE", "cash", "perhaps", "", "why")),
        ("evidence", ("RESOLVE", "cash", "yes", "x" * 10_000, "why")),
        ("evidence", ("RESOLVE", "cash", "yes", "{", "why")),
        ("evidence", ("RESOLVE", "cash", "yes", '{"bank": {"bank": "COBADEFFXXX"}}', "why")),
        ("evidence", ("RESOLVE", "cash", "yes", "{}", "why")),
    ],
)
def test_a_form_that_breaks_a_rule(field: str, arguments: tuple[str, str, str, str, str]) -> None:
    """The field that breaks a rule is named."""
    with pytest.raises(FieldInvalid) as refusal:
        signing.asked_for("escalation-1", *arguments)
    assert refusal.value.field == field


def test_every_verb_says_what_it_does() -> None:
    """Each option that the coordinator allows has its text; one that this version does not know has none, and is shown all the same."""
    assert set(views.VERBS) == set(Verb)
    case = a_plan()
    options = [(resolution_pb2.VERB_RETRY, ""), (resolution_pb2.VERB_RESOLVE, "cash"), (resolution_pb2.VERB_RESOLVE, ""), (99, "")]
    view = views.escalation_view(escalated(case, shown(case), options))
    texts = [each["does"] for each in view["options"]]
    assert [bool(each) for each in texts] == [True, True, True, False]
    assert len(set(texts)) == 4


def test_a_retry_says_where_it_has_the_plan_go_on() -> None:
    """Where legs stand differently though the plan was decided to be settled, RETRY moves money on: the page says so, there alone."""
    case = a_plan()
    for state, decision, goes_on in (("PARTIALLY_EXECUTED", 1, True), ("PARTIALLY_EXECUTED", 2, False), ("EXECUTING", 1, False)):
        answer = escalated(case, shown(case, state), [(resolution_pb2.VERB_RETRY, "")])
        answer.escalation.decision = certificate_pb2.Decision.ValueType(decision)
        (option,) = views.escalation_view(answer)["options"]
        assert ("goes on" in option["does"]) is goes_on, (state, decision)
