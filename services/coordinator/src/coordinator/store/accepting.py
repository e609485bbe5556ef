"""Plans as clients bring them: what of them is taken already, the plans themselves, and the token payers' consents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Final

from coordinator.convert import stored
from coordinator.dossier import Consent, Dossier
from coordinator.store.plans import SealedKey
from lockstep_kit.db import Connection
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.statements import GateSignature
from lockstep_kit.values import dataclass, replace

#: A signature's key and nonce: together they are good once.
Nonce = tuple[str, bytes]

#: Those among plan ids that are a plan's, or were one's that was lost with a database that was put back.
TAKEN: Final = """
select plan_id, false as orphaned from plan where plan_id = any($1)
union all select distinct plan_id, true from orphan_leg where plan_id = any($1)
"""

#: Those among keys and nonces that a gate was signed with.
USED: Final = """
select used.key_id, used.nonce from unnest($1::text[], $2::bytea[]) as new (key_id, nonce)
join gate_signature as used on used.key_id = new.key_id and used.nonce = new.nonce
"""

#: Accepts plans, in order, but for those whose ids are taken, and lists them for their parties.
INSERT_PLANS: Final = """
with made as (
insert into plan (plan_id, digest, header, state, decision, delegate, decided_at, since, transition_no, journal_sequence, cause,
    reason, reason_leg, reason_detail, outcome, sealing, unwound_by_policy, version, epoch_generation, epoch_counter, due_at,
    traceparent, created_at, updated_at, created_by, approvals_needed, releases_needed, validations_needed)
select plan_id, digest, header, 'DRAFT', null, '', null, created_at, 1, 1, null, '', '', '', null, false, false, 1, generation, counter,
    due_at, traceparent, created_at, created_at, created_by, approvals, releases, validations
from unnest($1::text[], $2::bytea[], $3::bytea[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::text[],
    $9::text[], $10::integer[], $11::integer[], $12::integer[]) with ordinality
    as new (plan_id, digest, header, created_at, generation, counter, due_at, traceparent, created_by, approvals, releases, validations, place)
order by place
on conflict (plan_id) do nothing returning plan_id, seq
), listed as (
insert into plan_party (party_id, seq, plan_id)
select party_id, made.seq, made.plan_id from unnest($13::text[], $14::text[]) as party (plan_id, party_id) join made using (plan_id)
) select plan_id from made
"""

#: Accepts the plans' legs.
INSERT_LEGS: Final = """
insert into plan_leg (plan_id, leg_id, position, leg, participant, lock, last_order, revision, trouble, reversed)
select plan_id, leg_id, position, leg, participant, lock, 'NONE', 0, '', false
from unnest($1::text[], $2::text[], $3::integer[], $4::bytea[], $5::text[], $6::bytea[])
    as new (plan_id, leg_id, position, leg, participant, lock)
"""

#: Keeps the plans' keys, sealed to the service and to the recovery key.
INSERT_KEYS: Final = """
insert into decision_key (plan_id, service_key_id, service_sealed, recovery_key_id, recovery_sealed)
select * from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[])
"""

#: Keeps the token payers' signatures and permits.
SAVE_PAYERS: Final = """
update plan_leg set payer_signature = new.signature, permit = new.permit
from unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) as new (plan_id, leg_id, signature, permit)
where plan_leg.plan_id = new.plan_id and plan_leg.leg_id = new.leg_id
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A plan that is to be a DRAFT."""

    #: The plan with its papers.
    dossier: Dossier
    #: Its key, sealed.
    key: SealedKey
    #: Lease of the writer.
    epoch: Epoch
    #: When it must be given a Tick at the latest.
    due_at: datetime | None
    #: Client that brought it.
    creator: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What cannot be used any more."""

    #: Ids that plans have.
    plans: frozenset[PlanId]
    #: Ids that plans had, which were lost with a database that was put back.
    orphans: frozenset[PlanId]
    #: Keys and nonces that gates were signed with.
    nonces: frozenset[Nonce]


def nonce_of(signed: GateSignature) -> Nonce:
    """What is good once of a person's signature."""
    return signed.signature.key_id, signed.statement.nonce


async def taken(connection: Connection, ids: Sequence[PlanId], nonces: Sequence[Nonce]) -> Taken:
    """Those among plan ids, keys and nonces that cannot be used any more."""
    rows = await connection.fetch(TAKEN, ids)
    return Taken(
        frozenset(PlanId(row["plan_id"]) for row in rows if not row["orphaned"]),
        frozenset(PlanId(row["plan_id"]) for row in rows if row["orphaned"]),
        await used(connection, nonces),
    )


async def used(connection: Connection, nonces: Sequence[Nonce]) -> frozenset[Nonce]:
    """Those among keys and nonces that gates were signed with."""
    rows = await connection.fetch(USED, [key_id for key_id, _ in nonces], [nonce for _, nonce in nonces])
    return frozenset((row["key_id"], row["nonce"]) for row in rows)


async def insert(tx: Connection, plans: Sequence[Accepted]) -> bool:
    """Accept plans as DRAFTs, with their legs, their sealed keys and the clients that brought them.

    False where there is a plan with one of the ids already: then nothing of the transaction must stay.
    """
    dossiers = [each.dossier for each in plans]
    parties = [(each.plan_id, party.party_id) for each in dossiers for party in each.header.parties]
    made = await tx.fetch(
        INSERT_PLANS,
        [each.plan_id for each in dossiers],
        [each.plan.digest for each in dossiers],
        [stored.header_octets(each.header) for each in dossiers],
        [each.created_at for each in dossiers],
        [each.epoch.generation for each in plans],
        [each.epoch.counter for each in plans],
        [each.due_at for each in plans],
        [each.traceparent for each in dossiers],
        [each.creator for each in plans],
        *map(list, zip(*(astuple(each.plan.quorum) for each in dossiers), strict=True)),
        [plan_id for plan_id, _ in parties],
        [party_id for _, party_id in parties],
    )
    if len(made) != len(plans):
        return False
    legs = [
        (each.plan_id, file.leg.leg_id, place, stored.leg_octets(file.leg), file.participant, file.lock)
        for each in dossiers
        for place, file in enumerate(each.files)
    ]
    await tx.execute(INSERT_LEGS, *map(list, zip(*legs, strict=True)))
    keys = [(each.dossier.plan_id, *astuple(each.key)) for each in plans]
    await tx.execute(INSERT_KEYS, *map(list, zip(*keys, strict=True)))
    return True


async def save_payers(tx: Connection, consents: Mapping[PlanId, Mapping[LegId, Consent]]) -> None:
    """Keep what the token payers of plans brought."""
    rows = [
        (plan_id, leg_id, each.signature, stored.permit_octets(each.permit))
        for plan_id, given in consents.items()
        for leg_id, each in given.items()
    ]
    if rows:
        await tx.execute(SAVE_PAYERS, *map(list, zip(*rows, strict=True)))


def with_payers(dossier: Dossier, consents: Mapping[LegId, Consent]) -> Dossier:
    """The dossier with what the token payers brought."""
    files = (
        replace(each, payer_signature=told.signature, permit=told.permit)
        if (told := consents.get(each.leg.leg_id)) is not None
        else each
        for each in dossier.files
    )
    return replace(dossier, files=tuple(files))
