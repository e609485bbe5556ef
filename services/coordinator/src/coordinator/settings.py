"""Settings of the coordinator."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from coordinator.compliance import Compliance
from coordinator.lint import Installation
from coordinator.model import Limits
from coordinator.participants import Routes
from coordinator.pressure import PressureSettings
from coordinator.quotas import QuotaSettings
from coordinator.webhook_settings import NoticeSettings, WebhookSettings
from lockstep.coordinator.v1 import operator_service_pb2, settlement_service_pb2
from lockstep_kit.amounts import erc20_asset, is_currency, known_scale
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_bic, check_chain, check_evm_address
from lockstep_kit.installation import with_inspectors
from lockstep_kit.plan import LegKind
from lockstep_kit.rpc import Access, access_of
from lockstep_kit.rpc.standings import CallerSettings, methods_of
from lockstep_kit.settings import ServiceSettings

SERVICE: Final = "/lockstep.coordinator.v1.SettlementService"
OPERATOR_SERVICE: Final = "/lockstep.coordinator.v1.OperatorService"
#: Methods of SettlementService that change nothing, and all.
READING_METHODS: Final = ("GetPlan", "ListPlans", "ListTransitions", "GetAbortAuditLog", "WatchPlan", "WatchPlans")
METHODS: Final = methods_of(settlement_service_pb2.DESCRIPTOR, "SettlementService")
#: The same of OperatorService.
OPERATOR_READING_METHODS: Final = ("ListEscalations", "GetEscalation", "ListInDoubt", "ListDeadLetters")
OPERATOR_METHODS: Final = methods_of(operator_service_pb2.DESCRIPTOR, "OperatorService")
_GENERATION_LENGTH_MAX: Final = 16


class InstallationSettings(BaseModel):
    """What plans of this installation may name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    assets: dict[str, int] = Field(
        description="ISO 4217 code or CAIP-19 id -> decimal places; what is not here is not settled here"
    )
    chains: tuple[str, ...] = Field(default=(), description="CAIP-2 ids of the chains")
    escrows: tuple[str, ...] = Field(default=(), description="EIP-55 addresses of the escrow contracts")
    registries: tuple[str, ...] = Field(default=(), description="EIP-55 addresses of the notary registries")
    banks: tuple[str, ...] = Field(default=(), description="BICs of the banks whose accounts may be debited or credited")
    sod_versions: tuple[int, ...] = Field(default=(1,), description="versions of the segregation-of-duties matrix in force")

    def check(self) -> None:
        """Every name has its form.

        Raises:
            FieldInvalid: one has not.
        """
        for asset, scale in self.assets.items():
            known = known_scale(asset)
            require(known is None or known == scale, f"installation.assets.{asset}", f"must be {known}")
            if not is_currency(asset):
                require(erc20_asset(asset).chain in self.chains, "installation.chains", f"must hold the chain of {asset}")
        for index, chain in enumerate(self.chains):
            check_chain(chain, f"installation.chains[{index}]")
        for field, addresses in (("escrows", self.escrows), ("registries", self.registries)):
            for index, address in enumerate(addresses):
                check_evm_address(address, f"installation.{field}[{index}]")
        for index, bic in enumerate(self.banks):
            check_bic(bic, f"installation.banks[{index}]")

    def check_versions(self, known: Collection[int]) -> None:
        """Every version in force is one that the registry has.

        Raises:
            FieldInvalid: one is not.
        """
        for index, version in enumerate(self.sod_versions):
            require(
                version in known, f"installation.sod_versions[{index}]", "must be a version of the matrix that the registry has"
            )


class LimitSettings(BaseModel):
    """How long things may take before a person is called, and how far ahead plans may reach. Seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delivery_margin_seconds: float = Field(default=600, gt=0, description="between a deadline and the end of every promise")
    unknown_seconds_max: float = Field(default=300, gt=0, description="an answer that is older calls a person")
    validate_seconds_max: float = Field(default=1_800, gt=0, description="a validator that takes longer is overdue")
    evidence_seconds_max: float = Field(default=600, gt=0, description="an evidence leg that takes longer is overdue")
    deadline_seconds_min: float = Field(default=10, ge=0, description="a deadline that is nearer leaves people no time")
    deadline_seconds_max: float = Field(default=604_800, gt=0, description="a deadline that is farther ties up holds for too long")

    def limits(self) -> Limits:
        """The protocol's part."""
        return Limits(
            delivery_margin=timedelta(seconds=self.delivery_margin_seconds),
            unknown_max=timedelta(seconds=self.unknown_seconds_max),
            validate_max=timedelta(seconds=self.validate_seconds_max),
            evidence_max=timedelta(seconds=self.evidence_seconds_max),
        )


class ComplianceSettings(BaseModel):
    """Who may be a party: party ids or legal entity identifiers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed: tuple[str, ...] = Field(default=(), description="when not empty: only these")
    denied: tuple[str, ...] = Field(default=(), description="never these")

    def rules(self) -> Compliance:
        """The lists."""
        return Compliance(frozenset(self.allowed), frozenset(self.denied))


def _default_routes() -> dict[LegKind, str]:
    return {
        LegKind.TOKEN_TRANSFER: "dlt-gateway",
        LegKind.CREDIT_TRANSFER: "bank-gateway",
        LegKind.ISSUE_INSTRUMENT: "bank-gateway",
        LegKind.NOTARISATION: "notary",
        LegKind.JOURNAL: "event-journal",
    }


class CoordinatorSettings(ServiceSettings):
    """Settings of the coordinator."""

    replica: str = Field(default="coordinator", description="name of this replica, for people; each process draws its own suffix")
    generation_file: Path = Field(
        description="file outside the database with one number; every restore of the database raises it before the start"
    )
    registry_file: Path = Field(description="registry of persons' and participants' keys, YAML")
    seal_key_files: tuple[Path, ...] = Field(
        min_length=1, description="X25519 keys that plans' keys are sealed to, PKCS8 PEM, mode 0600; the first seals, all open"
    )
    recovery_public_key_file: Path = Field(description="public half of the offline X25519 recovery key, PEM")
    participants: dict[str, str] = Field(description="name of a participant -> host:port")
    routes: dict[LegKind, str] = Field(
        default_factory=_default_routes,
        description="kind of leg -> participant that serves it; the journal's also takes the events",
    )
    clients: dict[str, CallerSettings] = Field(
        description="name of a client (its SPIFFE id is spiffe://lockstep.local/client/<name>) -> what it may call, and whom it stands for"
    )
    operators: dict[str, tuple[str, ...]] = Field(
        description="name of a client of `clients` that is an operator or auditor -> methods of OperatorService that it may call, or *"
    )
    audit_directory: Path = Field(
        description="write-once storage of abort audit logs: a directory that exists, on a file system with hard links, that all replicas share"
    )
    webhooks: tuple[WebhookSettings, ...] = Field(default=(), description="who is told of failures, aborts, recoveries and tickets")
    notices: NoticeSettings = Field(default_factory=NoticeSettings, description="how they are told")
    installation: InstallationSettings = Field(description="what plans may name")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="how long things may take")
    compliance: ComplianceSettings = Field(default_factory=ComplianceSettings, description="who may be a party")
    quotas: QuotaSettings = Field(default_factory=QuotaSettings, description="what one client, and one plan, may take up")
    pressure: PressureSettings = Field(
        default_factory=PressureSettings,
        description="when clients are told to come again later, since more is under way than goes through",
    )
    lease_seconds: float = Field(default=10.0, gt=0, le=300, description="a plan without activity of its holder is free after this")
    recovery_seconds: float = Field(default=1.0, gt=0, le=60, description="how often what is due or left behind is looked for")
    call_seconds: float = Field(default=5.0, gt=0, le=60, description="longest call to a participant")
    capability_seconds: float = Field(default=60.0, gt=0, description="what a participant says of itself is asked again after this")
    clock_skew_seconds_max: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="how far a participant's database clock may be off; with one that is farther off nothing is prepared",
    )
    heartbeat_seconds: float = Field(default=5.0, gt=0, le=60, description="longest silence on WatchPlan and WatchPlans")
    slow_client_seconds: float = Field(default=30.0, gt=0, description="a watcher that takes longer for one message is cut")
    watchers_max: int = Field(default=512, ge=1, le=10_000, description="open watches; more are refused")
    plan_bytes_max: int = Field(default=262_144, ge=1_024, le=262_144, description="largest CreatePlan request")

    def check(self) -> Routes:
        """What the types cannot say; the routes.

        Raises:
            FieldInvalid: a rule is broken.
        """
        self.installation.check()
        self.pressure.check()
        for name, client in self.clients.items():
            client.check(f"clients.{name}", METHODS, READING_METHODS)
        for name, methods in self.operators.items():
            desk = self.clients[name].desk if name in self.clients else None
            require(desk is not None, f"operators.{name}", "must be a client whose desk is operator or auditor")
            as_row = CallerSettings(methods=methods, desk=desk)
            as_row.check(f"operators.{name}", OPERATOR_METHODS, OPERATOR_READING_METHODS)
        for index, name in enumerate(self.inspectors):
            desk = self.clients[name].desk if name in self.clients else None
            require(desk is not None, f"inspectors[{index}]", "must be a client of `clients` whose desk is operator or auditor")
        names = [each.name for each in self.webhooks]
        for index, each in enumerate(self.webhooks):
            require(names.count(each.name) == 1, f"webhooks[{index}].name", "must be another than every other webhook's")
            each.check(f"webhooks[{index}].url", allow_loopback=self.notices.allow_loopback)
        routes = Routes(self.routes)
        for name in routes.names:
            require(name in self.participants, "participants", f"must name where {name} is")
        return routes

    @property
    def skew_max(self) -> timedelta:
        """How far a participant's clock may be off."""
        return timedelta(seconds=self.clock_skew_seconds_max)

    def access(self) -> Access:
        """Who may call which method.

        Raises:
            FieldInvalid: a client's row names a method that is not there.
        """
        rows = {
            name: (
                *(f"{SERVICE}/{each}" for each in client.methods),
                *(f"{OPERATOR_SERVICE}/{each}" for each in self.operators.get(name, ())),
            )
            for name, client in self.clients.items()
        }
        return access_of("coordinator", with_inspectors(rows, self.inspectors))

    def known(self) -> Installation:
        """What plans may name, for lint."""
        told = self.installation
        return Installation(
            assets=told.assets,
            chains=frozenset(told.chains),
            escrows=frozenset(told.escrows),
            registries=frozenset(told.registries),
            banks=frozenset(told.banks),
            sod_versions=frozenset(told.sod_versions),
            deadline_min=timedelta(seconds=self.limits.deadline_seconds_min),
            deadline_max=timedelta(seconds=self.limits.deadline_seconds_max),
            delivery_margin=timedelta(seconds=self.limits.delivery_margin_seconds),
        )


def read_generation(path: Path) -> int:
    """The generation of this installation.

    Raises:
        FieldInvalid: the file holds no number from 1 on.
        OSError: the file cannot be read.
    """
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not text.isdecimal() or len(text) > _GENERATION_LENGTH_MAX or int(text) < 1:
        raise FieldInvalid("generation_file", f"must hold one number from 1 on: {path}")
    return int(text)
