"""Every check by number and name, what it relies on, and which claims follow (docs/bundle.md). Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lockstep_verify import chain_checks, duties_checks, log_checks, people_checks, resolution_checks
from lockstep_verify.case import Case, Finding


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    #: UPPER_SNAKE.
    name: str
    #: Checks that must have passed before this one says anything.
    needs: tuple[str, ...]
    #: Makes it: what does not hold; raises `NotChecked` where it cannot be made.
    make: Callable[[Case], list[Finding]]


CHECKS: Final = (
    Check("PLAN", (), chain_checks.plan),
    Check("ENTRIES", ("PLAN",), chain_checks.entries),
    Check("CHAIN", ("ENTRIES",), chain_checks.chain),
    Check("PAYLOADS", ("ENTRIES",), chain_checks.payloads),
    Check("SEAL", ("CHAIN", "PAYLOADS"), chain_checks.seal),
    Check("PLAN_BOUND", ("PAYLOADS",), chain_checks.plan_bound),
    Check("TRANSITIONS", ("CHAIN", "PAYLOADS"), chain_checks.transitions),
    Check("JOURNAL_KEYS", (), chain_checks.journal_keys),
    Check("ENTRY_SIGNATURES", ("ENTRIES", "JOURNAL_KEYS"), chain_checks.entry_signatures),
    Check("CHECKPOINT", ("JOURNAL_KEYS",), log_checks.checkpoint),
    Check("INCLUSION", ("ENTRIES", "CHECKPOINT"), log_checks.inclusion),
    Check("WITNESS", ("CHECKPOINT",), log_checks.witness),
    Check("CONSISTENCY", ("WITNESS",), log_checks.consistency),
    Check("CHECKPOINT_ANCHOR", ("WITNESS",), log_checks.checkpoint_anchor),
    Check("REGISTRATION", ("PLAN",), log_checks.registration),
    Check("OUTCOME", ("PLAN", "SEAL"), log_checks.outcome),
    Check("GATES", ("PLAN", "PAYLOADS"), people_checks.gates),
    Check("MATRIX", ("PLAN",), duties_checks.matrix),
    Check("ROLES", ("GATES", "MATRIX"), duties_checks.roles),
    Check("DUTIES", ("GATES", "MATRIX"), duties_checks.duties),
    Check("LIMITS", ("ROLES",), duties_checks.limits),
    Check("AGENTS", ("ROLES",), duties_checks.agents),
    Check("GATES_RECORDED", ("GATES",), people_checks.gates_recorded),
    Check("VOTES", ("PLAN",), people_checks.votes),
    Check("OUTCOMES", ("PLAN",), people_checks.outcomes),
    Check("STATEMENTS_RECORDED", ("PAYLOADS", "VOTES", "OUTCOMES"), people_checks.statements_recorded),
    Check("DECISION", ("PAYLOADS", "GATES", "VOTES"), people_checks.decision),
    Check("QUORUM", ("CHAIN", "PAYLOADS", "GATES", "MATRIX"), duties_checks.quorum),
    Check("EVIDENCE", ("SEAL", "OUTCOMES"), people_checks.evidence),
    Check("VALIDATION", ("SEAL", "GATES"), people_checks.validation),
    Check("AUDIT_LOG", ("SEAL",), people_checks.audit_log),
    Check("RESOLUTIONS", ("CHAIN", "PAYLOADS", "GATES"), resolution_checks.resolutions),
    Check("REVERSALS", ("CHAIN", "PAYLOADS", "GATES", "OUTCOMES"), resolution_checks.reversals),
    Check("MESSAGES", ("OUTCOMES",), people_checks.messages),
)

#: Without these nothing is proved.
CORE: Final = (
    "PLAN",
    "ENTRIES",
    "CHAIN",
    "PAYLOADS",
    "SEAL",
    "JOURNAL_KEYS",
    "ENTRY_SIGNATURES",
    "CHECKPOINT",
    "INCLUSION",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that is proved where all checks that it rests on have passed."""

    #: Checks that it rests on.
    needs: tuple[str, ...]
    #: One sentence about the case; "" where there is nothing to claim.
    says: Callable[[Case], str]


def _seal_outcome(case: Case) -> str:
    return "" if case.seal is None else f"the journal sealed the plan as {case.seal['outcome']}"


def _checkpoint(case: Case) -> str:
    note = case.checkpoint
    return (
        "" if note is None else f"the entries stand in the log {note.origin} of {note.size} leaves under the root {note.root.hex()}"
    )


def _witnessed(case: Case) -> str:
    note = case.witnessed
    return "" if note is None else f"this log is the one that the witness saw with {note.size} leaves at {case.witnessed_at}"


def _anchored(kind: str, what: str) -> Callable[[Case], str]:
    def says(case: Case) -> str:
        transaction, _, _, sender = case.blocks[kind]
        return f"{what} by the transaction 0x{transaction}, which the account 0x{sender} signed"

    return says


def _gates(case: Case) -> str:
    signed = ", ".join(f"{each.signer} ({each.document['gate']} {each.document['verdict']})" for each in case.gates)
    return f"these persons signed the plan: {signed}" if signed else ""


_AUTHORITY: Final = ("GATES", "MATRIX", "ROLES", "DUTIES", "LIMITS", "AGENTS", "QUORUM", "GATES_RECORDED")

CLAIMS: Final = (
    Claim(CORE, lambda case: f"the plan's {len(case.entries)} entries are unchanged and complete up to its seal"),
    Claim((*CORE, "PLAN_BOUND"), lambda case: f"they are about the plan with the digest {case.plan_digest}"),
    Claim(CORE, _seal_outcome),
    Claim((*CORE, "TRANSITIONS"), lambda _: "the plan went from state to state as the protocol allows"),
    Claim(CORE, _checkpoint),
    Claim((*CORE, "WITNESS", "CONSISTENCY"), _witnessed),
    Claim(
        (*CORE, "WITNESS", "CONSISTENCY", "CHECKPOINT_ANCHOR"),
        _anchored("checkpoint", "the root that the witness saw is handed to the registry"),
    ),
    Claim(("PLAN", "REGISTRATION"), _anchored("registrations", "the plan's registration is handed to the registry")),
    Claim((*CORE, "OUTCOME"), _anchored("outcomes", "the plan's outcome is handed to the registry")),
    Claim(("PLAN", "GATES"), _gates),
    Claim(
        ("PLAN", "GATES", "MATRIX", "ROLES", "DUTIES"),
        lambda case: (
            f"each has a role for it by version {case.matrix['version']} of the matrix of duties, and none signed two"
            if case.gates
            else ""
        ),
    ),
    Claim((*CORE, "GATES_RECORDED"), lambda case: "the entries record these signatures and no others" if case.gates else ""),
    Claim(
        (*CORE, "STATEMENTS_RECORDED"), lambda _: "what the entries record of votes and outcomes is what the participants signed"
    ),
    Claim((*CORE, "DECISION", *_AUTHORITY), duties_checks.decided),
    Claim((*CORE, "DECISION"), lambda _: "the release rests on every leg's promise and on maker, approver and releaser"),
    Claim((*CORE, "EVIDENCE"), lambda _: "what the participants signed is the outcome that the seal says"),
    Claim((*CORE, "VALIDATION"), lambda _: "a validator signed over the evidence"),
    Claim((*CORE, "RESOLUTIONS"), resolution_checks.resolved),
    Claim(
        (*CORE, "RESOLUTIONS", "REVERSALS"),
        lambda _: "what was reversed answers an order of two operators or of the plan's own policy",
    ),
    Claim((*CORE, "AUDIT_LOG"), lambda _: "the abort audit log is the one whose hash the seal names"),
    Claim(("PLAN", "OUTCOMES", "MESSAGES"), lambda case: f"participants name {len(case.messages)} answers of banks"),
)


def open_questions(case: Case, passed: frozenset[str]) -> list[str]:
    """What no bundle can prove, and what the auditor can do about it."""
    said = ["that the trust file names the right keys: compare it with what their holders say"]
    kinds = {"checkpoint": "CHECKPOINT_ANCHOR", "registrations": "REGISTRATION", "outcomes": "OUTCOME"}
    for kind, name in kinds.items():
        if name in passed:
            transaction, number, block, _ = case.blocks[kind]
            said.append(
                f"that the transaction 0x{transaction} succeeded in block {number} with the hash 0x{block}: ask a node of your own"
            )
    senders = sorted({block[3] for kind, block in case.blocks.items() if kinds[kind] in passed})
    if senders and "accounts" not in case.trust["chain"]:
        named = ", ".join(f"0x{each}" for each in senders)
        said.append(
            f"that the registry takes roots from {named}: the trust file names none of its accounts; ask a node of your own"
        )
    if case.erased:
        said.append(f"what the erased payloads said: entries {', '.join(case.erased)}")
    if case.messages and "MESSAGES" in passed:
        said.append("that the banks' messages with these hashes say so: compare them with the banks' own")
    return said
