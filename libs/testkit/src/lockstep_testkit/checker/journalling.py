"""I4: every chain gapless and valid, one event for each transition and one transition for each such event, one log without holes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lockstep_client.journal_chain import CLOSED, Entry, verify_chain
from lockstep_testkit.checker.evidence import Evidence, PlanRow, Violation


def check_journal(evidence: Evidence) -> Iterator[Violation]:
    """Everything that the record of what happened lacks, repeats or invents."""
    if evidence.positions != tuple(range(1, len(evidence.positions) + 1)):
        yield Violation("I4", "", "", "the log over all chains has a hole or a place that is taken twice")
    for sentence in evidence.log_findings:
        yield Violation("I4", "", "", sentence)
    for plan_id, chain in evidence.chains.items():
        if not evidence.judged(plan_id):
            continue
        verdict = verify_chain(chain, plan_id, evidence.registry)
        for finding in verdict.findings:
            yield Violation("I4", plan_id, "", f"entry {finding.sequence}: {finding.rule}: {finding.message}")
        plan = evidence.plans.get(plan_id)
        if plan is None:
            yield Violation("I4", plan_id, "", "the journal has a chain for a plan that the coordinator does not know")
        elif verdict.plan_digest != plan.digest.hex():
            yield Violation("I4", plan_id, "", "the chain was opened for another plan with this id")
    for plan in evidence.judged_plans:
        chain = evidence.chains.get(plan.plan_id, ())
        yield from _recorded(plan, chain)
        yield from _transitions(plan, chain)


def _recorded(plan: PlanRow, chain: Sequence[Entry]) -> Iterator[Violation]:
    """The journal holds what the coordinator recorded, in the same bytes, and beside it nothing but its own seal."""
    own = {each.sequence: (each.type, each.payload) for each in chain if each.type != CLOSED}
    told = {each.sequence: (each.type, each.payload) for each in plan.events}
    for sequence in sorted(own.keys() | told.keys()):
        if sequence not in told:
            yield Violation("I4", plan.plan_id, "", f"entry {sequence} was never recorded by the coordinator")
        elif sequence not in own:
            if not plan.frozen:
                yield Violation("I4", plan.plan_id, "", f"event {sequence} ({told[sequence][0]}) is not in the journal")
        elif own[sequence] != told[sequence]:
            yield Violation("I4", plan.plan_id, "", f"entry {sequence} is not the event that was recorded")
    if plan.ended and not plan.frozen and (not chain or chain[-1].type != CLOSED):
        yield Violation("I4", plan.plan_id, "", "the plan is closed, and its chain is not sealed")
    if not plan.ended and not plan.escalated and chain and chain[-1].type == CLOSED and plan.state not in ("COMMITTED", "ABORTED"):
        yield Violation("I4", plan.plan_id, "", f"the chain is sealed while the plan is {plan.state}")


def _transitions(plan: PlanRow, chain: Sequence[Entry]) -> Iterator[Violation]:
    if [each.transition_no for each in plan.transitions] != list(range(1, len(plan.transitions) + 1)):
        yield Violation("I4", plan.plan_id, "", "the transitions are not numbered without gaps")
    for before, after in zip(plan.transitions, plan.transitions[1:], strict=False):
        if before.entered != after.left:
            yield Violation("I4", plan.plan_id, "", f"transition {after.transition_no} leaves {after.left}, not {before.entered}")
    stored = {each.journal_sequence: (each.transition_no, each.left, each.entered) for each in plan.transitions}
    if len(stored) != len(plan.transitions):
        yield Violation("I4", plan.plan_id, "", "two transitions are recorded by the same event")
    told = {each.sequence: moved for each in chain if (moved := _transition(each)) is not None}
    for sequence in sorted(stored.keys() | told.keys()):
        if stored.get(sequence) == told.get(sequence) or (plan.frozen and sequence not in told):
            continue
        if sequence not in stored and told[sequence][2] == "CLOSED" and not plan.ended:
            # The seal is the journal's own; that the coordinator has not heard of it yet is a matter of time, which I5 judges.
            continue
        text = f"entry {sequence} tells of transition {told.get(sequence)}, and the coordinator has {stored.get(sequence)}"
        yield Violation("I4", plan.plan_id, "", text)


def _transition(entry: Entry) -> tuple[int, str, str] | None:
    """Number, state left and state entered that an entry tells of."""
    moved = document(entry).get("transition")
    return None if moved is None else (moved["transition_no"], moved["from"], moved["to"])


def document(entry: Entry) -> dict[str, Any]:
    """What an entry says; nothing where its payload cannot be read, which `verify_chain` has found already."""
    try:
        found = json.loads(entry.payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
