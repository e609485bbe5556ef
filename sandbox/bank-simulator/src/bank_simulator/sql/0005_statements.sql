-- Booking days and account statements: what is booked bears the bank's day, which its end closes, and each closed day is stated account by account.

-- The day that is open. Whoever posts keeps it open until the transaction ends, so that nothing is booked on a day that was closed.
create table bank_day (
    only_one boolean primary key default true check (only_one),
    day date not null
);

create table closed_days (
    day date primary key,
    closed_at timestamptz not null default clock_timestamp(),
    -- When the statements of the day were made.
    stated_at timestamptz
);

alter table postings add column booking_date date not null default current_date;
alter table postings alter column booking_date drop default;

create function posting_bears_day() returns trigger language plpgsql as $$
begin
    select day into new.booking_date from bank_day for share;
    if new.booking_date is null then
        raise exception 'the bank has not opened' using errcode = 'check_violation';
    end if;
    return new;
end $$;
create trigger posting_bears_day before insert on postings for each row execute function posting_bears_day();

-- What is booked on accounts, as their holders see it: a hold is no booking, and its settlement debits the debtor.
create view booked_movements as
select entries.account_id, postings.posting_id, postings.kind, postings.booking_date, entries.amount, postings.uetr
from entries join postings using (posting_id) where postings.kind not in ('HOLD', 'RELEASE')
union all
select payments.debtor_account, postings.posting_id, postings.kind, postings.booking_date, -payments.amount, postings.uetr
from postings join payments using (uetr) where postings.kind = 'SETTLE';

-- One row for each time that a day of an account was stated to a counterparty; a correction is a statement of its own with the same number.
create table statements (
    statement_id text primary key,
    counterparty text not null,
    account_id text collate "C" not null references accounts,
    day date not null references closed_days,
    number bigint not null check (number > 0),
    entries bigint not null check (entries >= 0),
    messages bigint[] not null,
    made_at timestamptz not null default clock_timestamp()
);
create index statements_of_account on statements (counterparty, account_id, day);

create trigger stays_as_written before update or delete on statements for each row execute function stays_as_written();
create trigger stays_whole before truncate on statements for each statement execute function stays_as_written();
