"""The official schemas are the pinned ones, and the tool that fetches them takes no others."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
from bank_world import SCHEMAS

TOOL = Path(__file__).resolve().parents[3] / "tools" / "schemas"
NAME = "pacs.008.001.13.xsd"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("schemas_fetch", TOOL / "fetch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_hashes(fetch: ModuleType) -> None:
    """Every schema that is used is the one whose checksum is committed, and there are no others."""
    wanted = fetch.read_checksums((TOOL / "SHA256SUMS").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SCHEMAS.iterdir()}
    assert found == wanted


def test_extract(fetch: ModuleType, tmp_path: Path) -> None:
    """Only listed schemas from the folder of documents are taken, and only with their checksum."""
    good, digest = b"<schema/>", hashlib.sha256(b"<schema/>").hexdigest()
    members = {f"p-1/docs/area/{NAME}": good, f"p-1/other/area/{NAME}": b"x", "p-1/docs/area/../../evil.xsd": b"x"}
    assert fetch.extract(archive(tmp_path / "good.tar.gz", members), {NAME: digest}) == {NAME: good}
    for bad in ({f"p-1/docs/area/{NAME}": b"<other/>"}, {f"p-1/{NAME}": good}):
        with pytest.raises(fetch.FetchError):
            fetch.extract(archive(tmp_path / "bad.tar.gz", bad), {NAME: digest})


@pytest.mark.parametrize("text", ["", "abc", f"{'0' * 64} {NAME}", f"{'0' * 64}  ../{NAME}", f"{'0' * 64}  {NAME}\n" * 2])
def test_checksums_are_strict(fetch: ModuleType, text: str) -> None:
    """A list of checksums that is not exactly one is refused."""
    with pytest.raises(fetch.FetchError):
        fetch.read_checksums(text)


def test_up_to_date(tmp_path: Path) -> None:
    """Where everything is right nothing is fetched; what is not listed is removed."""
    shutil.copytree(SCHEMAS, tmp_path / "xsd")
    (tmp_path / "xsd" / "extra.xsd").write_text("x")
    command = [sys.executable, str(TOOL / "fetch.py"), "--venv", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert sorted(path.name for path in (tmp_path / "xsd").iterdir()) == sorted(path.name for path in SCHEMAS.iterdir())
    (tmp_path / "xsd" / NAME).write_text("x")
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)
