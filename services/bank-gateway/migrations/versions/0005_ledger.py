"""The ledger: double entry, hash-linked, posted by one function; and the end of a message's business."""

from __future__ import annotations

from alembic import context, op

revision = "0005"
down_revision = "0004"

LEDGER = (
    # What is hashed of an entry; `bank_gateway.ledger.chain` says the same.
    """
    create function ledger_content(
        ledger text, reference text, kind text, uetr text, debit text, credit text, amount bigint
    ) returns bytea language sql immutable strict parallel safe as $$
        select sha256(convert_to(
            'lockstep/ledger/v1' || E'\\n' || ledger || E'\\n' || reference || E'\\n' || kind || E'\\n' || uetr
            || E'\\n' || debit || E'\\n' || credit || E'\\n' || amount::text, 'UTF8'))
    $$
    """,
    """
    create function ledger_link(previous bytea, sequence bigint, recorded_at timestamptz, content bytea)
    returns bytea language sql immutable strict parallel safe as $$
        select sha256(previous || int8send(sequence)
            || int8send((extract(epoch from recorded_at - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint) || content)
    $$
    """,
    # One row for each ledger, which is one bank's and one currency's. Who posts locks it last.
    """
    create table ledger_head (
        ledger text not null constraint ledger_head_form check (ledger ~ '^[A-Z0-9]{8,11}/[A-Z]{3}$'),
        sequence bigint not null default 0 check (sequence >= 0),
        hash bytea not null default decode(repeat('00', 32), 'hex') constraint ledger_head_hash check (octet_length(hash) = 32),
        constraint ledger_head_pkey primary key (ledger)
    ) with (fillfactor = 50)
    """,
    """
    create table ledger_account (
        ledger text not null,
        account text not null constraint ledger_account_form check (
            account !~ '[^A-Z0-9/]' and length(split_part(account, '/', 1)) between 1 and 34 and split_part(account, '/', 3) = ''),
        kind text not null constraint ledger_account_kind check (
            kind in ('LINE', 'INSTRUCTED', 'HELD', 'SETTLED', 'SUSPENSE', 'NOSTRO', 'FEES') and kind = split_part(account, '/', 2)),
        credit_limit bigint constraint ledger_account_line check (credit_limit is null or (kind = 'LINE' and credit_limit >= 0)),
        balance bigint not null default 0,
        opened_at timestamptz not null default clock_timestamp(),
        constraint ledger_account_pkey primary key (ledger, account),
        -- Nothing is held, asked for or settled that is not there; what is in suspense is owed to it.
        constraint ledger_account_sign check (
            case when kind in ('INSTRUCTED', 'HELD', 'SETTLED', 'FEES') then balance >= 0 when kind = 'SUSPENSE' then balance <= 0 else true end)
    ) with (fillfactor = 50)
    """,
    # An entry is one row with one amount, so that it is balanced, or not there.
    """
    create table ledger_entry (
        ledger text not null,
        sequence bigint not null check (sequence >= 1),
        reference text not null constraint ledger_entry_name check (reference !~ '[^!-~]' and length(reference) between 1 and 140),
        kind text not null constraint ledger_entry_kind check (
            kind in ('INSTRUCTED', 'HELD', 'SETTLED', 'RELEASED', 'RETURNED', 'REPAID', 'CHARGED')),
        uetr text not null constraint ledger_entry_payment check (uetr !~ '[^0-9a-f-]' and length(uetr) in (0, 36)),
        debit text not null,
        credit text not null,
        amount bigint not null constraint ledger_entry_amount check (amount > 0),
        recorded_at timestamptz not null,
        previous bytea not null,
        content bytea not null,
        hash bytea not null,
        constraint ledger_entry_pkey primary key (ledger, sequence),
        constraint ledger_entry_reference unique (ledger, reference),
        constraint ledger_entry_moves check (debit <> credit),
        constraint ledger_entry_content check (content = ledger_content(ledger, reference, kind, uetr, debit, credit, amount)),
        constraint ledger_entry_hash check (hash = ledger_link(previous, sequence, recorded_at, content))
    )
    """,
    "create index ledger_entry_uetr on ledger_entry (uetr)",
    "create index ledger_entry_recorded on ledger_entry (recorded_at)",
    # Balances and heads follow from the entries: whoever adds one, whatever with, moves both, and adds none that is not linked to the last.
    """
    create function ledger_entry_posted() returns trigger language plpgsql as $$
    declare
        moved bigint;
    begin
        if exists (
            select from (
                select ledger, sequence, previous, lag(sequence) over line as before, lag(hash) over line as hash
                from posted window line as (partition by ledger order by sequence)
            ) as linked left join ledger_head as head using (ledger)
            where (linked.sequence, linked.previous) is distinct from (
                coalesce(linked.before, head.sequence) + 1, coalesce(linked.hash, head.hash))
        ) then
            raise exception 'an entry is linked to the last one of its ledger'
                using errcode = 'integrity_constraint_violation', constraint = 'ledger_entry_linked';
        end if;
        update ledger_head as head set sequence = last.sequence, hash = last.hash
        from (select distinct on (ledger) ledger, sequence, hash from posted order by ledger, sequence desc) as last
        where head.ledger = last.ledger;
        update ledger_account as account set balance = account.balance + side.amount
        from (
            select ledger, named as account, sum(minor)::bigint as amount
            from (select ledger, debit as named, -amount as minor from posted union all select ledger, credit, amount from posted) as sides
            group by ledger, named
        ) as side
        where account.ledger = side.ledger and account.account = side.account;
        get diagnostics moved = row_count;
        if moved <> (select count(*) from (
            select ledger, debit from posted union select ledger, credit from posted) as named)
        then
            raise exception 'an entry moves between accounts that are open'
                using errcode = 'integrity_constraint_violation', constraint = 'ledger_entry_accounts';
        end if;
        return null;
    end $$
    """,
    """
    create trigger ledger_entry_posted after insert on ledger_entry referencing new table as posted
        for each statement execute function ledger_entry_posted()
    """,
    """
    create function ledger_stays() returns trigger language plpgsql as $$
    begin
        raise exception 'what is posted is kept as it is' using errcode = 'integrity_constraint_violation', constraint = 'ledger_stays';
    end $$
    """,
    """
    create trigger ledger_entry_stays before update or delete or truncate on ledger_entry
        for each statement execute function ledger_stays()
    """,
    "create trigger ledger_account_stays before delete or truncate on ledger_account for each statement execute function ledger_stays()",
    "create trigger ledger_head_stays before delete or truncate on ledger_head for each statement execute function ledger_stays()",
    # A depth above one: the trigger of the entries is at work.
    """
    create function ledger_account_moves() returns trigger language plpgsql as $$
    begin
        if tg_op = 'INSERT' then
            if new.balance <> 0 then
                raise exception 'an account is opened empty' using errcode = 'integrity_constraint_violation', constraint = 'ledger_account_moves';
            end if;
        elsif (new.ledger, new.account, new.kind, new.opened_at) is distinct from (old.ledger, old.account, old.kind, old.opened_at)
            or (new.balance <> old.balance and pg_trigger_depth() < 2)
        then
            raise exception 'a balance moves by an entry, and nothing else of an account but its limit'
                using errcode = 'integrity_constraint_violation', constraint = 'ledger_account_moves';
        elsif new.balance < old.balance and new.balance < -new.credit_limit then
            raise exception 'a line is drawn to its limit, and no further'
                using errcode = 'check_violation', constraint = 'ledger_account_limit';
        end if;
        return new;
    end $$
    """,
    """
    create trigger ledger_account_moves before insert or update on ledger_account
        for each row execute function ledger_account_moves()
    """,
    """
    create function ledger_head_moves() returns trigger language plpgsql as $$
    begin
        if (tg_op = 'INSERT' and (new.sequence <> 0 or new.hash <> decode(repeat('00', 32), 'hex')))
            or (tg_op = 'UPDATE' and (new.ledger <> old.ledger or pg_trigger_depth() < 2))
        then
            raise exception 'a head moves by an entry' using errcode = 'integrity_constraint_violation', constraint = 'ledger_head_moves';
        end if;
        return new;
    end $$
    """,
    """
    create trigger ledger_head_moves before insert or update on ledger_head
        for each row execute function ledger_head_moves()
    """,
    *(
        f"alter table {table} enable always trigger {trigger}"
        for table, trigger in (
            ("ledger_entry", "ledger_entry_posted"),
            ("ledger_entry", "ledger_entry_stays"),
            ("ledger_account", "ledger_account_stays"),
            ("ledger_account", "ledger_account_moves"),
            ("ledger_head", "ledger_head_stays"),
            ("ledger_head", "ledger_head_moves"),
        )
    ),
    # The only way in for the service. Accounts are opened or locked in one order, lines first, then heads; what was posted before is told and not repeated.
    """
    create function ledger_post(
        ledgers text[], refs text[], kinds text[], uetrs text[], debits text[], credits text[], amounts bigint[]
    ) returns table (place integer, sequence bigint, posted boolean)
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
    #variable_conflict use_column
    declare
        moment timestamptz;
        item record;
        current text;
        number bigint;
        last bytea;
        place_of integer[] := '{}';
        sequences bigint[] := '{}';
        previouses bytea[] := '{}';
        contents bytea[] := '{}';
        hashes bytea[] := '{}';
    begin
        insert into ledger_account as account (ledger, account, kind)
        select named.ledger, named.account, split_part(named.account, '/', 2)
        from (select * from unnest(ledgers, debits) union select * from unnest(ledgers, credits)) as named (ledger, account)
        order by split_part(named.account, '/', 2) <> 'LINE', named.ledger, named.account
        on conflict on constraint ledger_account_pkey do update set balance = account.balance where false;
        insert into ledger_head as head (ledger)
        select distinct given.ledger from unnest(ledgers) as given (ledger) order by given.ledger
        on conflict on constraint ledger_head_pkey do update set sequence = head.sequence where false;
        moment := clock_timestamp();
        for item in
            select given.*, entry.sequence as known, entry.content as known_content, head.sequence as head_sequence, head.hash as head_hash,
                first_value(given.place) over same as first, first_value(given.content) over same as first_content
            from (
                select each.*, ledger_content(each.ledger, each.reference, each.kind, each.uetr, each.debit, each.credit, each.amount) as content
                from unnest(ledgers, refs, kinds, uetrs, debits, credits, amounts) with ordinality
                    as each (ledger, reference, kind, uetr, debit, credit, amount, place)
            ) as given
            join ledger_head as head using (ledger)
            left join ledger_entry as entry on entry.ledger = given.ledger and entry.reference = given.reference
            window same as (partition by given.ledger, given.reference order by given.place)
            order by given.ledger, given.place
        loop
            if item.content <> coalesce(item.known_content, item.first_content) then
                raise exception 'the reference % of % is that of another entry', item.reference, item.ledger
                    using errcode = 'unique_violation', constraint = 'ledger_entry_reference';
            end if;
            place := item.place;
            posted := item.known is null and item.first = item.place;
            if item.known is not null then
                sequence := item.known;
            elsif not posted then
                sequence := sequences[array_position(place_of, item.first::integer)];
            else
                if current is distinct from item.ledger then
                    current := item.ledger;
                    number := item.head_sequence;
                    last := item.head_hash;
                end if;
                number := number + 1;
                place_of := place_of || place;
                sequences := sequences || number;
                previouses := previouses || last;
                contents := contents || item.content;
                last := ledger_link(last, number, moment, item.content);
                hashes := hashes || last;
                sequence := number;
            end if;
            return next;
        end loop;
        insert into ledger_entry (ledger, sequence, reference, kind, uetr, debit, credit, amount, recorded_at, previous, content, hash)
        select ledgers[new.place], new.sequence, refs[new.place], kinds[new.place], uetrs[new.place], debits[new.place], credits[new.place],
            amounts[new.place], moment, new.previous, new.content, new.hash
        from unnest(place_of, sequences, previouses, contents, hashes) as new (place, sequence, previous, content, hash);
    end $$
    """,
    # Who asks whether a limit allows what is to be drawn keeps the line until the end of the transaction, so that what was allowed stays allowed.
    """
    create function ledger_denied(ledgers text[], accounts text[], amounts bigint[]) returns table (place integer)
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
    #variable_conflict use_column
    declare
        item record;
        current text;
        free bigint;
    begin
        perform from ledger_account as line
        where line.credit_limit is not null
            and (line.ledger, line.account) in (select * from unnest(ledgers, accounts))
        order by line.ledger, line.account for update;
        for item in
            select each.place, each.amount, line.ledger || ' ' || line.account as line, line.balance + line.credit_limit as free
            from unnest(ledgers, accounts, amounts) with ordinality as each (ledger, account, amount, place)
            join ledger_account as line on line.ledger = each.ledger and line.account = each.account and line.credit_limit is not null
            order by line.ledger, line.account, each.place
        loop
            if current is distinct from item.line then
                current := item.line;
                free := item.free;
            end if;
            if item.amount > free then
                place := item.place;
                return next;
            else
                free := free - item.amount;
            end if;
        end loop;
    end $$
    """,
    # What the operator allows at one bank: lines that are not named have no limit. What is drawn beyond a lower limit stays drawn, and nothing more is.
    """
    create function ledger_limits(bank text, ledgers text[], accounts text[], limits bigint[]) returns void
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
    begin
        insert into ledger_account as account (ledger, account, kind, credit_limit)
        select given.ledger, given.account, 'LINE', given.credit_limit
        from unnest(ledgers, accounts, limits) as given (ledger, account, credit_limit) order by given.ledger, given.account
        on conflict on constraint ledger_account_pkey do update set credit_limit = excluded.credit_limit
        where account.credit_limit is distinct from excluded.credit_limit;
        update ledger_account as account set credit_limit = null
        where account.credit_limit is not null and split_part(account.ledger, '/', 1) = bank
            and (account.ledger, account.account) not in (select * from unnest(ledgers, accounts));
    end $$
    """,
    # The ledger's own audit, set-based: every row is something wrong.
    """
    create view ledger_audit as
    with linked as (
        select entry.*, lag(sequence, 1, 0::bigint) over line as before, lag(hash, 1, decode(repeat('00', 32), 'hex')) over line as linked_to
        from ledger_entry as entry window line as (partition by ledger order by sequence)
    ), moved as (
        select ledger, named as account, sum(minor) as balance
        from (select ledger, debit as named, -amount as minor from ledger_entry union all select ledger, credit, amount from ledger_entry) as side
        group by ledger, named
    ), last as (
        select distinct on (ledger) ledger, sequence, hash from ledger_entry order by ledger, sequence desc
    )
    select ledger, sequence, '' as account, 'the entry is not linked to the one before' as wrong from linked
    where (sequence, previous) is distinct from (before + 1, linked_to)
    union all
    select ledger, sequence, '', 'the entry does not say what was hashed' from linked
    where content is distinct from ledger_content(ledger, reference, kind, uetr, debit, credit, amount)
        or hash is distinct from ledger_link(previous, sequence, recorded_at, content)
    union all
    select coalesce(head.ledger, last.ledger), coalesce(head.sequence, 0), '', 'the head is not the last entry'
    from ledger_head as head full join last using (ledger)
    where (head.sequence, head.hash) is distinct from (coalesce(last.sequence, 0), coalesce(last.hash, decode(repeat('00', 32), 'hex')))
    union all
    select coalesce(account.ledger, moved.ledger), 0, coalesce(account.account, moved.account), 'the balance is not what the entries come to'
    from ledger_account as account full join moved using (ledger, account)
    where account.balance is distinct from coalesce(moved.balance, 0)
    union all
    select ledger, 0, '', 'the accounts do not balance' from ledger_account group by ledger having sum(balance) <> 0
    """,
)

OUTBOX = (
    # What was asked of the bank before there was a ledger is not on its books.
    "alter table bank_payment add column on_books boolean not null default false",
    "alter table bank_payment alter column on_books set default true",
    "alter table bank_outbox drop constraint bank_outbox_state",
    """
    alter table bank_outbox add constraint bank_outbox_state check (state in ('QUEUED', 'SENT', 'ACKED', 'SETTLED', 'FAILED'))
    """,
    # SETTLED: the bank has it, and the leg that it was sent for has come to its end, so that nothing is waited for any more.
    """
    create or replace function bank_outbox_moves() returns trigger language plpgsql as $$
    begin
        if (old.state, new.state) not in (('QUEUED', 'SENT'), ('SENT', 'SENT'), ('SENT', 'ACKED'), ('SENT', 'FAILED'), ('ACKED', 'SETTLED'))
            or new.octets <> old.octets or new.idempotency_key <> old.idempotency_key or new.action <> old.action or new.uetr <> old.uetr
        then
            raise exception 'a message goes from % to % never', old.state, new.state using errcode = 'integrity_constraint_violation';
        end if;
        if new.state = 'SETTLED' and not exists (
            select from participant_leg as leg where leg.plan_id = new.plan_id and leg.leg_id = new.leg_id
                and leg.phase in ('REFUSED', 'COMMITTED', 'RELEASED', 'REVERSING', 'REVERSED'))
        then
            raise exception 'a message is settled when its leg is at its end' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create index bank_outbox_acked on bank_outbox (id) where state = 'ACKED'",
    "create index bank_outbox_sent on bank_outbox (id) where state = 'SENT'",
)


def upgrade() -> None:
    """Make the ledger; the service's role posts by its functions and reads, and nothing else."""
    role = context.config.attributes["role"]
    for statement in (*LEDGER, *OUTBOX):
        op.execute(statement)
    functions = (
        "ledger_post(text[], text[], text[], text[], text[], text[], bigint[])",
        "ledger_denied(text[], text[], bigint[])",
        "ledger_limits(text, text[], text[], bigint[])",
    )
    for function in functions:
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to {role}")
    for table in ("ledger_head", "ledger_account", "ledger_entry", "ledger_audit"):
        op.execute(f"grant select on {table} to {role}")
