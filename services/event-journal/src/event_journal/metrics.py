"""What the event-journal shows beside what every participant shows: its log, and how far the tree and the checkpoints are behind it."""

from __future__ import annotations

from typing import Final

from lockstep_kit.metrics.readings import Measure, Query
from lockstep_kit.metrics.serving import Metrics

#: The log, the tree over it, and the checkpoint that was signed last. Positions are counted from 1.
LOG: Final = Query(
    name="log",
    statement="""
    select next_position - 1 as entries, next_position - 1 - tree_size as outside, tree_size - newest.signed as unsigned,
        extract(epoch from clock_timestamp() - newest.made_at) as age
    from journal_counter cross join journal_tree cross join (
        select coalesce(max(tree_size), 0) as signed, max(made_at) as made_at from (
            select tree_size, made_at from journal_checkpoint order by tree_size desc limit 1) as last) as newest
    """,
    labels=(),
    measures=(
        Measure("entries", "lockstep_journal_entries", "Entries of the journal."),
        Measure("outside", "lockstep_journal_entries_outside_tree", "Entries that the Merkle tree does not hold yet."),
        Measure("unsigned", "lockstep_journal_entries_unsigned", "Entries in the tree that no checkpoint covers yet."),
        Measure("age", "lockstep_journal_checkpoint_age_seconds", "Age of the newest checkpoint, in seconds."),
    ),
    known=((),),
)

METRICS: Final = Metrics(readings=(LOG,))
