"""What the monitor raises. Pure."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from lockstep_kit.values import dataclass


class Rule(StrEnum):
    """What does not hold. docs/monitor.md says what each means and what to do."""

    # -- the log ----------------------------------------------------------------------------------------------------
    #: The signed bytes of an entry are of another form, or say something else than was delivered.
    ENTRY_MALFORMED = "ENTRY_MALFORMED"
    #: No key of the journal that counts at the entry's time signed it.
    ENTRY_SIGNATURE = "ENTRY_SIGNATURE"
    #: The payload is not the one that was hashed, or is of another form than its type's.
    PAYLOAD_CHANGED = "PAYLOAD_CHANGED"
    PAYLOAD_INVALID = "PAYLOAD_INVALID"
    #: The log left out a position, or a plan's chain a sequence.
    POSITION_GAP = "POSITION_GAP"
    SEQUENCE_GAP = "SEQUENCE_GAP"
    #: The entry does not name the hash of the one before it.
    LINK_BROKEN = "LINK_BROKEN"
    #: An entry stands behind its plan's seal.
    AFTER_SEAL = "AFTER_SEAL"
    #: The seal counts, names or says something else than the chain before it.
    SEAL_WRONG = "SEAL_WRONG"
    #: The checkpoint is malformed, or signed by nobody who may.
    CHECKPOINT_INVALID = "CHECKPOINT_INVALID"
    #: The checkpoint's root is not that of the entries that were delivered.
    CHECKPOINT_DIFFERS = "CHECKPOINT_DIFFERS"
    #: Journal or witness have signed for entries that are not delivered here.
    ENTRIES_WITHHELD = "ENTRIES_WITHHELD"
    #: The log has fewer entries than it had, or is another log.
    LOG_SHRUNKEN = "LOG_SHRUNKEN"
    LOG_REPLACED = "LOG_REPLACED"
    #: The witness's checkpoint is malformed, or not signed by journal and witness.
    WITNESS_INVALID = "WITNESS_INVALID"
    #: The witness cosigned another tree than that of the entries that were delivered here.
    WITNESS_DIFFERS = "WITNESS_DIFFERS"
    #: The witness itself has raised an alarm.
    WITNESS_ALARM = "WITNESS_ALARM"
    #: The witness has not looked at the journal for too long.
    WITNESS_SILENT = "WITNESS_SILENT"

    # -- a plan -----------------------------------------------------------------------------------------------------
    #: The entry's plan digest is another one than the plan's.
    PLAN_DIGEST_DIFFERS = "PLAN_DIGEST_DIFFERS"
    #: Transitions are not numbered densely, or one is not in the protocol's table.
    TRANSITION_GAP = "TRANSITION_GAP"
    TRANSITION_UNKNOWN = "TRANSITION_UNKNOWN"
    #: A gate's signature is not that of the person named, with a role of the gate, by a key that counts.
    GATE_NOT_AUTHORISED = "GATE_NOT_AUTHORISED"
    #: The decision rests on other gates than those that the chain records.
    GATE_DIFFERS = "GATE_DIFFERS"
    #: One person opened two gates of the plan, or resolved what he had a part in.
    DUTIES_NOT_SEPARATE = "DUTIES_NOT_SEPARATE"
    #: A resolution lacks two operators' signatures over the same.
    RESOLUTION_NOT_AUTHORISED = "RESOLUTION_NOT_AUTHORISED"
    #: A vote or an outcome is not what its participant signed.
    VOTE_INVALID = "VOTE_INVALID"
    OUTCOME_INVALID = "OUTCOME_INVALID"
    #: A participant has signed both yes and no about a leg.
    VOTE_CONTRADICTED = "VOTE_CONTRADICTED"
    #: A participant has signed that a leg took effect and that it did not, and nobody was called.
    OUTCOME_CONTRADICTED = "OUTCOME_CONTRADICTED"
    #: The decision was released without a vote of every leg, or over other votes than those that the chain records.
    VOTES_DIFFER = "VOTES_DIFFER"
    #: A promise had lapsed when it was decided.
    PROMISE_LAPSED = "PROMISE_LAPSED"
    #: The decision names another time than the entry that records it.
    DECIDED_AT_DIFFERS = "DECIDED_AT_DIFFERS"
    #: It was decided before a vote that it rests on was given, or after a leg took effect.
    DECIDED_OUT_OF_ORDER = "DECIDED_OUT_OF_ORDER"
    #: The decision says of itself to be much older than what stands before it in the log.
    DECIDED_LONG_BEFORE = "DECIDED_LONG_BEFORE"
    #: A participant acted on another decision than the one that the chain records.
    TOLD_DIFFERENTLY = "TOLD_DIFFERENTLY"
    #: A leg took effect though nothing, or the contrary, was decided, and nobody was called.
    EXECUTED_UNDECIDED = "EXECUTED_UNDECIDED"
    EXECUTED_AFTER_ABORT = "EXECUTED_AFTER_ABORT"
    #: A leg of a plan that was to be executed will not be, and nobody was called.
    LEG_FAILED = "LEG_FAILED"
    #: The evidence that was validated, or committed, is not that of the outcomes that the chain records.
    EVIDENCE_DIFFERS = "EVIDENCE_DIFFERS"
    #: Committed without a validator's signature over that evidence.
    NOT_VALIDATED = "NOT_VALIDATED"
    #: A decided plan has stood still for too long, and nobody was called.
    PLAN_SILENT = "PLAN_SILENT"
    #: An entry is from the future by the monitor's clock.
    ENTRY_AHEAD = "ENTRY_AHEAD"

    @property
    def warns(self) -> bool:
        """Whether honest services can bring it about by an outage or a clock: a person looks, and it is no alarm."""
        return self in (Rule.DECIDED_LONG_BEFORE, Rule.ENTRY_AHEAD, Rule.WITNESS_SILENT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold."""

    #: What.
    rule: Rule
    #: One sentence.
    message: str
    #: Plan that it is about, or "".
    plan_id: str = ""
    #: Entry of the plan's chain, or 0.
    sequence: int = 0
    #: Place in the log, or 0.
    position: int = 0
    #: Leg that it is about, or "".
    leg_id: str = ""

    @property
    def finding_id(self) -> str:
        """The same finding has the same id, however often the entries are read."""
        place = (self.rule.value, self.plan_id, str(self.sequence), str(self.position), self.leg_id, self.message)
        return hashlib.sha256("\x1f".join(place).encode()).hexdigest()[:32]
