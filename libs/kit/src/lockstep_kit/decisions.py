"""What was decided about a plan, named by a digest, so that it shows whether all who acted on a decision were told the same. Pure.

A certificate tells each participant who opened the gates, over which votes, which leg was delegated, and when it was decided. Each checks that by itself, and
none sees what the others were told. So a signed Done names the digest of what its participant was told, and whoever reads the journal compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lockstep_kit.canonical import digest_of, time_text
from lockstep_kit.certificate import Certificate
from lockstep_kit.ids import Digest
from lockstep_kit.statements import GateSignature, gate_digest, votes_digest


def decision_digest(
    plan_digest: Digest, gates: Sequence[GateSignature], votes: Digest, delegated_leg_id: str, decided_at: datetime
) -> Digest:
    """Names a decision by its plan, its gates (maker, approvers, releasers), the digest over the votes, the delegated leg or "", and its time."""
    return digest_of(
        {
            "plan_digest": plan_digest.hex(),
            "gates": [gate_digest(each).hex() for each in gates],
            "votes_digest": votes.hex(),
            "delegated_leg_id": delegated_leg_id,
            "decided_at": time_text(decided_at),
        }
    )


def decision_told(certificate: Certificate) -> Digest:
    """The decision that a certificate tells; the same for a delegated leg and for those that follow it."""
    gates = [each for _, signed in certificate.gates for each in signed]
    votes = votes_digest(certificate.votes)
    return decision_digest(certificate.header.digest, gates, votes, certificate.delegated_leg_id, certificate.decided_at)
