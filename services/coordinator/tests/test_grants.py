"""The service's role can do what its statements need, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.grants import catalogue, holding
from lockstep_testkit.grants.conformance import GrantsConformance
from lockstep_testkit.grants.listed import grants_file, listed

GRANTS = listed(grants_file("coordinator"))


class TestGrants(GrantsConformance):
    """Of the coordinator."""

    SERVICE = "coordinator"
    PACKAGES = ("coordinator", "lockstep_kit")
    OWNERS = ("coordinator.reseal",)
    OTHER = "notary"


@pytest.mark.parametrize(
    ("slip", "found"),
    [
        ("grant delete on decision_key to {role}", "delete from decision_key where false"),
        ("grant truncate on decision_key to {role}", "truncate decision_key"),
        (
            "grant update (service_sealed) on decision_key to {role}",
            "update decision_key set service_sealed = default where false",
        ),
        ("grant create on schema public to {role}", "create table made (x integer)"),
        ("grant {owner} to {role}", "set role {owner}"),
    ],
)
async def test_a_slip_is_found(
    database_for: Callable[..., Awaitable[TestDatabase]], superuser_url: str, slip: str, found: str
) -> None:
    """A grant too many shows, in the catalogue and by what can then be done."""
    database = await database_for("coordinator")
    owner = database.role + "_owner"
    await holding.as_superuser(superuser_url, database, slip.format(role=database.role, owner=owner))
    try:
        assert any(each.startswith(found.format(owner=owner)) for each in await holding.done(database, GRANTS))
        async with database.as_owner() as connection:
            listed_so = await catalogue.granted(connection, database.role) == GRANTS
            assert not listed_so or await catalogue.beyond(connection, database.role)
    finally:
        if slip.startswith("grant {owner}"):
            # Membership is the server's, not the database's.
            await holding.as_superuser(superuser_url, database, f"revoke {owner} from {database.role}")
