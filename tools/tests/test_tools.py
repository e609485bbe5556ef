from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

# The tools are scripts beside one another, not a package that could be imported by name.
PURE: dict[str, tuple[str, ...]] = importlib.import_module("imports").PURE
Tool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small workspace with the real tools: two services, the kit, the bank."""
    folder = tmp_path / "tree"
    shutil.copytree(
        ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("node_modules", "__pycache__", "tests", "schemas")
    )
    for path, module in (
        ("services/one", "one"),
        ("services/two", "two"),
        ("libs/kit", "lockstep_kit"),
        ("libs/chain", "lockstep_chain"),
        ("sandbox/bank-simulator", "bank_simulator"),
    ):
        package = folder / path / "src" / module
        package.mkdir(parents=True)
        (folder / path / "pyproject.toml").write_text(f'[project]\nname = "{module}"\n')
        for name in ("__init__.py", "py.typed"):
            (package / name).touch()
    for names in PURE.values():
        for name in names:
            package_name, *parts = name.split(".")
            home = folder / "libs" / package_name.removeprefix("lockstep_") / "src" / package_name
            (home.joinpath(*parts[:-1])).mkdir(parents=True, exist_ok=True)
            for depth in range(len(parts) - 1):
                (home.joinpath(*parts[: depth + 1]) / "__init__.py").touch()
            home.joinpath(*parts).with_suffix(".py").touch()
    return folder


@pytest.fixture
def tool(tree: Path) -> Tool:
    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tree / "tools" / name), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tree)

    return run


def test_a_clean_tree_passes(tool: Tool) -> None:
    """Neither the import contracts nor the look at the tree find anything in a clean tree."""
    for name in ("imports.py", "tree_check.py"):
        run = tool(name)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("services/one/src/one/main.py", "import two\n", "services do not import one another"),
        ("services/one/src/one/main.py", "import bank_simulator\n", "services do not import the sandbox"),
        ("services/one/src/one/main.py", "import web3\n", "only lockstep_chain.evm import web3"),
        ("services/one/src/one/main.py", "from lxml import etree\n", "import lxml"),
        ("services/one/src/one/protocol.py", "import time\n", "rules touch no clock"),
        ("services/one/src/one/protocol.py", "from one import store\n", "rules touch no clock"),
        ("services/one/src/one/protocol.py", "from datetime import UTC, datetime\nNOW = datetime.now(UTC)\n", "calls now()"),
        ("libs/kit/src/lockstep_kit/fence.py", "import secrets\n", "rules touch no clock"),
        ("libs/kit/src/lockstep_kit/db.py", "import one\n", "libraries import no service"),
        ("sandbox/bank-simulator/src/bank_simulator/book.py", "import lockstep_kit\n", "the bank is nobody's relative"),
    ],
)
def test_a_forbidden_import_is_refused(tool: Tool, tree: Path, path: str, text: str, said: str) -> None:
    """Each import contract refuses a violation, also one through another module."""
    (tree / "services/one/src/one/store.py").write_text("import asyncpg\n")
    (tree / path).write_text(text)
    run = tool("imports.py")
    assert run.returncode == 1
    assert said in run.stdout


def test_the_one_place_may_import_it(tool: Tool, tree: Path) -> None:
    """The module that knows a library may import it, and others may import that module."""
    (tree / "libs/chain/src/lockstep_chain/evm.py").write_text("import web3\n")
    (tree / "services/one/src/one/main.py").write_text("import lockstep_chain.evm\n")
    run = tool("imports.py")
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_pure_module_that_is_gone_is_missed(tool: Tool, tree: Path) -> None:
    """Renaming a pure module does not quietly take it out of its contract."""
    (tree / "libs/kit/src/lockstep_kit/fence.py").rename(tree / "libs/kit/src/lockstep_kit/gate.py")
    run = tool("imports.py")
    assert run.returncode == 1
    assert "lockstep_kit.fence: named in tools/imports.py" in run.stdout


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("README.md", "see https://files." + "pythonhosted.org/x", "README.md:1: names a package registry's host"),
        ("docs/a.md", "line\n/ro" + "ot/project/x", "docs/a.md:2: names a machine's path"),
        ("tools/a.lock", "x==1 --find-li" + "nks /wheels", "tools/a.lock:1: a lock file names where"),
        ("key.txt", "-----BEGIN PRIVATE " + "KEY-----\nMC4CAQ", "holds a private key"),
        ("uv.lock", "", "uv.lock: does not belong"),
        ("services/one/src/one/long.py", "x = 1\n" * 451, "451 lines; a module has at most 450"),
        ("services/one/src/one/half.py", "raise NotImplemented" + "Error\n", "half.py:1: unfinished"),
    ],
)
def test_what_does_not_belong_is_refused(tool: Tool, tree: Path, path: str, text: str, said: str) -> None:
    """Each rule about the tree's files refuses a violation, and says where it is."""
    (tree / path).parent.mkdir(exist_ok=True)
    (tree / path).write_text(text)
    run = tool("tree_check.py")
    assert run.returncode == 1
    assert said in run.stdout


def test_a_package_without_types_is_refused(tool: Tool, tree: Path) -> None:
    """A package without py.typed would hide its types from the others."""
    (tree / "services/one/src/one/py.typed").unlink()
    assert "services/one/src/one: has no py.typed" in tool("tree_check.py").stdout


def test_generated_code_that_drifted_is_refused(tool: Tool, tree: Path) -> None:
    """A definition that changed, and a generated file that was edited, left over or removed, are each named."""
    shutil.copytree(ROOT / "protos", tree / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    assert tool("protos.py", "--check").returncode == 0
    generated = tree / "protos/gen/lockstep/type/v1"
    (generated / "amount_pb2.py").write_text("edited")
    (generated / "plan_pb2.pyi").unlink()
    (generated / "old_pb2.py").touch()
    run = tool("protos.py", "--check")
    assert run.returncode == 1
    assert [line.split()[0].rsplit("/", 1)[1] for line in run.stdout.splitlines()] == [
        "amount_pb2.py",
        "old_pb2.py",
        "plan_pb2.pyi",
    ]
    assert tool("protos.py").returncode == 0
    assert tool("protos.py", "--check").returncode == 0


def test_an_incompatible_definition_is_refused(tool: Tool, tree: Path) -> None:
    """A field that changed its number breaks compatibility with the baseline."""
    shutil.copytree(ROOT / "protos", tree / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    assert tool("protos.py", "--baseline").returncode == 0
    amount = tree / "protos/lockstep/type/v1/amount.proto"
    amount.write_text(amount.read_text().replace("asset = 1;", "asset = 15;"))
    run = tool("protos.py", "--lint")
    assert run.returncode != 0
    assert "asset" in run.stdout


def test_lock_files_name_what_is_locked() -> None:
    """Every locked Python package has hashes, and every locked node package an integrity."""
    for name in ("requirements.lock", "bootstrap.lock"):
        for block in (ROOT / name).read_text().split("\n\n"):
            for requirement in block.replace("\\\n", " ").splitlines():
                assert "--hash=sha256:" in requirement, requirement[:80]
    packages = json.loads((ROOT / "tools/package-lock.json").read_text())["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)


@pytest.mark.parametrize("old", [False, True], ids=["this-python", "before-3.11.4"])
def test_the_browser_is_unpacked_by_every_python_from_3_11_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, old: bool
) -> None:
    """The first 3.11 do not know how to look after where a member goes, and take no word for it."""
    (tmp_path / "font").write_text("glyphs")
    with tarfile.open(tmp_path / "fonts.tar", "w") as packed:
        packed.add(tmp_path / "font", "fonts/font")
    if old:
        extractall = tarfile.TarFile.extractall

        def unfiltered(self: tarfile.TarFile, path: Path) -> None:
            extractall(self, path)

        monkeypatch.delattr(tarfile, "data_filter")
        monkeypatch.setattr(tarfile.TarFile, "extractall", unfiltered)
    importlib.import_module("chromium").extract(tmp_path / "fonts.tar", tmp_path / "out")
    assert (tmp_path / "out" / "fonts" / "font").read_text() == "glyphs"
