"""The log: tiles of the Merkle tree over all entries, how far it reaches, and its published checkpoints; they only grow, for every role."""

from __future__ import annotations

from alembic import context, op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    """
    create table journal_tree (
        singleton boolean primary key default true check (singleton),
        tree_size bigint not null check (tree_size >= 0),
        -- Which log the entries were of; another name than `incarnation`, since a restore renews those, and this shows that there was one.
        log_incarnation text not null
    )
    """,
    "insert into journal_tree (tree_size, log_incarnation) select 0, incarnation from journal_counter",
    """
    create table journal_tile (
        level integer not null check (level between 0 and 7),
        tile_index bigint not null check (tile_index >= 0),
        hashes bytea not null check (octet_length(hashes) between 32 and 8192 and octet_length(hashes) % 32 = 0),
        constraint journal_tile_pkey primary key (level, tile_index)
    )
    """,
    # Hashes cannot be compressed, so that nobody tries.
    "alter table journal_tile alter column hashes set storage external",
    """
    create table journal_checkpoint (
        tree_size bigint not null check (tree_size >= 1),
        root_hash bytea not null check (octet_length(root_hash) = 32),
        signed_note bytea not null check (octet_length(signed_note) between 1 and 16384),
        made_at timestamptz not null,
        constraint journal_checkpoint_pkey primary key (tree_size)
    )
    """,
    # A tile begins once the one before it is full, and what it holds stays.
    """
    create function journal_tile_grows() returns trigger language plpgsql as $$
    begin
        if tg_op = 'INSERT' then
            if new.tile_index > 0 and not exists (
                select from journal_tile where level = new.level and tile_index = new.tile_index - 1 and octet_length(hashes) = 8192
            ) then
                raise exception 'a tile follows a full one' using errcode = 'integrity_constraint_violation';
            end if;
        elsif (new.level, new.tile_index) <> (old.level, old.tile_index)
            or octet_length(new.hashes) <= octet_length(old.hashes)
            or substring(new.hashes for octet_length(old.hashes)) <> old.hashes then
            raise exception 'a tile only grows' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger journal_tile_grows before insert or update on journal_tile for each row execute function journal_tile_grows()",
    # The tree reaches as far as its leaves do, each of which is an entry.
    """
    create function journal_tree_grows() returns trigger language plpgsql as $$
    begin
        if new.tree_size < old.tree_size then
            raise exception 'the tree only grows' using errcode = 'integrity_constraint_violation';
        end if;
        if new.tree_size > old.tree_size then
            if not exists (select from journal_entry where position = new.tree_size) then
                raise exception 'a leaf is an entry' using errcode = 'integrity_constraint_violation';
            end if;
            if not exists (
                select from journal_tile
                where level = 0 and tile_index = (new.tree_size - 1) / 256
                    and octet_length(hashes) = ((new.tree_size - 1) % 256 + 1) * 32
            ) then
                raise exception 'the tree is as large as its tiles' using errcode = 'integrity_constraint_violation';
            end if;
        end if;
        return new;
    end $$
    """,
    "create trigger journal_tree_grows before update on journal_tree for each row execute function journal_tree_grows()",
    """
    create function journal_checkpoint_follows() returns trigger language plpgsql as $$
    begin
        -- Under the tree's lock, so that two that are made at one time are seen by one another.
        perform from journal_tree where tree_size >= new.tree_size for update;
        if not found then
            raise exception 'a checkpoint is of a tree that there is' using errcode = 'integrity_constraint_violation';
        end if;
        if exists (select from journal_checkpoint where tree_size >= new.tree_size) then
            raise exception 'a checkpoint is larger than those before it' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger journal_checkpoint_follows before insert on journal_checkpoint
        for each row execute function journal_checkpoint_follows()
    """,
    """
    create function journal_log_stays() returns trigger language plpgsql as $$
    begin
        raise exception 'the log is append-only' using errcode = 'integrity_constraint_violation';
    end $$
    """,
    "create trigger journal_tile_stays before delete on journal_tile for each row execute function journal_log_stays()",
    "create trigger journal_tree_stays before delete on journal_tree for each row execute function journal_log_stays()",
    """
    create trigger journal_checkpoint_stays before update or delete on journal_checkpoint
        for each row execute function journal_log_stays()
    """,
    *(
        f"create trigger {table}_never_truncated before truncate on {table} for each statement execute function journal_log_stays()"
        for table in ("journal_tile", "journal_tree", "journal_checkpoint")
    ),
    # ALWAYS: they fire for replication sessions too.
    *(
        f"alter table {table} enable always trigger {trigger}"
        for table, triggers in {
            "journal_tile": ("journal_tile_grows", "journal_tile_stays", "journal_tile_never_truncated"),
            "journal_tree": ("journal_tree_grows", "journal_tree_stays", "journal_tree_never_truncated"),
            "journal_checkpoint": ("journal_checkpoint_follows", "journal_checkpoint_stays", "journal_checkpoint_never_truncated"),
        }.items()
        for trigger in triggers
    ),
)


def upgrade() -> None:
    """Make the log, empty; the service takes up what there is when it starts."""
    for statement in STATEMENTS:
        op.execute(statement)
    role = context.config.attributes["role"]
    for statement in (
        f"grant select, update on journal_tree to {role}",
        f"grant select, insert, update on journal_tile to {role}",
        f"grant select, insert on journal_checkpoint to {role}",
    ):
        op.execute(statement)
