-- What comes together is posted together: as before, by one statement for all items, which says the booking day as well.

drop function post(text[], text[], uuid[], text[], text[], bigint[]);

-- Posts a batch, whole or not at all: each item debits one account and credits another. An item whose reference is already there with the same content is
-- the one that is there; with other content the batch is refused. Accounts are locked in one order. Of a credit posting, the UETR is the payment that it
-- goes with.
create function post(
    wanted_references text[], wanted_kinds text[], wanted_uetrs uuid[], debited text[], credited text[], amounts bigint[]
) returns table (reference text, posting_id bigint, booked_at timestamptz, booking_date date) language plpgsql as $$
#variable_conflict use_column
declare
    made bigint;
    reused text;
begin
    perform from accounts where account_id = any (debited || credited) order by account_id for update;
    if exists (select from unnest(amounts) as amount where amount <= 0) then
        raise exception 'an amount is positive' using errcode = 'check_violation', constraint = 'posting_amount';
    end if;
    with wanted as (
        select distinct on (reference) reference, kind, uetr, kind in ('DRAW', 'REPAY', 'SWEEP') as lending, debited, credited, amount, place
        from unnest(wanted_references, wanted_kinds, wanted_uetrs, debited, credited, amounts)
            with ordinality as item (reference, kind, uetr, debited, credited, amount, place)
        order by reference, place
    ), posted as (
        insert into postings (reference, kind, uetr, credit_for)
        select reference, kind, case when not lending then uetr end, case when lending then uetr end from wanted order by place
        on conflict (reference) do nothing returning reference, posting_id
    )
    insert into entries (posting_id, account_id, currency, amount)
    select posted.posting_id, side.account_id, accounts.currency, side.amount
    from posted join wanted using (reference)
    cross join lateral (values (1, wanted.debited, -wanted.amount), (2, wanted.credited, wanted.amount)) as side (number, account_id, amount)
    left join accounts on accounts.account_id = side.account_id
    order by wanted.place, side.number;
    get diagnostics made = row_count;
    if made < 2 * cardinality(wanted_references) then
        select wanted.reference into reused
        from unnest(wanted_references, wanted_kinds, wanted_uetrs, debited, credited, amounts)
            as wanted (reference, kind, uetr, debited, credited, amount)
        join postings on postings.reference = wanted.reference
        where (postings.kind, coalesce(postings.uetr, postings.credit_for)) is distinct from (wanted.kind, wanted.uetr)
            or not exists (
                select from entries where entries.posting_id = postings.posting_id and account_id = wanted.debited and entries.amount = -wanted.amount)
            or not exists (
                select from entries where entries.posting_id = postings.posting_id and account_id = wanted.credited and entries.amount = wanted.amount)
        limit 1;
        if reused is not null then
            raise exception '% is already posted with other content', reused
                using errcode = 'unique_violation', constraint = 'posting_reference_reused';
        end if;
    end if;
    return query select postings.reference, postings.posting_id, postings.booked_at, postings.booking_date
        from postings where postings.reference = any (wanted_references);
end $$;

-- What was booked for a payment is asked for by everybody who looks into the books.
create index postings_of_payment on postings (uetr) where uetr is not null;
