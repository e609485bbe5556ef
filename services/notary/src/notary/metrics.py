"""What the notary shows beside what every participant shows: its chain, what waits to be anchored, and how it stands as the journal's witness."""

from __future__ import annotations

from typing import Final

from lockstep_chain import metrics as chain
from lockstep_kit.metrics.readings import Measure, Query
from lockstep_kit.metrics.serving import Metrics

#: Roots that are to stand on the chain and do not yet: checkpoints of the journal, and batches of plans.
ANCHORS: Final = Query(
    name="anchors",
    statement="""
    select case kind when 1 then 'checkpoint' when 2 then 'endings' else 'registrations' end as kind,
        count(*) as anchors, extract(epoch from clock_timestamp() - min(requested_at)) as oldest
    from anchor where block_hash is null group by 1
    """,
    labels=("kind",),
    measures=(
        Measure("anchors", "lockstep_anchors_waiting", "Roots that are not on the chain yet, by what they are the root of."),
        Measure("oldest", "lockstep_anchor_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
    known=(("checkpoint",), ("endings",), ("registrations",)),
)

#: What is said of plans and stands in no batch yet.
LEAVES: Final = Query(
    name="leaves",
    statement="""
    select count(*) as leaves, extract(epoch from clock_timestamp() - min(recorded_at)) as oldest from plan_leaf where batch_id is null
    """,
    labels=(),
    measures=(
        Measure("leaves", "lockstep_notary_leaves_waiting", "Registrations and endings of plans that are in no batch yet."),
        Measure("oldest", "lockstep_notary_leaf_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
    known=((),),
)

#: Records of escalations that are not on the chain yet.
RECORDS: Final = Query(
    name="escalation_records",
    statement="""
    select count(*) as records, extract(epoch from clock_timestamp() - min(recorded_at)) as oldest
    from escalation_record where block_hash is null
    """,
    labels=(),
    measures=(
        Measure("records", "lockstep_notary_escalation_records_waiting", "Records of escalations that are not on the chain yet."),
        Measure("oldest", "lockstep_notary_escalation_record_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
    known=((),),
)

#: How the notary stands to the journal's log.
WITNESS: Final = Query(
    name="witness",
    statement="""
    select extract(epoch from clock_timestamp() - looked_at) as looked,
        (select count(*) from witness_alarm where acknowledged_at is null) as alarms,
        (select tree_size from witness_checkpoint order by history desc, tree_size desc limit 1) as tree_size
    from witness
    """,
    labels=(),
    measures=(
        Measure(
            "looked", "lockstep_witness_looked_age_seconds", "How long ago the witness last looked at the journal, in seconds."
        ),
        Measure("alarms", "lockstep_witness_alarms_open", "Alarms of the witness that nobody has acknowledged."),
        Measure(
            "tree_size", "lockstep_witness_tree_entries", "Entries of the journal under the checkpoint that was cosigned last."
        ),
    ),
    known=((),),
)

METRICS: Final = Metrics((chain.INSTRUMENTS,), (*chain.READINGS, ANCHORS, LEAVES, RECORDS, WITNESS))
