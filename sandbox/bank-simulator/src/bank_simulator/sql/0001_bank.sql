-- The bank's books, its payments and its post. Applied once, in one transaction, by schema.py.

-- Books ---------------------------------------------------------------------------------------------------------------

-- An account of somebody at this bank. A positive balance is what the bank owes its holder. Amounts are minor units of the currency.
create table accounts (
    account_id text collate "C" primary key,
    kind text not null check (kind in ('CUSTOMER', 'VOSTRO', 'HOLD', 'CAPITAL')),
    owner_name text not null,
    -- The correspondent whose account it is.
    owner_bic text,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    scale smallint not null check (scale between 0 and 5),
    status text not null default 'OPEN' check (status in ('OPEN', 'BLOCKED', 'CLOSED')),
    balance bigint not null default 0,
    overdraft_limit bigint,
    constraint account_not_overdrawn check (overdraft_limit is null or balance >= -overdraft_limit),
    constraint account_overdraft_limit check (overdraft_limit >= 0 and overdraft_limit is not null or kind = 'CAPITAL'),
    constraint account_vostro_owner check ((kind = 'VOSTRO') = (owner_bic is not null))
);
create unique index accounts_vostro on accounts (owner_bic, currency) where kind = 'VOSTRO';

create table postings (
    posting_id bigint generated always as identity primary key,
    -- What it is for; posted once, however often it is asked for.
    reference text not null unique,
    kind text not null check (kind in ('OPENING', 'HOLD', 'RELEASE', 'SETTLE', 'PAYMENT')),
    uetr uuid,
    booked_at timestamptz not null default clock_timestamp(),
    constraint posting_uetr check ((kind = 'OPENING') = (uetr is null))
);
-- One booking per payment, one hold, and one end of the hold.
create unique index postings_one_booking on postings (uetr) where kind in ('SETTLE', 'PAYMENT');
create unique index postings_one_hold on postings (uetr) where kind = 'HOLD';
create unique index postings_one_end on postings (uetr) where kind in ('SETTLE', 'RELEASE');

create table entries (
    entry_id bigint generated always as identity primary key,
    posting_id bigint not null references postings,
    account_id text collate "C" not null references accounts,
    currency text not null,
    -- Positive credits the account's holder, negative debits it.
    amount bigint not null check (amount <> 0),
    balance_after bigint not null,
    unique (posting_id, account_id)
);
create index entries_of_account on entries (account_id, entry_id);

-- A balance moves by an entry and in no other way.
create function entry_moves_balance() returns trigger language plpgsql as $$
begin
    update accounts set balance = balance + new.amount
        where account_id = new.account_id and currency = new.currency
        returning balance into new.balance_after;
    if not found then
        raise exception 'no account % in %', new.account_id, new.currency using errcode = 'foreign_key_violation';
    end if;
    return new;
end $$;
create trigger entry_moves_balance before insert on entries for each row execute function entry_moves_balance();

create function balance_only_by_entry() returns trigger language plpgsql as $$
begin
    if pg_trigger_depth() < 2 and (tg_op = 'INSERT' and new.balance <> 0 or tg_op = 'UPDATE' and new.balance <> old.balance) then
        raise exception 'a balance moves only by an entry' using errcode = 'integrity_constraint_violation';
    end if;
    if tg_op = 'UPDATE' and (new.account_id, new.kind, new.currency, new.scale)
            is distinct from (old.account_id, old.kind, old.currency, old.scale) then
        raise exception 'what an account is does not change' using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger balance_only_by_entry before insert or update on accounts for each row execute function balance_only_by_entry();

-- At the end of a transaction every posting has entries that sum to zero in each currency.
create function posting_is_balanced() returns trigger language plpgsql as $$
begin
    if (select count(*) < 2 from entries where posting_id = new.posting_id) or exists (
        select from entries where posting_id = new.posting_id group by currency having sum(amount) <> 0
    ) then
        raise exception 'posting % is not balanced', new.posting_id
            using errcode = 'check_violation', constraint = 'posting_is_balanced';
    end if;
    return null;
end $$;
create constraint trigger posting_is_balanced after insert on postings
    deferrable initially deferred for each row execute function posting_is_balanced();
create constraint trigger posting_stays_balanced after insert on entries
    deferrable initially deferred for each row execute function posting_is_balanced();

-- Posts a batch, whole or not at all: each item debits one account and credits another. An item whose reference is already there
-- with the same content is the one that is there; with other content the batch is refused. Accounts are locked in one order.
create function post(
    wanted_references text[], wanted_kinds text[], wanted_uetrs uuid[], debited text[], credited text[], amounts bigint[]
) returns table (reference text, posting_id bigint, booked_at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare
    made postings;
    same boolean;
begin
    perform from accounts where account_id = any (debited || credited) order by account_id for update;
    for i in 1 .. cardinality(wanted_references) loop
        if amounts[i] <= 0 then
            raise exception 'an amount is positive' using errcode = 'check_violation', constraint = 'posting_amount';
        end if;
        insert into postings (reference, kind, uetr) values (wanted_references[i], wanted_kinds[i], wanted_uetrs[i])
            on conflict (reference) do nothing returning * into made;
        if made.posting_id is null then
            select * into strict made from postings where reference = wanted_references[i];
            select made.kind = wanted_kinds[i] and made.uetr is not distinct from wanted_uetrs[i]
                    and coalesce(sum(amount) filter (where account_id = debited[i]), 0) = -amounts[i]
                    and coalesce(sum(amount) filter (where account_id = credited[i]), 0) = amounts[i]
                into same from entries where posting_id = made.posting_id;
            if not same then
                raise exception '% is already posted with other content', made.reference
                    using errcode = 'unique_violation', constraint = 'posting_reference_reused';
            end if;
        else
            insert into entries (posting_id, account_id, currency, amount)
                select made.posting_id, side.account_id, accounts.currency, side.amount
                from (values (debited[i], -amounts[i]), (credited[i], amounts[i])) as side (account_id, amount)
                left join accounts on accounts.account_id = side.account_id;
        end if;
        return query select made.reference, made.posting_id, made.booked_at;
        made := null;
    end loop;
end $$;

-- Post ----------------------------------------------------------------------------------------------------------------

-- What was received, byte for byte. A repeat is kept as well, beside what it repeats.
create table messages_in (
    message_id bigint generated always as identity primary key,
    counterparty text not null,
    idempotency_key text not null,
    kind text not null,
    repeat_of bigint references messages_in,
    body bytea not null,
    sha256 bytea not null generated always as (sha256(body)) stored,
    -- Of the content without what a repeat may change.
    content_sha256 bytea not null,
    received_at timestamptz not null default clock_timestamp()
);
create unique index messages_in_key on messages_in (counterparty, idempotency_key) where repeat_of is null;

-- What was received and is not valid, with the first rule that it breaks.
create table quarantine (
    quarantine_id bigint generated always as identity primary key,
    counterparty text not null,
    idempotency_key text not null,
    body bytea not null,
    sha256 bytea not null generated always as (sha256(body)) stored,
    field text not null,
    rule text not null,
    error text not null,
    received_at timestamptz not null default clock_timestamp()
);

-- What was made for a counterparty, byte for byte, whether or not it was ever put into a mailbox.
create table messages_out (
    message_id bigint generated always as identity primary key,
    counterparty text not null,
    kind text not null,
    business_message_id text not null unique,
    in_reply_to bigint references messages_in,
    uetrs uuid[] not null,
    body bytea not null,
    sha256 bytea not null generated always as (sha256(body)) stored,
    created_at timestamptz not null default clock_timestamp()
);
create index messages_out_uetrs on messages_out using gin (uetrs);
create index messages_out_reply on messages_out (in_reply_to);

create table mailboxes (
    counterparty text primary key,
    last_cursor bigint not null default 0,
    acknowledged_cursor bigint not null default 0,
    constraint mailbox_acknowledged check (acknowledged_cursor between 0 and last_cursor)
);

create table mailbox_items (
    counterparty text not null references mailboxes,
    cursor bigint not null,
    message_id bigint not null references messages_out,
    put_at timestamptz not null default clock_timestamp(),
    primary key (counterparty, cursor)
);

-- Messages that were told to be late.
create table deferred_messages (
    deferred_id bigint generated always as identity primary key,
    message_id bigint not null references messages_out,
    due_at timestamptz not null
);
create index deferred_messages_due on deferred_messages (due_at);

-- Puts messages into a mailbox in the given order. The mailbox's row is locked until the transaction ends, so that a reader never
-- passes over a cursor that commits later: call it last.
create function put_into_mailbox(wanted_counterparty text, wanted_messages bigint[]) returns bigint language plpgsql as $$
declare
    last bigint;
begin
    insert into mailboxes (counterparty) values (wanted_counterparty) on conflict do nothing;
    update mailboxes set last_cursor = last_cursor + cardinality(wanted_messages)
        where counterparty = wanted_counterparty returning last_cursor into last;
    insert into mailbox_items (counterparty, cursor, message_id)
        select wanted_counterparty, last - cardinality(wanted_messages) + item.place, item.message_id
        from unnest(wanted_messages) with ordinality as item (message_id, place);
    return last;
end $$;

-- Payments ------------------------------------------------------------------------------------------------------------

-- One row per UETR, for ever. A tombstone stands for a payment that was asked about, or cancelled, before it came: it never will be.
create table payments (
    uetr uuid primary key,
    counterparty text not null,
    state text not null check (state in ('TOMBSTONED', 'REJECTED', 'HELD', 'SETTLED', 'CANCELLED', 'EXPIRED')),
    reason text,
    content_sha256 bytea,
    message_id text,
    instruction_id text,
    end_to_end_id text,
    transaction_id text,
    amount bigint check (amount > 0),
    currency text,
    scale smallint,
    debtor_account text,
    creditor_account text,
    -- The account of this bank that is credited: the creditor's own, or its correspondent's.
    credited_account text,
    hold_lock bytea check (length(hold_lock) = 32),
    hold_key bytea,
    expires_at timestamptz,
    -- When the hold really ends: `expires_at`, unless the bank was told to be early.
    hold_until timestamptz,
    -- The last pacs.002 about it, with its status, and the camt.054.
    status_message bigint references messages_out,
    status_code text,
    booking_message bigint references messages_out,
    created_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp(),
    constraint payment_terms check (state = 'TOMBSTONED' or num_nulls(content_sha256, message_id, end_to_end_id, amount, currency, scale) = 0),
    constraint payment_accounts check (
        state in ('TOMBSTONED', 'REJECTED') or num_nulls(debtor_account, credited_account) = 0
    ),
    constraint payment_hold check (state not in ('HELD', 'CANCELLED', 'EXPIRED') or num_nulls(hold_lock, expires_at, hold_until) = 0),
    constraint payment_key check (hold_key is null or state = 'SETTLED' and sha256(hold_key) = hold_lock)
);
create unique index payments_instruction on payments (counterparty, instruction_id);
create index payments_due on payments (hold_until) where state = 'HELD';
create index payments_message on payments (counterparty, message_id);

-- A payment's terms stay as they are; only a hold has somewhere to go.
create function payment_goes_forward() returns trigger language plpgsql as $$
begin
    if new.state <> old.state and old.state <> 'HELD' then
        raise exception 'payment % is % and stays so', old.uetr, old.state using errcode = 'integrity_constraint_violation';
    end if;
    if (new.uetr, new.counterparty, new.content_sha256, new.message_id, new.instruction_id, new.end_to_end_id, new.amount, new.currency,
            new.debtor_account, new.creditor_account, new.credited_account, new.hold_lock, new.expires_at)
        is distinct from (old.uetr, old.counterparty, old.content_sha256, old.message_id, old.instruction_id, old.end_to_end_id, old.amount,
            old.currency, old.debtor_account, old.creditor_account, old.credited_account, old.hold_lock, old.expires_at) then
        raise exception 'the terms of payment % do not change', old.uetr using errcode = 'integrity_constraint_violation';
    end if;
    new.changed_at := clock_timestamp();
    return new;
end $$;
create trigger payment_goes_forward before update on payments for each row execute function payment_goes_forward();

-- Misbehaviour --------------------------------------------------------------------------------------------------------

-- What the bank was told to do wrong, and how often it still will.
create table misbehaviours (
    misbehaviour_id bigint generated always as identity primary key,
    script jsonb not null,
    remaining int not null check (remaining >= 0),
    created_at timestamptz not null default clock_timestamp()
);

-- What is written stays ------------------------------------------------------------------------------------------------

create function stays_as_written() returns trigger language plpgsql as $$
begin
    raise exception '% of % is refused: what is written stays', tg_op, tg_table_name using errcode = 'integrity_constraint_violation';
end $$;

do $$
declare
    kept text;
begin
    foreach kept in array array['postings', 'entries', 'messages_in', 'quarantine', 'messages_out', 'mailbox_items'] loop
        execute format('create trigger stays_as_written before update or delete on %I for each row execute function stays_as_written()', kept);
        execute format('create trigger stays_whole before truncate on %I for each statement execute function stays_as_written()', kept);
    end loop;
    foreach kept in array array['accounts', 'payments', 'mailboxes'] loop
        execute format('create trigger is_not_removed before delete on %I for each row execute function stays_as_written()', kept);
        execute format('create trigger stays_whole before truncate on %I for each statement execute function stays_as_written()', kept);
    end loop;
end $$;
