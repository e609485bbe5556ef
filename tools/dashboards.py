"""The dashboards of deploy/observability/dashboards, as Grafana reads them (JSON model, schema version 39).

A panel's queries are (PromQL, legend). Gauges that come from rows are taken by max, since every replica reads the same rows; counters are summed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, COLUMNS, HEIGHT = 24, 3, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}

UNSIGNED = 'lockstep_escalations_open{acknowledged="no"}'
BROKEN = 'lockstep_plans_open{state=~"PARTIALLY_EXECUTED|UNWIND_PENDING"}'


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    #: Of Grafana: s, short, none, reqps.
    unit: str
    #: PromQL and legend of each.
    queries: Sequence[tuple[str, str]]
    #: stat: a number; timeseries: a line.
    kind: str = "timeseries"
    #: Whether anything above zero is shown in red.
    alarming: bool = False


def total(metric: str, by: str) -> str:
    """A counter's rate, of all replicas."""
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def most(metric: str, by: str = "") -> str:
    """A gauge from rows."""
    return f"max by ({by}) ({metric})" if by else f"max({metric})"


def quantile(share: float, metric: str, by: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket[$__rate_interval])))"


def zero(title: str, expression: str, legend: str = "") -> Panel:
    """A number that is zero while all is well."""
    return Panel(title, "short", [(expression, legend)], "stat", alarming=True)


DASHBOARDS: Mapping[str, tuple[str, Sequence[Panel]]] = {
    "settlements": (
        "Lockstep: settlements",
        (
            zero("In doubt for more than 5 minutes", most('lockstep_in_doubt_amount{age!="under_5m"}', "asset"), "{{asset}}"),
            zero("Escalations nobody has signed about", f"sum({most(UNSIGNED, 'reason')})"),
            zero("Partially executed or unwinding", f"sum({most(BROKEN, 'state')})"),
            Panel("Settlements per second, by outcome", "reqps", [(total("lockstep_settlements_total", "outcome"), "{{outcome}}")]),
            Panel("Open plans, by state", "short", [(most("lockstep_plans_open", "state"), "{{state}}")]),
            Panel("Oldest plan in its state", "s", [(most("lockstep_plan_oldest_age_seconds", "state"), "{{state}}")]),
            Panel(
                "From creation to closing",
                "s",
                [
                    (quantile(share, "lockstep_settlement_duration_seconds", "outcome"), f"p{share * 100:.0f} {{{{outcome}}}}")
                    for share in (0.5, 0.99)
                ],
            ),
            Panel("Time in a state, p95", "s", [(quantile(0.95, "lockstep_plan_state_duration_seconds", "state"), "{{state}}")]),
            Panel("Waiting for people, p95", "s", [(quantile(0.95, "lockstep_gate_wait_seconds", "gate"), "{{gate}}")]),
            Panel("In doubt, by asset and age", "none", [(most("lockstep_in_doubt_amount", "asset, age"), "{{asset}} {{age}}")]),
            Panel("In doubt, by why", "short", [(most("lockstep_in_doubt_legs", "doubt"), "{{doubt}}")]),
            Panel("Escalations raised", "reqps", [(total("lockstep_escalations_total", "reason"), "{{reason}}")]),
            Panel(
                "Commands without an answer",
                "short",
                [(most("lockstep_commands_unanswered", "participant, command"), "{{participant}} {{command}}")],
            ),
            Panel("What waits in outboxes", "s", [(most("lockstep_outbox_oldest_age_seconds", "destination"), "{{destination}}")]),
            Panel("Dead letters", "short", [(most("lockstep_dead_letters", "destination"), "{{destination}}")]),
            Panel(
                "Participants heard last",
                "s",
                [
                    (
                        "time() - min by (instance, participant) (lockstep_participant_heard_timestamp_seconds)",
                        "{{instance}} {{participant}}",
                    )
                ],
            ),
        ),
    ),
    "services": (
        "Lockstep: services",
        (
            Panel(
                "Certificates end in",
                "s",
                [("min by (job) (lockstep_certificate_expiry_timestamp_seconds) - time()", "{{job}}")],
                "stat",
            ),
            zero("Work that waits for the database", "sum by (job) (lockstep_database_pool_waiting)", "{{job}}"),
            Panel("Replicas", "short", [("sum by (service) (lockstep_build)", "{{service}}")], "stat"),
            Panel("Calls per second", "reqps", [(total("lockstep_rpc_server_requests_total", "job, code"), "{{job}} {{code}}")]),
            Panel("Calls, p99", "s", [(quantile(0.99, "lockstep_rpc_server_duration_seconds", "job, method"), "{{method}}")]),
            Panel("Open streams", "short", [("sum by (job, method) (lockstep_rpc_server_streams_open)", "{{job}} {{method}}")]),
            Panel("Event loop lag, p99", "s", [(quantile(0.99, "lockstep_event_loop_lag_seconds", "job"), "{{job}}")]),
            Panel(
                "Database connections in use",
                "short",
                [('sum by (job) (lockstep_database_pool_connections{use="in_use"})', "{{job}}")],
            ),
            Panel("Loops that fail", "reqps", [(total("lockstep_loop_failures_total", "job, loop"), "{{job}} {{loop}}")]),
            Panel("Take-overs", "reqps", [(total("lockstep_lease_takeovers_total", "instance"), "{{instance}}")]),
            Panel(
                "Legs that are owed something, by phase",
                "short",
                [(most("lockstep_participant_legs", "job, phase"), "{{job}} {{phase}}")],
            ),
            Panel(
                "Oldest leg in its phase",
                "s",
                [(most("lockstep_participant_leg_oldest_age_seconds", "job, phase"), "{{job}} {{phase}}")],
            ),
            Panel(
                "Rows read last",
                "s",
                [("time() - max by (job, reading) (lockstep_sample_timestamp_seconds)", "{{job}} {{reading}}")],
            ),
            Panel("Rows not read", "reqps", [(total("lockstep_sample_failures_total", "job, reading"), "{{job}} {{reading}}")]),
            Panel(
                "Processor",
                "short",
                [('sum by (job) (rate(process_cpu_seconds_total{job=~"lockstep-.+"}[$__rate_interval]))', "{{job}}")],
            ),
        ),
    ),
    "chain": (
        "Lockstep: chain",
        (
            zero("Another block where one was final", most("lockstep_chain_finality_contradicted", "job"), "{{job}}"),
            zero("Accounts held up", "sum by (job) (min by (job, address) (lockstep_chain_account_held_up))", "{{job}}"),
            zero("Nonces that nothing has", most("lockstep_chain_nonces_passed", "address"), "{{address}}"),
            Panel(
                "Head and final block",
                "none",
                [
                    (most("lockstep_chain_head_block", "job"), "{{job}} head"),
                    (most("lockstep_chain_final_block", "job"), "{{job}} final"),
                ],
            ),
            Panel("Age of the head", "s", [("time() - max by (job) (lockstep_chain_head_timestamp_seconds)", "{{job}}")]),
            Panel(
                "Since the chain answered", "s", [("time() - max by (job) (lockstep_chain_answered_timestamp_seconds)", "{{job}}")]
            ),
            Panel(
                "Transactions on their way",
                "short",
                [(most("lockstep_chain_transactions_open", "job, state"), "{{job}} {{state}}")],
            ),
            Panel(
                "Oldest of them", "s", [(most("lockstep_chain_transaction_oldest_age_seconds", "job, state"), "{{job}} {{state}}")]
            ),
            Panel(
                "Transactions that ended",
                "reqps",
                [(total("lockstep_chain_transactions_total", "job, state"), "{{job}} {{state}}")],
            ),
            Panel("Reorganised", "reqps", [(total("lockstep_chain_reorganised_transactions_total", "job"), "{{job}}")]),
            Panel(
                "Nonces used by others, gaps filled",
                "reqps",
                [
                    (total("lockstep_chain_foreign_nonces_total", "address"), "{{address}} foreign"),
                    (total("lockstep_chain_nonce_gaps_filled_total", "address"), "{{address}} filled"),
                ],
            ),
            Panel(
                "Endpoints left out",
                "reqps",
                [(total("lockstep_chain_endpoint_outages_total", "job, endpoint"), "{{job}} {{endpoint}}")],
            ),
        ),
    ),
    "bank": (
        "Lockstep: bank",
        (
            zero("Open matters", most("lockstep_bank_matters_open", "kind"), "{{kind}}"),
            zero("Quarantined since the start", "sum(lockstep_bank_messages_quarantined_total)"),
            zero("Most attempts of one message", most("lockstep_bank_outbox_attempts_max", "state"), "{{state}}"),
            Panel(
                "Sent, by how the bank took it",
                "reqps",
                [(total("lockstep_bank_messages_sent_total", "action, answer"), "{{action}} {{answer}}")],
            ),
            Panel(
                "Received, by kind and status",
                "reqps",
                [(total("lockstep_bank_messages_received_total", "kind, status"), "{{kind}} {{status}}")],
            ),
            Panel("Since the mailbox answered", "s", [("time() - max(lockstep_bank_answered_timestamp_seconds)", "mailbox")]),
            Panel("For the bank, by state", "short", [(most("lockstep_bank_outbox_messages", "state"), "{{state}}")]),
            Panel("Oldest matter", "s", [(most("lockstep_bank_matter_oldest_age_seconds", "kind"), "{{kind}}")]),
            Panel(
                "Oldest leg, by phase",
                "s",
                [(most('lockstep_participant_leg_oldest_age_seconds{job="lockstep-bank-gateway"}', "phase"), "{{phase}}")],
            ),
        ),
    ),
    "journal": (
        "Lockstep: journal, anchors, witness",
        (
            zero("Alarms of the witness", most("lockstep_witness_alarms_open")),
            zero("Events the journal lacks", most("lockstep_journal_lag_events")),
            zero(
                "Entries under no checkpoint",
                f"{most('lockstep_journal_entries_outside_tree')} + {most('lockstep_journal_entries_unsigned')}",
            ),
            Panel("Journal lag", "s", [(most("lockstep_journal_lag_oldest_age_seconds"), "oldest event")]),
            Panel("Plans that wait for the journal", "short", [(most("lockstep_journal_lag_plans"), "plans")]),
            Panel(
                "Entries, and those that are witnessed",
                "none",
                [(most("lockstep_journal_entries"), "entries"), (most("lockstep_witness_tree_entries"), "witnessed")],
            ),
            Panel("Newest checkpoint", "s", [(most("lockstep_journal_checkpoint_age_seconds"), "age")]),
            Panel("Since the witness looked", "s", [(most("lockstep_witness_looked_age_seconds"), "age")]),
            Panel("Oldest root without its anchor", "s", [(most("lockstep_anchor_oldest_age_seconds", "kind"), "{{kind}}")]),
            Panel("Roots without their anchors", "short", [(most("lockstep_anchors_waiting", "kind"), "{{kind}}")]),
            Panel("Leaves in no batch", "short", [(most("lockstep_notary_leaves_waiting"), "leaves")]),
            Panel(
                "Records of escalations not on chain", "short", [(most("lockstep_notary_escalation_records_waiting"), "records")]
            ),
        ),
    ),
}


def document(name: str) -> str:
    """A dashboard's file."""
    title, panels = DASHBOARDS[name]
    found = {
        "uid": f"lockstep-{name}",
        "title": title,
        "tags": ["lockstep"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}]},
        "panels": [drawn(place, panel) for place, panel in enumerate(panels)],
    }
    return json.dumps(found, indent=2) + "\n"


def drawn(place: int, panel: Panel) -> dict[str, Any]:
    """A panel in its place, three in a row."""
    width = WIDTH // COLUMNS
    colours = {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": 0.000001}]}
    return {
        "id": place + 1,
        "title": panel.title,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": width, "x": place % COLUMNS * width, "y": place // COLUMNS * HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **({"thresholds": colours} if panel.alarming else {})},
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "exemplar": "_bucket" in query,
            }
            for number, (query, legend) in enumerate(panel.queries)
        ],
    }
