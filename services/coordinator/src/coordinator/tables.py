"""The coordinator's tables as the code sees them; a test shows that a migrated database has these and no others."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from lockstep_kit import leases
from lockstep_kit.outbox import Outbox

METADATA: Final = sa.MetaData()

leases.lease_table(METADATA)


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _big(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=False, autoincrement=False)


def _small(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer, nullable=False, autoincrement=False)


def _flag(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=nullable)


def _plan_reference() -> sa.Column[Any]:
    return sa.Column("plan_id", sa.Text, sa.ForeignKey("plan.plan_id"), nullable=False)


PLAN: Final = sa.Table(
    "plan",
    METADATA,
    _text("plan_id"),
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
    *(_bytes(name) for name in ("digest", "header")),
    _text("state"),
    _text("decision", nullable=True),
    _text("delegate"),
    _time("decided_at", nullable=True),
    _time("since"),
    _small("transition_no"),
    _big("journal_sequence"),
    _text("cause", nullable=True),
    *(_text(name) for name in ("reason", "reason_leg", "reason_detail")),
    _text("outcome", nullable=True),
    *(_flag(name) for name in ("sealing", "unwound_by_policy")),
    *(_big(name) for name in ("version", "epoch_generation", "epoch_counter")),
    _time("due_at", nullable=True),
    _text("traceparent", nullable=True),
    *(_time(name) for name in ("created_at", "updated_at")),
    sa.Column("validated_from", sa.Integer, nullable=False, server_default="0"),
    _time("auditing_since", nullable=True),
    _bytes("audit", nullable=True),
    _bytes("unwind_refusal", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", name="plan_pkey"),
    sa.UniqueConstraint("seq", name="plan_seq_key"),
    sa.ForeignKeyConstraint(["plan_id", "audit"], ["audit_log.plan_id", "audit_log.digest"], name="plan_audit", use_alter=True),
)
sa.Index("plan_auditing", PLAN.c.auditing_since, postgresql_where=PLAN.c.auditing_since.isnot(None))
sa.Index("plan_due", PLAN.c.due_at, postgresql_where=PLAN.c.due_at.isnot(None))
sa.Index("plan_state", PLAN.c.state, PLAN.c.seq)
sa.Index("plan_open", PLAN.c.plan_id, postgresql_where=PLAN.c.state != "CLOSED")

PLAN_LEG: Final = sa.Table(
    "plan_leg",
    METADATA,
    _plan_reference(),
    _text("leg_id"),
    _small("position"),
    _bytes("leg"),
    _text("participant"),
    _bytes("lock"),
    *(_bytes(name, nullable=True) for name in ("payer_signature", "permit")),
    _text("last_order"),
    _time("ordered_at", nullable=True),
    _text("phase", nullable=True),
    _big("revision"),
    *(_bytes(name, nullable=True) for name in ("vote", "outcome")),
    _text("trouble"),
    _flag("reversed"),
    _flag("operators_executed", nullable=True),
    _bytes("operators_evidence", nullable=True),
    _bytes("reversal", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="plan_leg_pkey"),
    sa.UniqueConstraint("plan_id", "position", name="plan_leg_position_key"),
)

GATE_SIGNATURE: Final = sa.Table(
    "gate_signature",
    METADATA,
    _plan_reference(),
    _small("ordinal"),
    *(_text(name) for name in ("gate", "verdict", "actor_id", "key_id")),
    *(_bytes(name) for name in ("nonce", "signed")),
    _time("signed_at"),
    sa.PrimaryKeyConstraint("plan_id", "ordinal", name="gate_signature_pkey"),
    sa.UniqueConstraint("key_id", "nonce", name="gate_signature_nonce_key"),
)

PLAN_TRANSITION: Final = sa.Table(
    "plan_transition",
    METADATA,
    _plan_reference(),
    _small("transition_no"),
    _text("left_state", nullable=True),
    _text("entered_state"),
    _text("decision", nullable=True),
    _text("cause"),
    _big("journal_sequence"),
    _time("moved_at"),
    sa.PrimaryKeyConstraint("plan_id", "transition_no", name="plan_transition_pkey"),
    sa.UniqueConstraint("plan_id", "journal_sequence", name="plan_transition_journal_key"),
)

PLAN_EVENT: Final = sa.Table(
    "plan_event",
    METADATA,
    _big("sequence"),
    _text("plan_id"),
    _bytes("event"),
    _time("event_at"),
    sa.PrimaryKeyConstraint("sequence", name="plan_event_pkey"),
)
sa.Index("plan_event_plan", PLAN_EVENT.c.plan_id, PLAN_EVENT.c.sequence)

sa.Table(
    "plan_event_counter",
    METADATA,
    sa.Column("singleton", sa.Boolean, nullable=False, server_default=sa.true()),
    _big("next_sequence"),
    _text("incarnation"),
    sa.PrimaryKeyConstraint("singleton", name="plan_event_counter_pkey"),
)

sa.Table(
    "journal_event",
    METADATA,
    _plan_reference(),
    _big("sequence"),
    *(_text(name) for name in ("type", "actor", "actor_role")),
    _time("event_time"),
    _bytes("payload"),
    _text("traceparent", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", "sequence", name="journal_event_pkey"),
)

JOURNAL_PROGRESS: Final = sa.Table(
    "journal_progress",
    METADATA,
    _plan_reference(),
    _big("recorded"),
    _big("appended"),
    _text("frozen"),
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
    *(_text(name) for name in ("plan_id", "leg_id", "command", "participant")),
    _flag("behind_journal"),
    _time("not_after", nullable=True),
    *(_bytes(name, nullable=True) for name in ("closing", "authority")),
    _text("traceparent", nullable=True),
    _time("due_at"),
    *(_small(name) for name in ("attempts", "rejections")),
    _text("last_rejection"),
    _flag("answered"),
    sa.Column("given_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", "command", name="leg_command_pkey"),
    sa.ForeignKeyConstraint(["plan_id", "leg_id"], ["plan_leg.plan_id", "plan_leg.leg_id"], name="leg_command_leg"),
)
sa.Index("leg_command_due", LEG_COMMAND.c.participant, LEG_COMMAND.c.due_at, postgresql_where=sa.not_(LEG_COMMAND.c.answered))

sa.Table(
    "request",
    METADATA,
    *(_text(name) for name in ("request_id", "method")),
    _bytes("digest"),
    _bytes("response", nullable=True),
    _time("asked_at"),
    sa.PrimaryKeyConstraint("request_id", name="request_pkey"),
)

ESCALATION: Final = sa.Table(
    "escalation",
    METADATA,
    _text("escalation_id"),
    _plan_reference(),
    _small("ordinal"),
    *(_text(name) for name in ("reason", "leg_id", "detail")),
    _time("raised_at"),
    _time("resolved_at", nullable=True),
    _bytes("resolution_digest", nullable=True),
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


RESOLUTION: Final = sa.Table(
    "resolution",
    METADATA,
    _escalation_reference(),
    _bytes("digest"),
    _plan_reference(),
    *(_text(name) for name in ("verb", "leg_id", "first_actor")),
    _bytes("first_signed"),
    _text("second_actor"),
    _bytes("second_signed"),
    _time("effective_at"),
    sa.PrimaryKeyConstraint("escalation_id", "digest", name="resolution_pkey"),
)
sa.Index("resolution_plan", RESOLUTION.c.plan_id, RESOLUTION.c.effective_at)

RESOLUTION_SIGNATURE: Final = sa.Table(
    "resolution_signature",
    METADATA,
    _text("key_id"),
    _bytes("nonce"),
    _escalation_reference(),
    _bytes("digest"),
    _plan_reference(),
    _text("actor_id"),
    _bytes("signed"),
    _time("signed_at"),
    sa.PrimaryKeyConstraint("key_id", "nonce", name="resolution_signature_nonce_key"),
)
sa.Index("resolution_signature_escalation", RESOLUTION_SIGNATURE.c.escalation_id, RESOLUTION_SIGNATURE.c.signed_at)

DEAD_LETTER: Final = sa.Table(
    "dead_letter",
    METADATA,
    *(_text(name) for name in ("dead_letter_id", "plan_id", "leg_id", "command", "participant", "reason", "detail")),
    _small("attempts"),
    _time("dead_at"),
    _time("replayed_at", nullable=True),
    _text("replayed_by", nullable=True),
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
    "decision_key",
    METADATA,
    _plan_reference(),
    _text("service_key_id"),
    _bytes("service_sealed"),
    _text("recovery_key_id"),
    _bytes("recovery_sealed"),
    sa.PrimaryKeyConstraint("plan_id", name="decision_key_pkey"),
)

sa.Table(
    "participant_cursor",
    METADATA,
    *(_text(name) for name in ("participant", "incarnation")),
    _big("sequence"),
    sa.PrimaryKeyConstraint("participant", name="participant_cursor_pkey"),
)

sa.Table(
    "leg_news",
    METADATA,
    *(_text(name) for name in ("plan_id", "leg_id", "participant")),
    _big("revision"),
    _bytes("report"),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="leg_news_pkey"),
)

sa.Table(
    "installation",
    METADATA,
    sa.Column("singleton", sa.Boolean, nullable=False, server_default=sa.true()),
    _big("generation"),
    sa.PrimaryKeyConstraint("singleton", name="installation_pkey"),
)

sa.Table(
    "plan_restore",
    METADATA,
    _plan_reference(),
    _big("generation"),
    _text("finding"),
    sa.PrimaryKeyConstraint("plan_id", name="plan_restore_pkey"),
)

sa.Table(
    "sweep",
    METADATA,
    _text("participant"),
    _big("number"),
    _text("page_token"),
    sa.PrimaryKeyConstraint("participant", name="sweep_pkey"),
)

sa.Table(
    "listed_leg",
    METADATA,
    *(_text(name) for name in ("participant", "plan_id", "leg_id")),
    _big("revision"),
    _text("phase"),
    sa.PrimaryKeyConstraint("participant", "plan_id", "leg_id", name="listed_leg_pkey"),
)

ORPHAN_LEG: Final = sa.Table(
    "orphan_leg",
    METADATA,
    *(_text(name) for name in ("plan_id", "leg_id", "participant", "phase")),
    _time("deadline", nullable=True),
    *(_text(name) for name in ("amount", "finding")),
    sa.Column("found_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    _time("settled_at", nullable=True),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="orphan_leg_pkey"),
)
sa.Index("orphan_leg_open", ORPHAN_LEG.c.plan_id, postgresql_where=ORPHAN_LEG.c.settled_at.is_(None))

sa.Table(
    "journal_refill",
    METADATA,
    _plan_reference(),
    sa.PrimaryKeyConstraint("plan_id", name="journal_refill_pkey"),
)

sa.Table(
    "audit_log",
    METADATA,
    _plan_reference(),
    _small("ordinal"),
    *(_bytes(name) for name in ("digest", "octets")),
    _time("written_at"),
    sa.PrimaryKeyConstraint("plan_id", "ordinal", name="audit_log_pkey"),
    sa.UniqueConstraint("plan_id", "digest", name="audit_log_digest_key"),
)

NOTICE: Final = sa.Table(
    "notice",
    METADATA,
    _text("notice_id"),
    _plan_reference(),
    _text("kind"),
    _bytes("event"),
    _time("noticed_at"),
    sa.PrimaryKeyConstraint("notice_id", name="notice_pkey"),
)
sa.Index("notice_plan", NOTICE.c.plan_id, NOTICE.c.noticed_at)

#: Notices on their way to webhooks.
NOTICE_OUTBOX: Final = Outbox("notice_outbox")
NOTICE_OUTBOX.declare(METADATA)

NOTICE_DEAD_LETTER: Final = sa.Table(
    "notice_dead_letter",
    METADATA,
    _text("dead_letter_id"),
    sa.Column("notice_id", sa.Text, sa.ForeignKey("notice.notice_id"), nullable=False),
    _text("webhook"),
    _small("attempts"),
    _text("detail"),
    _time("dead_at"),
    _time("replayed_at", nullable=True),
    _text("replayed_by", nullable=True),
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
