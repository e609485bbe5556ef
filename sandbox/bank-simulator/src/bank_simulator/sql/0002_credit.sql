-- Intraday credit: a line is an account of the liquidity provider at this bank, whose balance is what the provider has lent, as a debt.

alter table accounts drop constraint accounts_kind_check;
alter table accounts add constraint accounts_kind_check check (kind in ('CUSTOMER', 'VOSTRO', 'HOLD', 'CAPITAL', 'CREDIT'));
-- The institution whose account it is: a correspondent, or the provider of a credit line.
alter table accounts drop constraint account_vostro_owner;
alter table accounts add constraint account_institution check ((kind in ('VOSTRO', 'CREDIT')) = (owner_bic is not null));
-- Nothing is repaid that was not drawn. What may be drawn is the overdraft limit.
alter table accounts add constraint account_credit_repaid check (kind <> 'CREDIT' or balance <= 0);

-- DRAW: the provider lends for a hold. REPAY: the hold ended without a booking, and all that was drawn for it goes back. SWEEP: what is due is repaid out
-- of money that is free on the account. These are between the provider and its debtor, and no part of a payment: they have no UETR, but name the payment
-- whose hold, booking or end they go with.
alter table postings drop constraint postings_kind_check;
alter table postings add constraint postings_kind_check
    check (kind in ('OPENING', 'HOLD', 'RELEASE', 'SETTLE', 'PAYMENT', 'DRAW', 'REPAY', 'SWEEP'));
alter table postings add column credit_for uuid;
alter table postings drop constraint posting_uetr;
alter table postings add constraint posting_uetr check ((kind in ('OPENING', 'DRAW', 'REPAY', 'SWEEP')) = (uetr is null));
alter table postings add constraint posting_credit check ((kind in ('DRAW', 'REPAY', 'SWEEP')) = (credit_for is not null));
create unique index postings_one_draw on postings (credit_for) where kind = 'DRAW';
create unique index postings_one_repayment on postings (credit_for) where kind = 'REPAY';
create index postings_credit on postings (credit_for) where credit_for is not null;

-- Posts a batch as before; of a credit posting, the UETR is the payment that it goes with.
create or replace function post(
    wanted_references text[], wanted_kinds text[], wanted_uetrs uuid[], debited text[], credited text[], amounts bigint[]
) returns table (reference text, posting_id bigint, booked_at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare
    made postings;
    same boolean;
    lending boolean;
begin
    perform from accounts where account_id = any (debited || credited) order by account_id for update;
    for i in 1 .. cardinality(wanted_references) loop
        if amounts[i] <= 0 then
            raise exception 'an amount is positive' using errcode = 'check_violation', constraint = 'posting_amount';
        end if;
        lending := wanted_kinds[i] in ('DRAW', 'REPAY', 'SWEEP');
        insert into postings (reference, kind, uetr, credit_for) values (wanted_references[i], wanted_kinds[i],
                case when not lending then wanted_uetrs[i] end, case when lending then wanted_uetrs[i] end)
            on conflict (reference) do nothing returning * into made;
        if made.posting_id is null then
            select * into strict made from postings where reference = wanted_references[i];
            select made.kind = wanted_kinds[i] and coalesce(made.uetr, made.credit_for) is not distinct from wanted_uetrs[i]
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

-- What was drawn for the payment's hold.
alter table payments add column drawn bigint not null default 0 check (drawn >= 0);
alter table payments add constraint payment_drawn check (drawn = 0 or drawn <= amount);

-- What was drawn does not change.
create function drawn_stays() returns trigger language plpgsql as $$
begin
    if new.drawn <> old.drawn then
        raise exception 'what was drawn for payment % does not change', old.uetr using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger drawn_stays before update on payments for each row execute function drawn_stays();
create index payments_held_of on payments (debtor_account) where state = 'HELD';
