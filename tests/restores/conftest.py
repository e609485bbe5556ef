"""A sandbox of its own: what is put back here (plans that nobody knows any more, a witness that has forgotten) is in no other test's way."""

from __future__ import annotations

from lockstep_testkit.own_sandbox import crew, sandbox

__all__ = ["crew", "sandbox"]
