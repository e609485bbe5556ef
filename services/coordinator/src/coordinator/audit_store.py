"""Write-once, content-addressed storage of abort audit logs.

What `put` returned from is durable under its SHA-256, and no method changes or removes it. A crash at any moment leaves either nothing under that name or
all of it, and the same log may be put again any number of times.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path
from typing import Protocol

from lockstep_kit import failpoints
from lockstep_kit.failpoints import failpoint
from lockstep_kit.ids import Digest, sha256

failpoints.declare("coordinator.audit_copy.before_link", "coordinator.audit_copy.after_link")


class CopyCorrupt(Exception):
    """The store has other bytes under a log's hash than the log's own."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the audit store has other bytes under {digest.hex()}")
        self.digest = digest


class AuditStore(Protocol):
    """Where abort audit logs are kept beside the database."""

    async def put(self, digest: Digest, octets: bytes) -> None:
        """Keep a log; durable when this returns. The same log again is no change.

        Raises:
            CopyCorrupt: other bytes are kept under its hash; they are left as they are.
            OSError: the store cannot be written; nothing is known of the log there.
        """
        ...

    async def get(self, digest: Digest) -> bytes | None:
        """The log with that hash; None where there is none.

        Raises:
            CopyCorrupt: what is kept under that hash has another.
            OSError: the store cannot be read.
        """
        ...


class DirectoryStore:
    """A directory on a file system that has hard links: `<root>/<2 digits>/<2 digits>/<64 digits>.json`, read-only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: Digest) -> Path:
        """Where a log is kept."""
        name = digest.hex()
        return self._root / name[:2] / name[2:4] / f"{name}.json"

    async def put(self, digest: Digest, octets: bytes) -> None:
        """Keep a log, as the port says."""
        if sha256(octets) != digest:
            raise AssertionError("a log is kept under its own hash")
        path = self.path(digest)
        draft = await asyncio.to_thread(self._draft, path, octets)
        await failpoint("coordinator.audit_copy.before_link")
        kept = await asyncio.to_thread(self._keep, draft, path)
        await failpoint("coordinator.audit_copy.after_link")
        if kept != octets:
            raise CopyCorrupt(digest)

    async def get(self, digest: Digest) -> bytes | None:
        """A log, as the port says."""
        try:
            octets = await asyncio.to_thread(self.path(digest).read_bytes)
        except FileNotFoundError:
            return None
        if sha256(octets) != digest:
            raise CopyCorrupt(digest)
        return octets

    def _draft(self, path: Path, octets: bytes) -> Path:
        """The bytes, durable, under a name that nobody reads."""
        self._make(path.parent)
        draft = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        return draft

    def _keep(self, draft: Path, path: Path) -> bytes:
        """Give the draft its name, unless something has that name; what is durable under it then."""
        try:
            # A link never replaces what is there, as a rename would. A draft that is gone was swept away by another replica that has kept its own.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(draft, path)
        finally:
            # With it go the drafts of replicas that died between the two.
            for left in path.parent.glob(f".{path.stem}.*.draft"):
                left.unlink(missing_ok=True)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            kept = file.read()
        _sync(path.parent)
        return kept

    def _make(self, folder: Path) -> None:
        """The folder, durably named in those above it. The root must be there: a store that is not mounted is no empty store."""
        for each in (folder.parent, folder):
            with contextlib.suppress(FileExistsError):
                each.mkdir(mode=0o755)
            _sync(each.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
