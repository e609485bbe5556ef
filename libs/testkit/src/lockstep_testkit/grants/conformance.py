"""What holds of every service's role: it can do what its statements need, and nothing else.

A service's tests say where its statements are:

    class TestGrants(GrantsConformance):
        SERVICE = "notary"
        PACKAGES = ("notary", "lockstep_kit")
"""

# ruff: noqa: S101 - a suite of tests asserts

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.grants import catalogue, holding
from lockstep_testkit.grants.listed import Grants, TableGrants, grants_file, listed

MakeDatabase = Callable[..., Awaitable[TestDatabase]]


class GrantsConformance:
    """A service's `grants.toml`, held against its database."""

    #: The service's package.
    SERVICE: ClassVar[str]
    #: Where the service's statements are.
    PACKAGES: ClassVar[tuple[str, ...]]
    #: What runs as the database's owner: migrations, and operators' programs.
    OWNERS: ClassVar[tuple[str, ...]] = ("lockstep_kit.participant.schema",)
    #: Another service on the same server.
    OTHER: ClassVar[str] = "coordinator"

    @property
    def grants(self) -> Grants:
        """What the role has, as the service lists it."""
        return listed(grants_file(self.SERVICE))

    async def test_the_role_has_what_is_listed(self, database_for: MakeDatabase) -> None:
        """Table by table and column by column, as the catalogue says; no membership, nothing owned, bounded sessions and statements."""
        database = await database_for(self.SERVICE)
        async with database.as_owner() as owner:
            assert await catalogue.granted(owner, database.role) == self.grants
            assert await catalogue.beyond(owner, database.role) == []

    async def test_everything_else_is_refused(self, database_for: MakeDatabase, superuser_url: str) -> None:
        """Whatever is not listed is tried, as the role, and permission is denied; other databases do not let it in, other sessions' statements are hidden."""
        database, other = await database_for(self.SERVICE), await database_for(self.OTHER)
        assert await holding.done(database, self.grants) == []
        assert await holding.of_others(database, [other], superuser_url) == []

    async def test_everything_listed_is_needed(self, database_for: MakeDatabase, superuser_url: str) -> None:
        """Each of the service's statements may be run by the role, and each grant taken away stops one."""
        database = await database_for(self.SERVICE)
        refused, needless = await holding.needless(superuser_url, database, self.grants, self.PACKAGES, self.OWNERS)
        assert refused == []
        assert needless == []

    async def test_a_grant_too_many_is_needless(self, database_for: MakeDatabase, superuser_url: str) -> None:
        """What no statement needs is found, also where the list has it."""
        database, grants = await database_for(self.SERVICE), self.grants
        name = "participant_leg" if "participant_leg" in grants.tables else "plan"
        await holding.as_superuser(superuser_url, database, f"grant update (plan_id), delete on {name} to {database.role}")
        given = TableGrants(frozenset({"delete"}), frozenset({"plan_id"}))
        wider = Grants({name: given}, grants.functions, grants.sequences)
        _, needless = await holding.needless(superuser_url, database, wider, self.PACKAGES, self.OWNERS)
        assert needless == [f"delete on {name}", f"update (plan_id) on {name}"]
