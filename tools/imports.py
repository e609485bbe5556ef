"""Who may import whom, checked with import-linter over every package that the workspace holds.

The contracts are written out here rather than in a static file because they quantify over all packages: one that is added
tomorrow is governed at once. Beside imports, pure modules are searched for calls that read a clock, draw randomness or
open a file, which an import contract cannot see.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from workspace import ROOT, Package, packages, python

#: Modules that hold rules: no I/O, no clock, no randomness, no logging; time and ids are arguments.
PURE: dict[str, tuple[str, ...]] = {
    "values": (
        "lockstep_kit.fields",
        "lockstep_kit.keeping",
        "lockstep_kit.amounts",
        "lockstep_kit.ids",
        "lockstep_kit.plan",
        "lockstep_kit.instruments",
        "lockstep_kit.calendars",
        "lockstep_kit.standing",
        "lockstep_kit.opaque_tokens",
    ),
    "bytes": ("lockstep_kit.canonical", "lockstep_kit.merkle", "lockstep_kit.forms", "lockstep_kit.statements"),
    "signatures": (
        "lockstep_kit.signing",
        "lockstep_kit.keys",
        "lockstep_kit.registry",
        "lockstep_kit.sod",
        "lockstep_kit.certificate",
        "lockstep_kit.resolutions",
        "lockstep_kit.decisions",
    ),
    "protocol": ("lockstep_kit.fence",),
    "migrations": ("lockstep_kit.migration_steps",),
    "telling": ("lockstep_kit.scrubbing",),
    "journal": (
        "lockstep_kit.document_forms",
        "lockstep_kit.escalations",
        "lockstep_kit.foreign_json",
        "lockstep_kit.journal_payloads",
        "lockstep_kit.key_history",
    ),
    "ledger": ("bank_gateway.ledger.chain",),
    "access": ("coordinator.access",),
    "verifier": tuple(
        f"lockstep_verify.{name}"
        for name in (
            "strict_json",
            "forms",
            "registry",
            "documents",
            "keccak",
            "merkle",
            "signatures",
            "secp256k1",
            "notes",
            "transactions",
            "transitions",
            "case",
            "chain_checks",
            "log_checks",
            "people_checks",
            "duties_checks",
            "resolution_checks",
            "checks",
            "verifying",
        )
    ),
    "monitor": tuple(f"lockstep_monitor.{name}" for name in ("findings", "entries", "signed", "plans", "log", "watch")),
    "log": tuple(f"event_journal.log.{name}" for name in ("tiles", "publishing", "records", "auditing")),
    "participant": tuple(f"lockstep_kit.participant.{name}" for name in ("ports", "records", "rules", "verifying")),
    "chain": tuple(
        f"lockstep_chain.{name}"
        for name in ("machine", "ports", "records", "judging", "book", "taking", "signers.envelope", "agreement", "standing")
    ),
}
#: A module of any service that has one of these names is pure too.
PURE_NAMES = frozenset({"protocol", "operations", "meanings", "lint", "rules", "routes", "profiles", "judging", "reconciliation"})

#: What a pure module does not import, directly or through others. Generated messages are among it: `convert` knows them.
IMPURE: dict[str, tuple[str, ...]] = {
    "clock and chance": ("time", "random", "secrets"),
    "waiting": ("asyncio", "concurrent", "threading", "multiprocessing", "select", "signal"),
    "files and programs": ("os", "pathlib", "shutil", "tempfile", "subprocess"),
    "network": ("socket", "ssl", "http", "urllib", "aiohttp", "grpc", "google", "lockstep", "web3", "lxml"),
    "databases": ("asyncpg", "sqlalchemy", "alembic", "sqlite3"),
    "surroundings": ("logging", "structlog", "opentelemetry", "pydantic_settings"),
}
IMPURE_CALLS = {
    "clock and chance": ("now", "utcnow", "today", "uuid1", "uuid4", "uuid7", "urandom", "token_bytes"),
    "files": ("open", "print", "input"),
}

#: Libraries that exactly one place knows, so that it can be replaced, or hardened, in one place.
ONLY = {
    "web3": ("lockstep_chain.evm",),
    "nats": ("event_journal.bridge",),
    "lxml": ("bank_gateway.iso20022", "bank_simulator.iso20022"),
    "signxml": ("bank_gateway.iso20022", "bank_simulator.iso20022"),
}


def main() -> int:
    """Prints what breaks a contract; returns 1 if something does."""
    found = packages()
    names = {name for package in found for name in package.modules}
    missing = [name for name in flat(PURE) if name.split(".")[0] in names and not path_of(found, name)]
    for name in missing:
        print(f"{name}: named in tools/imports.py as pure, and is not there")
    impure = [finding for module in pure_modules(found) for finding in impure_calls(found, module)]
    for finding in impure:
        print(finding)
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(configuration(found))
        file.flush()
        linter = str(Path(python()).parent / "lint-imports")
        command = [linter, "--config", file.name, "--no-logo", "--cache-dir", str(ROOT / ".import_linter_cache")]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(str(package.source) for package in found)}
        run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    print(run.stdout if run.returncode else run.stdout.strip().splitlines()[-1], run.stderr, sep="")
    return 1 if missing or impure or run.returncode else 0


def configuration(found: Sequence[Package]) -> str:
    """The configuration of import-linter for the packages that there are."""
    lines = [
        "[tool.importlinter]",
        f"root_packages = {toml(all_modules(found))}",
        "include_external_packages = true",
        # What is imported for annotations alone is not there when the program runs: a pure port may name the connection it is handed.
        "exclude_type_checking_imports = true",
    ]
    for contract in contracts(found):
        lines.append("[[tool.importlinter.contracts]]")
        lines += [f"{key} = {toml(value)}" for key, value in contract.items()]
    return "\n".join(lines) + "\n"


def contracts(found: Sequence[Package]) -> Iterator[dict[str, str | bool | list[str]]]:
    """Every contract, as import-linter writes them."""
    everything = all_modules(found)
    services = [name for package in found if package.is_service for name in package.modules]
    outside = present(everything, "lockstep_sandbox", "lockstep_testkit", "bank_simulator")
    libraries = present(
        everything,
        "lockstep_kit",
        "lockstep_chain",
        "lockstep_client",
        "lockstep_contracts",
        "lockstep_console",
        "lockstep_monitor",
        "lockstep",
    )
    if len(services) > 1:
        yield {"name": "services do not import one another", "type": "independence", "modules": services}
    yield from forbid(
        "services do not import the sandbox, the test kit or the client",
        services,
        [*outside, *present(everything, "lockstep_client")],
    )
    yield from forbid("libraries import no service, no sandbox, no test kit", libraries, [*services, *outside])
    yield from forbid(
        "the kit stands below the other libraries",
        present(everything, "lockstep_kit"),
        present(everything, "lockstep_chain", "lockstep_client", "lockstep_console", "lockstep_contracts", "lockstep_monitor"),
    )
    yield from forbid(
        "services and clients do not know who watches them",
        [*services, *present(everything, "lockstep_client")],
        present(everything, "lockstep_monitor", "lockstep_console"),
    )
    yield from forbid(
        "the monitor is no client",
        present(everything, "lockstep_monitor"),
        present(everything, "lockstep_client", "lockstep_chain"),
    )
    yield from forbid(
        "the verifier is nobody's relative",
        present(everything, "lockstep_verify"),
        [name for name in everything if name != "lockstep_verify"],
    )
    yield from forbid("the sandbox starts services as programs", present(everything, "lockstep_sandbox"), services)
    yield from forbid(
        "the bank is nobody's relative",
        present(everything, "bank_simulator"),
        [name for name in everything if name != "bank_simulator"],
    )
    for library, places in ONLY.items():
        allowed = [f"{place}{part} -> {library}" for place in present(everything, *places) for part in ("", ".**")]
        yield {
            "name": f"only {' and '.join(places)} import {library}",
            "type": "forbidden",
            "source_modules": everything,
            "forbidden_modules": [library],
            "allow_indirect_imports": True,
            "ignore_imports": allowed,
            "unmatched_ignore_imports_alerting": "none",
        }
    yield from forbid(
        "rules touch no clock, no chance and no outside", pure_modules(found), present_or_external(everything, flat(IMPURE))
    )


def forbid(name: str, sources: list[str], targets: list[str]) -> Iterator[dict[str, str | bool | list[str]]]:
    """A contract that `sources` import none of `targets`, also not through others."""
    if sources and targets:
        yield {"name": name, "type": "forbidden", "source_modules": sources, "forbidden_modules": targets}


def all_modules(found: Sequence[Package]) -> list[str]:
    """The import packages of the workspace."""
    return [name for package in found for name in package.modules]


def present(everything: list[str], *names: str) -> list[str]:
    """Those of `names` whose package the workspace holds."""
    return [name for name in names if name.split(".")[0] in everything]


def present_or_external(everything: list[str], names: Sequence[str]) -> list[str]:
    """`names` without generated packages that are not there."""
    return [name for name in names if name != "lockstep" or name in everything]


def pure_modules(found: Sequence[Package]) -> list[str]:
    """Dotted names of the pure modules that there are."""
    by_name = [
        ".".join(path.relative_to(package.source).with_suffix("").parts)
        for package in found
        if package.is_service
        for path in sorted(package.source.rglob("*.py"))
        if path.stem in PURE_NAMES
    ]
    return [module for module in (*flat(PURE), *by_name) if path_of(found, module)]


def path_of(found: Sequence[Package], module: str) -> Path | None:
    """The file of a dotted name, if it is there."""
    for package in found:
        base = package.source.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def impure_calls(found: Sequence[Package], module: str) -> Iterator[str]:
    """Calls in a pure module that read what is not an argument."""
    path = path_of(found, module)
    assert path is not None  # `pure_modules` names only what is there
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in flat(IMPURE_CALLS):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: a pure module calls {name}()"


def flat(groups: dict[str, tuple[str, ...]]) -> list[str]:
    """The members of all groups."""
    return [member for members in groups.values() for member in members]


def toml(value: str | bool | list[str]) -> str:
    """A value in TOML. Names need no escaping."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else "[" + ", ".join(f'"{item}"' for item in value) + "]"


if __name__ == "__main__":
    sys.exit(main())
