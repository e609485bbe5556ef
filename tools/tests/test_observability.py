"""Alerts fire on what they are about and on nothing else, and everything that rules, dashboards and runbooks name is there."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
pages: Any = importlib.import_module("metrics_page")

FOLDER = ROOT / "deploy" / "observability"
ALERTS = FOLDER / "alerts.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
#: Runbooks of what nobody is alerted to.
GENERAL = frozenset({"README", "key-rotation"})
SECONDS_MAX = 120
#: Series are looked at after so many minutes; those of an incident begin well before.
AT = 80

Series = Mapping[str, str]

_JOBS = {
    name: f'job="lockstep-{name}",instance="{name}:9464"'
    for name in ("coordinator", "bank-gateway", "dlt-gateway", "notary", "event-journal")
}
_COORDINATOR, _BANK, _DLT, _NOTARY, _JOURNAL = _JOBS.values()
_EVERYBODY = {
    "up{%s}": "1x240",
    "lockstep_certificate_expiry_timestamp_seconds{%s}": "1000000x240",
    "lockstep_database_pool_waiting{%s}": "0 1x2 0x236",
    'lockstep_event_loop_lag_seconds_bucket{%s,le="0.5"}': "0+120x240",
    'lockstep_event_loop_lag_seconds_bucket{%s,le="+Inf"}': "0+120x240",
    'lockstep_sample_timestamp_seconds{%s,reading="r"}': "0+60x240",
    'lockstep_loop_failures_total{%s,loop="l"}': "0+1x240",
    'lockstep_rpc_server_requests_total{%s,method="m",code="INTERNAL"}': "0x240",
    'lockstep_rpc_server_requests_total{%s,method="m",code="UNAVAILABLE"}': "0+100x240",
}
#: What an installation shows that does its work.
HEALTHY: Series = {
    **{series % labels: values for labels in _JOBS.values() for series, values in _EVERYBODY.items()},
    **{f'lockstep_build{{{labels},service="{name}"}}': "1x240" for name, labels in _JOBS.items()},
    f'lockstep_in_doubt_amount{{{_COORDINATOR},asset="EUR",age="under_5m"}}': "98750x240",
    f'lockstep_in_doubt_amount{{{_COORDINATOR},asset="EUR",age="under_1h"}}': "0x240",
    f'lockstep_in_doubt_amount{{{_COORDINATOR},asset="EUR",age="over_1h"}}': "0x240",
    f"lockstep_in_doubt_cut{{{_COORDINATOR}}}": "0x240",
    f'lockstep_plans_open{{{_COORDINATOR},state="EXECUTING"}}': "10x240",
    f'lockstep_plans_open{{{_COORDINATOR},state="PARTIALLY_EXECUTED"}}': "0x240",
    f'lockstep_plans_open{{{_COORDINATOR},state="UNWIND_PENDING"}}': "0x240",
    f'lockstep_plan_oldest_age_seconds{{{_COORDINATOR},state="DRAFT"}}': "9000x240",
    f'lockstep_plan_oldest_age_seconds{{{_COORDINATOR},state="PREPARED"}}': "1800x240",
    f'lockstep_plan_oldest_age_seconds{{{_COORDINATOR},state="VALIDATING"}}': "60x240",
    f'lockstep_settlements_total{{{_COORDINATOR},outcome="COMMITTED"}}': "0+10x240",
    f'lockstep_settlements_total{{{_COORDINATOR},outcome="MIXED"}}': "3x240",
    f'lockstep_orphan_legs{{{_COORDINATOR},participant="bank-gateway"}}': "0x60 1x10 0x130",
    f'lockstep_escalations_open{{{_COORDINATOR},reason="R",acknowledged="no"}}': "0x240",
    f'lockstep_escalation_oldest_age_seconds{{{_COORDINATOR},reason="R",acknowledged="no"}}': "0x240",
    f'lockstep_outbox_oldest_age_seconds{{{_COORDINATOR},destination="hook"}}': "600x240",
    f'lockstep_command_oldest_age_seconds{{{_COORDINATOR},participant="notary",command="COMMIT"}}': "600x240",
    f'lockstep_participant_heard_timestamp_seconds{{{_COORDINATOR},participant="notary"}}': "0+60x240",
    f'lockstep_dead_letters{{{_COORDINATOR},destination="notary"}}': "0x240",
    f"lockstep_journal_lag_oldest_age_seconds{{{_COORDINATOR}}}": "120x240",
    f"lockstep_lease_takeovers_total{{{_COORDINATOR}}}": "0x40 40x160",
    f'lockstep_participant_leg_oldest_age_seconds{{{_BANK},phase="PREPARED"}}': "90000x240",
    f'lockstep_participant_leg_oldest_age_seconds{{{_BANK},phase="COMMITTING"}}': "600x240",
    **{
        series % labels: values
        for labels in (_DLT, _NOTARY)
        for series, values in {
            "lockstep_chain_answered_timestamp_seconds{%s}": "0+60x240",
            "lockstep_chain_head_timestamp_seconds{%s}": "0+60x240",
            'lockstep_chain_account_held_up{%s,address="0xA"}': "0x60 1x1 0x140",
            "lockstep_chain_finality_contradicted{%s}": "0x240",
            'lockstep_chain_foreign_nonces_total{%s,address="0xA"}': "2x240",
            'lockstep_chain_nonce_gaps_filled_total{%s,address="0xA"}': "2x240",
            'lockstep_chain_nonces_passed{%s,address="0xA"}': "0x240",
            "lockstep_chain_reorganised_transactions_total{%s}": "2x240",
            'lockstep_chain_transactions_total{%s,state="final"}': "0+10x240",
            **{f'lockstep_chain_transactions_total{{%s,state="{state}"}}': "2x240" for state in ("manual", "reverted", "dead")},
            'lockstep_chain_transaction_oldest_age_seconds{%s,state="sent"}': "600x240",
        }.items()
    },
    f"lockstep_bank_answered_timestamp_seconds{{{_BANK}}}": "0+60x240",
    f'lockstep_bank_messages_sent_total{{{_BANK},action="SEND",answer="Accepted"}}': "0+10x240",
    f'lockstep_bank_messages_sent_total{{{_BANK},action="SEND",answer="TurnedDown"}}': "2x240",
    f"lockstep_bank_messages_quarantined_total{{{_BANK}}}": "2x240",
    f'lockstep_bank_matters_open{{{_BANK},kind="PAYMENT_RETURNED"}}': "0x240",
    f"lockstep_journal_entries_outside_tree{{{_JOURNAL}}}": "0x60 5x9 0x131",
    f"lockstep_journal_entries_unsigned{{{_JOURNAL}}}": "0x240",
    f"lockstep_witness_alarms_open{{{_NOTARY}}}": "0x240",
    f"lockstep_witness_looked_age_seconds{{{_NOTARY}}}": "300x240",
    f'lockstep_anchor_oldest_age_seconds{{{_NOTARY},kind="checkpoint"}}': "1800x240",
    f"lockstep_notary_escalation_record_oldest_age_seconds{{{_NOTARY}}}": "1800x240",
}
_COUNTED = "2x75 3x124"
_ESCALATED = {
    f'lockstep_escalations_open{{{_COORDINATOR},reason="R",acknowledged="no"}}': "1x240",
    f'lockstep_escalation_oldest_age_seconds{{{_COORDINATOR},reason="R",acknowledged="no"}}': "900x79 901x120",
}
#: Alert -> what is otherwise when it fires, and which others fire with it.
INCIDENTS: Mapping[str, tuple[Series, frozenset[str]]] = {
    name: (otherwise, frozenset(others))
    for name, otherwise, *others in (
        ("LockstepMoneyInDoubt", {f'lockstep_in_doubt_amount{{{_COORDINATOR},asset="EUR",age="under_1h"}}': "0x70 0.01x130"}),
        ("LockstepInDoubtCut", {f"lockstep_in_doubt_cut{{{_COORDINATOR}}}": "1x240"}),
        ("LockstepPlanPartiallyExecuted", {f'lockstep_plans_open{{{_COORDINATOR},state="UNWIND_PENDING"}}': "0x79 1x120"}),
        ("LockstepMixedOutcome", {f'lockstep_settlements_total{{{_COORDINATOR},outcome="MIXED"}}': "3x75 4x124"}),
        ("LockstepOrphanLegs", {f'lockstep_orphan_legs{{{_COORDINATOR},participant="bank-gateway"}}': "0x60 1x140"}),
        (
            "LockstepEscalationOpen",
            {
                f'lockstep_escalations_open{{{_COORDINATOR},reason="R",acknowledged="yes"}}': "0x79 1x120",
                f'lockstep_escalation_oldest_age_seconds{{{_COORDINATOR},reason="R",acknowledged="yes"}}': "9000x240",
            },
        ),
        ("LockstepEscalationUnacknowledged", _ESCALATED, "LockstepEscalationOpen"),
        ("LockstepGateOverdue", {f'lockstep_plan_oldest_age_seconds{{{_COORDINATOR},state="VALIDATING"}}': "0+60x240"}),
        ("LockstepOutboxStuck", {f'lockstep_outbox_oldest_age_seconds{{{_COORDINATOR},destination="hook"}}': "601x240"}),
        (
            "LockstepCommandUnanswered",
            {f'lockstep_command_oldest_age_seconds{{{_COORDINATOR},participant="notary",command="COMMIT"}}': "601x240"},
        ),
        (
            "LockstepParticipantUnheard",
            {f'lockstep_participant_heard_timestamp_seconds{{{_COORDINATOR},participant="notary"}}': "0+60x70 4200x129"},
        ),
        ("LockstepLegStuck", {f'lockstep_participant_leg_oldest_age_seconds{{{_BANK},phase="COMMITTING"}}': "601x240"}),
        ("LockstepDeadLetter", {f'lockstep_dead_letters{{{_COORDINATOR},destination="notary"}}': "1x240"}),
        ("LockstepForeignNonce", {f'lockstep_chain_transactions_total{{{_DLT},state="manual"}}': _COUNTED}),
        ("LockstepNonceGap", {f'lockstep_chain_nonce_gaps_filled_total{{{_DLT},address="0xA"}}': _COUNTED}),
        ("LockstepTransactionFailed", {f'lockstep_chain_transactions_total{{{_NOTARY},state="reverted"}}': _COUNTED}),
        ("LockstepReorgBelowFinality", {f"lockstep_chain_finality_contradicted{{{_DLT}}}": "1x240"}),
        ("LockstepReorganised", {f"lockstep_chain_reorganised_transactions_total{{{_DLT}}}": _COUNTED}),
        ("LockstepChainDown", {f"lockstep_chain_answered_timestamp_seconds{{{_DLT}}}": "0+60x70 4200x129"}),
        (
            "LockstepChainLagging",
            {
                f"lockstep_chain_head_timestamp_seconds{{{_DLT}}}": "0+60x70 4200x129",
                f"lockstep_chain_answered_timestamp_seconds{{{_DLT}}}": "0+60x240",
            },
        ),
        ("LockstepTransactionsStuck", {f'lockstep_chain_transaction_oldest_age_seconds{{{_DLT},state="sent"}}': "601x240"}),
        ("LockstepBankSilent", {f"lockstep_bank_answered_timestamp_seconds{{{_BANK}}}": "0+60x70 4200x129"}),
        (
            "LockstepBankRefusesDelivery",
            {f'lockstep_bank_messages_sent_total{{{_BANK},action="SEND",answer="TurnedDown"}}': _COUNTED},
        ),
        ("LockstepBankQuarantine", {f"lockstep_bank_messages_quarantined_total{{{_BANK}}}": _COUNTED}),
        ("LockstepBankMatter", {f'lockstep_bank_matters_open{{{_BANK},kind="PAYMENT_RETURNED"}}': "1x240"}),
        ("LockstepJournalLag", {f"lockstep_journal_lag_oldest_age_seconds{{{_COORDINATOR}}}": "121x240"}),
        ("LockstepJournalTreeLag", {f"lockstep_journal_entries_unsigned{{{_JOURNAL}}}": "0x65 7x135"}),
        ("LockstepWitnessAlarm", {f"lockstep_witness_alarms_open{{{_NOTARY}}}": "1x240"}),
        ("LockstepWitnessSilent", {f"lockstep_witness_looked_age_seconds{{{_NOTARY}}}": "301x240"}),
        ("LockstepAnchorLag", {f'lockstep_anchor_oldest_age_seconds{{{_NOTARY},kind="checkpoint"}}': "1801x240"}),
        ("LockstepEscalationRecordLag", {f"lockstep_notary_escalation_record_oldest_age_seconds{{{_NOTARY}}}": "1801x240"}),
        ("LockstepServiceDown", {f"up{{{_DLT}}}": "1x70 0x130"}),
        ("LockstepServiceMissing", {f'lockstep_build{{{_NOTARY},service="notary"}}': "1x65 stale"}),
        ("LockstepCertificateExpiry", {f"lockstep_certificate_expiry_timestamp_seconds{{{_BANK}}}": "14400x240"}),
        (
            "LockstepCertificateExpired",
            {f"lockstep_certificate_expiry_timestamp_seconds{{{_BANK}}}": "6000x240"},
            "LockstepCertificateExpiry",
        ),
        ("LockstepLeaseFlapping", {f"lockstep_lease_takeovers_total{{{_COORDINATOR}}}": "0x25 1x20 2x20 3x175"}),
        ("LockstepPoolExhausted", {f"lockstep_database_pool_waiting{{{_JOURNAL}}}": "0x70 1x130"}),
        (
            "LockstepEventLoopLag",
            {
                f'lockstep_event_loop_lag_seconds_bucket{{{_JOURNAL},le="0.5"}}': "0+118x240",
                f'lockstep_event_loop_lag_seconds_bucket{{{_JOURNAL},le="1.0"}}': "0+120x240",
            },
        ),
        ("LockstepRowsNotRead", {f'lockstep_sample_timestamp_seconds{{{_NOTARY},reading="r"}}': "0+60x70 4200x129"}),
        ("LockstepLoopFailing", {f'lockstep_loop_failures_total{{{_NOTARY},loop="l"}}': "0+3x240"}),
        ("LockstepInternalErrors", {f'lockstep_rpc_server_requests_total{{{_NOTARY},method="m",code="INTERNAL"}}': "0x75 1x124"}),
    )
}


def rules(path: Path = ALERTS) -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    found = [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found)
    return {rule["alert"]: rule for rule in found}


def recorded(series: Series, firing: frozenset[str]) -> dict[str, Any]:
    """A test of promtool: series, and the alerts that fire by then."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{AT}m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
            }
        ],
    }


def incident(name: str) -> dict[str, Any]:
    """Of the metrics that are otherwise, all series; and who is there, since somebody's absence is an incident too."""
    otherwise, others = INCIDENTS[name]
    metrics = {"lockstep_build", *(each.partition("{")[0] for each in otherwise)}
    healthy = {each: values for each, values in HEALTHY.items() if each.partition("{")[0] in metrics}
    return recorded({**healthy, **otherwise}, others | {name})


@pytest.fixture(scope="session")
def promtool() -> str:
    """The program, as set-up found it; the test is skipped, and says why, where it cannot be had."""
    if named := os.environ.get("LOCKSTEP_PROMTOOL"):
        return named
    folder = ROOT / ".prometheus"
    if (folder / "absent").is_file():
        pytest.skip(f"promtool: {(folder / 'absent').read_text().strip()}")
    return (folder / "found").read_text().strip()


def run(promtool: str, folder: Path, alerts: Mapping[str, Any], cases: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Have rules tested."""
    (folder / "alerts.yaml").write_text(yaml.safe_dump(alerts))
    (folder / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": cases}))
    command = [promtool, "test", "rules", "tests.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)


def test_alerts_fire_on_what_they_are_about_and_on_nothing_else(promtool: str, tmp_path: Path) -> None:
    """Of an installation that does its work none fires, at the very edge of every threshold; of each incident its own, and those that are named with it."""
    assert INCIDENTS.keys() == rules().keys()
    done = run(promtool, tmp_path, yaml.safe_load(ALERTS.read_text()), [recorded(HEALTHY, frozenset()), *map(incident, INCIDENTS)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_alert_is_noticed(promtool: str, tmp_path: Path) -> None:
    """Of alerts that never fire each fails the test of its incident, and of alerts that always do each is named by that of health."""
    present = {each: values for each, values in HEALTHY.items() if each.startswith("lockstep_build")}
    never = run(promtool, tmp_path, replaced("vector(0) > 1"), [incident(name) for name in INCIDENTS])
    assert never.stderr.count("exp:") == len(INCIDENTS), never.stderr
    always = run(promtool, tmp_path, replaced("vector(1)"), [recorded(present, frozenset())])
    assert set(re.findall(r'alertname="(\w+)"', always.stderr.partition("got:")[2])) == INCIDENTS.keys(), always.stderr


def replaced(expression: str) -> dict[str, Any]:
    """The rules, each with another expression."""
    alerts: dict[str, Any] = yaml.safe_load(ALERTS.read_text())
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        rule["expr"] = expression
    return alerts


def documented() -> set[str]:
    """Every series that a service shows: metrics, and what histograms are made of."""
    found: set[str] = set()
    for metrics in pages.SERVICES.values():
        for each in metrics.definitions():
            suffixes = ("_bucket", "_count", "_sum") if each.kind == "histogram" else ("",)
            found |= {each.name + suffix for suffix in suffixes}
    return found


def test_rules_and_dashboards_name_metrics_that_there_are() -> None:
    """And labels' names are those of the metrics, as far as one can see."""
    texts = {ALERTS: " ".join(rule["expr"] for rule in rules().values())}
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        texts[path] = " ".join(expressions(json.loads(path.read_text())))
    assert len(texts) == 6
    for path, text in texts.items():
        used = set(re.findall(r"\blockstep_\w+", text))
        assert used, path
        assert used <= documented(), (path.name, sorted(used - documented()))


def expressions(part: Any) -> list[str]:
    """Every query of a dashboard."""
    if isinstance(part, dict):
        return [
            *([part["expr"]] if isinstance(part.get("expr"), str) else []),
            *(each for value in part.values() for each in expressions(value)),
        ]
    return [each for value in part for each in expressions(value)] if isinstance(part, list) else []


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """Severity, one sentence, and a page that is there; a page that no alert leads to is one of the general ones, and the list holds all."""
    led = set()
    for name, rule in rules().items():
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert rule["annotations"]["summary"], name
        path = ROOT / rule["annotations"]["runbook_url"]
        assert path.parent == RUNBOOKS, name
        assert path.is_file(), name
        assert name in path.read_text(), f"{path.name} does not name {name}"
        led.add(path.stem)
    pages_there = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages_there == led | GENERAL
    listed = (RUNBOOKS / "README.md").read_text()
    assert [stem for stem in sorted(pages_there - {"README"}) if f"({stem}.md)" not in listed] == []


def test_runbooks_name_commands_and_metrics_that_there_are() -> None:
    """What is typed at three in the morning exists."""
    cli = {
        path: (path.parent.name, path.read_text())
        for path in (ROOT / "libs" / "client" / "src" / "lockstep_client" / "commands").glob("*.py")
    }
    words = " ".join(text for _, text in cli.values()) + (ROOT / "libs/client/src/lockstep_client/cli.py").read_text()
    for path in sorted(RUNBOOKS.glob("*.md")):
        text = path.read_text()
        for name in re.findall(r"\blockstep_\w+\b", text):
            if name.removeprefix("lockstep_") not in {"kit", "client", "chain", "monitor", "verify"}:
                assert name in documented() or f"{name}_bucket" in documented(), (path.name, name)
        for option in re.findall(
            r"(?<![\w-])--[a-z][a-z-]+", " ".join(re.findall(r"(?m)^ {4}lockstep .*$|`lockstep [^`]*`", text))
        ):
            assert f'"{option}' in words or option in words, (path.name, option)
        for heading in () if path.stem == "README" else ("What it means", "What is at risk", "How to see", "What to do", "Never"):
            assert f"## {heading}" in text, (path.name, heading)
