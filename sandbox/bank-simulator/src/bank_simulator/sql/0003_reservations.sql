-- Reservations: money set aside for one payment, before it comes; payments between financial institutions; and returns of settled payments.

-- One row per UETR of the payment that it is for, for ever. A tombstone stands for a reservation that was asked about, or deleted, before it came.
create table reservations (
    uetr uuid primary key,
    counterparty text not null,
    state text not null check (state in ('TOMBSTONED', 'REJECTED', 'RESERVED', 'PAID', 'DELETED', 'EXPIRED')),
    reason text,
    -- The message that asked for it.
    message_id text,
    account_id text collate "C",
    amount bigint check (amount > 0),
    currency text,
    scale smallint,
    hold_until timestamptz,
    -- The last camt.025 about it.
    receipt_message bigint references messages_out,
    created_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp(),
    constraint reservation_terms check (state = 'TOMBSTONED' or num_nulls(message_id, account_id, amount, currency, scale) = 0),
    constraint reservation_end check (state in ('TOMBSTONED', 'REJECTED') or hold_until is not null)
);
create index reservations_due on reservations (hold_until) where state = 'RESERVED';
create index reservations_of on reservations (account_id) where state = 'RESERVED';

-- A reservation's terms stay as they are; only one that stands has somewhere to go.
create function reservation_goes_forward() returns trigger language plpgsql as $$
begin
    if new.state <> old.state and old.state <> 'RESERVED' then
        raise exception 'reservation % is % and stays so', old.uetr, old.state using errcode = 'integrity_constraint_violation';
    end if;
    if (new.uetr, new.counterparty, new.message_id, new.account_id, new.amount, new.currency, new.scale, new.hold_until)
        is distinct from (old.uetr, old.counterparty, old.message_id, old.account_id, old.amount, old.currency, old.scale, old.hold_until) then
        raise exception 'the terms of reservation % do not change', old.uetr using errcode = 'integrity_constraint_violation';
    end if;
    new.changed_at := clock_timestamp();
    return new;
end $$;
create trigger reservation_goes_forward before update on reservations for each row execute function reservation_goes_forward();
create trigger is_not_removed before delete on reservations for each row execute function stays_as_written();
create trigger stays_whole before truncate on reservations for each statement execute function stays_as_written();

-- The definition that carried the payment.
alter table payments add column message_kind text not null default 'pacs.008.001.13'
    check (message_kind in ('pacs.008.001.13', 'pacs.009.001.12'));

-- What came back of a settled payment, in sum.
alter table payments add column returned bigint not null default 0;
alter table payments add constraint payment_returned check (returned = 0 or state = 'SETTLED' and returned between 0 and amount);
alter table postings drop constraint postings_kind_check;
alter table postings add constraint postings_kind_check
    check (kind in ('OPENING', 'HOLD', 'RELEASE', 'SETTLE', 'PAYMENT', 'DRAW', 'REPAY', 'SWEEP', 'RETURN'));
