"""The coordinator's tables as the code sees them; a test shows that a migrated database has these and no others."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from coordinator.columns import METADATA, big, flag, moment, octets, plan_reference, small, text
from lockstep_kit import leases
from lockstep_kit.outbox import Outbox

leases.lease_table(METADATA)

PLAN: Final = sa.Table(
    "plan",
    METADATA,
    text("plan_id"),
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
    *(octets(name) for name in ("digest", "header")),
    text("state"),
    text("decision", nullable=True),
    text("delegate"),
    moment("decided_at", nullable=True),
    moment("since"),
    small("transition_no"),
    big("journal_sequence"),
    text("cause", nullable=True),
    *(text(name) for name in ("reason", "reason_leg", "reason_detail")),
    text("outcome", nullable=True),
    *(flag(name) for name in ("sealing", "unwound_by_policy")),
    *(big(name) for name in ("version", "epoch_generation", "epoch_counter")),
    moment("due_at", nullable=True),
    text("traceparent", nullable=True),
    *(moment(name) for name in ("created_at", "updated_at")),
    sa.Column("validated_from", sa.Integer, nullable=False, server_default="0"),
    moment("auditing_since", nullable=True),
    octets("audit", nullable=True),
    octets("unwind_refusal", nullable=True),
    sa.Column("created_by", sa.Text, nullable=False, server_default=""),
    *(
        sa.Column(name, sa.SmallInteger, nullable=False, server_default="1")
        for name in ("approvals_needed", "releases_needed", "validations_needed")
    ),
    sa.PrimaryKeyConstraint("plan_id", name="plan_pkey"),
    sa.UniqueConstraint("seq", name="plan_seq_key"),
    sa.ForeignKeyConstraint(["plan_id", "audit"], ["audit_log.plan_id", "audit_log.digest"], name="plan_audit", use_alter=True),
)
sa.Index("plan_auditing", PLAN.c.auditing_since, postgresql_where=PLAN.c.auditing_since.isnot(None))
sa.Index("plan_due", PLAN.c.due_at, postgresql_where=PLAN.c.due_at.isnot(None))
sa.Index("plan_state", PLAN.c.state, PLAN.c.seq)
sa.Index("plan_open", PLAN.c.plan_id, postgresql_where=PLAN.c.state != "CLOSED")

sa.Index("plan_created_by", PLAN.c.created_by, PLAN.c.seq, postgresql_where=PLAN.c.created_by != "")

PLAN_PARTY: Final = sa.Table(
    "plan_party",
    METADATA,
    text("party_id"),
    big("seq"),
    plan_reference(),
    sa.PrimaryKeyConstraint("party_id", "seq", name="plan_party_pkey"),
)

PLAN_LEG: Final = sa.Table(
    "plan_leg",
    METADATA,
    plan_reference(),
    text("leg_id"),
    small("position"),
    octets("leg"),
    text("participant"),
    octets("lock"),
    *(octets(name, nullable=True) for name in ("payer_signature", "permit")),
    text("last_order"),
    moment("ordered_at", nullable=True),
    text("phase", nullable=True),
    big("revision"),
    *(octets(name, nullable=True) for name in ("vote", "outcome")),
    text("trouble"),
    flag("reversed"),
    flag("operators_executed", nullable=True),
    octets("operators_evidence", nullable=True),
    octets("reversal", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="plan_leg_pkey"),
    sa.UniqueConstraint("plan_id", "position", name="plan_leg_position_key"),
)

GATE_SIGNATURE: Final = sa.Table(
    "gate_signature",
    METADATA,
    plan_reference(),
    small("ordinal"),
    *(text(name) for name in ("gate", "verdict", "actor_id", "key_id")),
    *(octets(name) for name in ("nonce", "signed")),
    moment("signed_at"),
    sa.PrimaryKeyConstraint("plan_id", "ordinal", name="gate_signature_pkey"),
    sa.UniqueConstraint("key_id", "nonce", name="gate_signature_nonce_key"),
)

PLAN_TRANSITION: Final = sa.Table(
    "plan_transition",
    METADATA,
    plan_reference(),
    small("transition_no"),
    text("left_state", nullable=True),
    text("entered_state"),
    text("decision", nullable=True),
    text("cause"),
    big("journal_sequence"),
    moment("moved_at"),
    sa.PrimaryKeyConstraint("plan_id", "transition_no", name="plan_transition_pkey"),
    sa.UniqueConstraint("plan_id", "journal_sequence", name="plan_transition_journal_key"),
)

PLAN_EVENT: Final = sa.Table(
    "plan_event",
    METADATA,
    big("sequence"),
    text("plan_id"),
    octets("event"),
    moment("event_at"),
    sa.PrimaryKeyConstraint("sequence", name="plan_event_pkey"),
)
sa.Index("plan_event_plan", PLAN_EVENT.c.plan_id, PLAN_EVENT.c.sequence)

sa.Table(
    "plan_event_counter",
    METADATA,
    sa.Column("singleton", sa.Boolean, nullable=False, server_default=sa.true()),
    big("next_sequence"),
    text("incarnation"),
    sa.PrimaryKeyConstraint("singleton", name="plan_event_counter_pkey"),
)

sa.Table(
    "journal_event",
    METADATA,
    plan_reference(),
    big("sequence"),
    *(text(name) for name in ("type", "actor", "actor_role")),
    moment("event_time"),
    octets("payload"),
    text("traceparent", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", "sequence", name="journal_event_pkey"),
)

JOURNAL_PROGRESS: Final = sa.Table(
    "journal_progress",
    METADATA,
    plan_reference(),
    big("recorded"),
    big("appended"),
    text("frozen"),
    sa.PrimaryKeyConstraint("plan_id", name="journal_progress_pkey"),
)
sa.Index(
    "journal_progress_behind",
    JOURNAL_PROGRESS.c.plan_id,
    postgresql_where=(JOURNAL_PROGRESS.c.appended < JOURNAL_PROGRESS.c.recorded) & (JOURNAL_PROGRESS.c.frozen == ""),
)

LEG_COMMAND: Final = sa.Table(
    "leg_command",
    METADATA,
    *(text(name) for name in ("plan_id", "leg_id", "command", "participant")),
    flag("behind_journal"),
    moment("not_after", nullable=True),
    *(octets(name, nullable=True) for name in ("closing", "authority")),
    text("traceparent", nullable=True),
    moment("due_at"),
    *(small(name) for name in ("attempts", "rejections")),
    text("last_rejection"),
    flag("answered"),
    sa.Column("given_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", "command", name="leg_command_pkey"),
    sa.ForeignKeyConstraint(["plan_id", "leg_id"], ["plan_leg.plan_id", "plan_leg.leg_id"], name="leg_command_leg"),
)
sa.Index("leg_command_due", LEG_COMMAND.c.participant, LEG_COMMAND.c.due_at, postgresql_where=sa.not_(LEG_COMMAND.c.answered))

sa.Table(
    "request",
    METADATA,
    *(text(name) for name in ("request_id", "method")),
    octets("digest"),
    octets("response", nullable=True),
    moment("asked_at"),
    sa.Column("client", sa.Text, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("request_id", name="request_pkey"),
)

ESCALATION: Final = sa.Table(
    "escalation",
    METADATA,
    text("escalation_id"),
    plan_reference(),
    small("ordinal"),
    *(text(name) for name in ("reason", "leg_id", "detail")),
    moment("raised_at"),
    moment("resolved_at", nullable=True),
    octets("resolution_digest", nullable=True),
    sa.PrimaryKeyConstraint("escalation_id", name="escalation_pkey"),
    sa.UniqueConstraint("plan_id", "ordinal", name="escalation_ordinal_key"),
    sa.ForeignKeyConstraint(
        ["escalation_id", "resolution_digest"],
        ["resolution.escalation_id", "resolution.digest"],
        name="escalation_resolution",
        use_alter=True,
    ),
)
sa.Index("escalation_open", ESCALATION.c.plan_id, postgresql_where=ESCALATION.c.resolved_at.is_(None))
sa.Index("escalation_raised", ESCALATION.c.raised_at, ESCALATION.c.escalation_id)


def _escalation_reference() -> sa.Column[Any]:
    return sa.Column("escalation_id", sa.Text, sa.ForeignKey("escalation.escalation_id"), nullable=False)


ESCALATION_DOCUMENT: Final = sa.Table(
    "escalation_document",
    METADATA,
    _escalation_reference(),
    text("kind"),
    plan_reference(),
    octets("document"),
    moment("written_at"),
    moment("told_at", nullable=True),
    sa.Column("refusal", sa.Text, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("escalation_id", "kind", name="escalation_document_pkey"),
)
sa.Index(
    "escalation_document_untold",
    ESCALATION_DOCUMENT.c.written_at,
    ESCALATION_DOCUMENT.c.escalation_id,
    ESCALATION_DOCUMENT.c.kind,
    postgresql_where=ESCALATION_DOCUMENT.c.told_at.is_(None),
)

RESOLUTION: Final = sa.Table(
    "resolution",
    METADATA,
    _escalation_reference(),
    octets("digest"),
    plan_reference(),
    *(text(name) for name in ("verb", "leg_id", "first_actor")),
    octets("first_signed"),
    text("second_actor"),
    octets("second_signed"),
    moment("effective_at"),
    sa.PrimaryKeyConstraint("escalation_id", "digest", name="resolution_pkey"),
)
sa.Index("resolution_plan", RESOLUTION.c.plan_id, RESOLUTION.c.effective_at)

RESOLUTION_SIGNATURE: Final = sa.Table(
    "resolution_signature",
    METADATA,
    text("key_id"),
    octets("nonce"),
    _escalation_reference(),
    octets("digest"),
    plan_reference(),
    text("actor_id"),
    octets("signed"),
    moment("signed_at"),
    sa.PrimaryKeyConstraint("key_id", "nonce", name="resolution_signature_nonce_key"),
)
sa.Index("resolution_signature_escalation", RESOLUTION_SIGNATURE.c.escalation_id, RESOLUTION_SIGNATURE.c.signed_at)

DEAD_LETTER: Final = sa.Table(
    "dead_letter",
    METADATA,
    *(text(name) for name in ("dead_letter_id", "plan_id", "leg_id", "command", "participant", "reason", "detail")),
    small("attempts"),
    moment("dead_at"),
    moment("replayed_at", nullable=True),
    text("replayed_by", nullable=True),
    sa.PrimaryKeyConstraint("dead_letter_id", name="dead_letter_pkey"),
    sa.ForeignKeyConstraint(["plan_id", "leg_id"], ["plan_leg.plan_id", "plan_leg.leg_id"], name="dead_letter_leg"),
)
sa.Index(
    "dead_letter_once",
    DEAD_LETTER.c.plan_id,
    DEAD_LETTER.c.leg_id,
    DEAD_LETTER.c.command,
    unique=True,
    postgresql_where=DEAD_LETTER.c.replayed_at.is_(None),
)
sa.Index("dead_letter_dead", DEAD_LETTER.c.dead_at, DEAD_LETTER.c.dead_letter_id)

sa.Table(
    "client_quota",
    METADATA,
    text("client"),
    sa.Column("unspent", sa.Double, nullable=False),
    moment("counted_at"),
    sa.PrimaryKeyConstraint("client", name="client_quota_pkey"),
)

OPEN_PLAN: Final = sa.Table(
    "open_plan",
    METADATA,
    plan_reference(),
    text("client"),
    sa.PrimaryKeyConstraint("plan_id", name="open_plan_pkey"),
)
sa.Index("open_plan_client", OPEN_PLAN.c.client)

sa.Table(
    "decision_key",
    METADATA,
    plan_reference(),
    text("service_key_id"),
    octets("service_sealed"),
    text("recovery_key_id"),
    octets("recovery_sealed"),
    sa.PrimaryKeyConstraint("plan_id", name="decision_key_pkey"),
)

sa.Table(
    "participant_cursor",
    METADATA,
    *(text(name) for name in ("participant", "incarnation")),
    big("sequence"),
    sa.PrimaryKeyConstraint("participant", name="participant_cursor_pkey"),
)

sa.Table(
    "leg_news",
    METADATA,
    *(text(name) for name in ("plan_id", "leg_id", "participant")),
    big("revision"),
    octets("report"),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="leg_news_pkey"),
)

sa.Table(
    "installation",
    METADATA,
    sa.Column("singleton", sa.Boolean, nullable=False, server_default=sa.true()),
    big("generation"),
    sa.PrimaryKeyConstraint("singleton", name="installation_pkey"),
)

sa.Table(
    "plan_restore",
    METADATA,
    plan_reference(),
    big("generation"),
    text("finding"),
    sa.PrimaryKeyConstraint("plan_id", name="plan_restore_pkey"),
)

sa.Table(
    "sweep",
    METADATA,
    text("participant"),
    big("number"),
    text("page_token"),
    sa.PrimaryKeyConstraint("participant", name="sweep_pkey"),
)

sa.Table(
    "listed_leg",
    METADATA,
    *(text(name) for name in ("participant", "plan_id", "leg_id")),
    big("revision"),
    text("phase"),
    sa.PrimaryKeyConstraint("participant", "plan_id", "leg_id", name="listed_leg_pkey"),
)

ORPHAN_LEG: Final = sa.Table(
    "orphan_leg",
    METADATA,
    *(text(name) for name in ("plan_id", "leg_id", "participant", "phase")),
    moment("deadline", nullable=True),
    *(text(name) for name in ("amount", "finding")),
    sa.Column("found_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    moment("settled_at", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="orphan_leg_pkey"),
)
sa.Index("orphan_leg_open", ORPHAN_LEG.c.plan_id, postgresql_where=ORPHAN_LEG.c.settled_at.is_(None))

sa.Table(
    "journal_refill",
    METADATA,
    plan_reference(),
    sa.PrimaryKeyConstraint("plan_id", name="journal_refill_pkey"),
)

sa.Table(
    "audit_log",
    METADATA,
    plan_reference(),
    small("ordinal"),
    *(octets(name) for name in ("digest", "octets")),
    moment("written_at"),
    sa.PrimaryKeyConstraint("plan_id", "ordinal", name="audit_log_pkey"),
    sa.UniqueConstraint("plan_id", "digest", name="audit_log_digest_key"),
)

NOTICE: Final = sa.Table(
    "notice",
    METADATA,
    text("notice_id"),
    plan_reference(),
    text("kind"),
    octets("event"),
    moment("noticed_at"),
    sa.PrimaryKeyConstraint("notice_id", name="notice_pkey"),
)
sa.Index("notice_plan", NOTICE.c.plan_id, NOTICE.c.noticed_at)

#: Notices on their way to webhooks.
NOTICE_OUTBOX: Final = Outbox("notice_outbox")
NOTICE_OUTBOX.declare(METADATA)

NOTICE_DEAD_LETTER: Final = sa.Table(
    "notice_dead_letter",
    METADATA,
    text("dead_letter_id"),
    sa.Column("notice_id", sa.Text, sa.ForeignKey("notice.notice_id"), nullable=False),
    text("webhook"),
    small("attempts"),
    text("detail"),
    moment("dead_at"),
    moment("replayed_at", nullable=True),
    text("replayed_by", nullable=True),
    sa.PrimaryKeyConstraint("dead_letter_id", name="notice_dead_letter_pkey"),
)
sa.Index(
    "notice_dead_letter_once",
    NOTICE_DEAD_LETTER.c.notice_id,
    NOTICE_DEAD_LETTER.c.webhook,
    unique=True,
    postgresql_where=NOTICE_DEAD_LETTER.c.replayed_at.is_(None),
)
sa.Index("notice_dead_letter_dead", NOTICE_DEAD_LETTER.c.dead_at, NOTICE_DEAD_LETTER.c.dead_letter_id)
