"""What an agent has signed, on disk before anybody sees it: after a crash the very same request is sent again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from lockstep.coordinator.v1.settlement_service_pb2 import SignGateRequest
from lockstep_kit.convert import time_from_pb


def kept_request(file: Path, now: datetime) -> SignGateRequest | None:
    """The request in a file, while it opens the gate."""
    try:
        request = SignGateRequest.FromString(file.read_bytes())
    except FileNotFoundError:
        return None
    return request if time_from_pb(request.signature.expire_time, "expire_time") > now else None


def keep_requests(files: Mapping[Path, SignGateRequest]) -> None:
    """Write requests into files of one folder, each whole or not at all, mode 0600, and have them outlive a loss of power."""
    if not files:
        return
    folder = next(iter(files)).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, request in files.items():
        part = path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(request.SerializeToString(deterministic=True))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
