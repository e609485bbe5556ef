-- Undertakings: drafts that are lodged against a facility, issued or withdrawn. They move no money, and are no part of the books; the facility is.

-- Up to what the bank issues undertakings for an account's owner, in minor units of the account's currency.
create table facilities (
    account_id text collate "C" primary key references accounts,
    limit_minor bigint not null check (limit_minor > 0)
);

-- A tombstone has nothing but its names. Only LODGED goes anywhere.
create table undertakings (
    uetr uuid primary key,
    counterparty text not null,
    state text not null check (state in ('TOMBSTONED', 'REJECTED', 'LODGED', 'WITHDRAWN', 'ISSUED')),
    reason text,
    number text not null,
    -- Of an application that is turned down it may be nobody's.
    account_id text collate "C",
    amount bigint check (amount > 0),
    currency text,
    scale smallint,
    applicant_name text,
    beneficiary_name text,
    advising_bic text,
    expires_on date,
    issuance_sha256 bytea check (length(issuance_sha256) = 32),
    content_sha256 bytea check (length(content_sha256) = 32),
    status_message bigint references messages_out,
    created_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp(),
    constraint undertaking_content check (state = 'TOMBSTONED' or num_nulls(account_id, amount, currency, scale, issuance_sha256, content_sha256) = 0)
);
create unique index undertakings_number on undertakings (number) where state in ('LODGED', 'ISSUED');
create index undertakings_of_facility on undertakings (account_id) where state in ('LODGED', 'ISSUED');

-- An undertaking is issued once.
create table undertaking_issues (
    uetr uuid primary key references undertakings,
    number text not null unique,
    issued_on date not null,
    advised_to text not null,
    document bytea not null,
    issued_at timestamptz not null default clock_timestamp()
);

create function undertaking_moves() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and new.state <> old.state and (old.state <> 'LODGED' or new.state not in ('WITHDRAWN', 'REJECTED', 'ISSUED')) then
        raise exception 'undertaking % goes from % to % never', old.uetr, old.state, new.state using errcode = 'integrity_constraint_violation';
    end if;
    if tg_op = 'UPDATE' and (new.uetr, new.counterparty, new.number, new.account_id, new.amount, new.currency, new.scale, new.expires_on,
            new.issuance_sha256, new.content_sha256, new.created_at)
        is distinct from (old.uetr, old.counterparty, old.number, old.account_id, old.amount, old.currency, old.scale, old.expires_on,
            old.issuance_sha256, old.content_sha256, old.created_at) then
        raise exception 'what undertaking % is does not change', old.uetr using errcode = 'integrity_constraint_violation';
    end if;
    new.changed_at := clock_timestamp();
    return new;
end $$;
create trigger undertaking_moves before update on undertakings for each row execute function undertaking_moves();

-- No draft is lodged beyond the facility. Undertakings whose day is over are counted no more.
create function undertaking_within_facility() returns trigger language plpgsql as $$
declare
    allowed bigint;
begin
    select limit_minor into allowed from facilities where account_id = new.account_id for update;
    if allowed is null or allowed < (
        select sum(amount) from undertakings
        where account_id = new.account_id and (state = 'LODGED' or state = 'ISSUED' and expires_on > current_date)
    ) then
        raise exception 'the facility of % does not suffice', new.account_id
            using errcode = 'check_violation', constraint = 'undertaking_within_facility';
    end if;
    return null;
end $$;
create trigger undertaking_within_facility after insert on undertakings
    for each row when (new.state = 'LODGED') execute function undertaking_within_facility();

-- What was issued stays.
create function undertaking_issue_stays() returns trigger language plpgsql as $$
begin
    raise exception 'what was issued stays' using errcode = 'integrity_constraint_violation';
end $$;
create trigger undertaking_issue_stays before update or delete or truncate on undertaking_issues
    for each statement execute function undertaking_issue_stays();
