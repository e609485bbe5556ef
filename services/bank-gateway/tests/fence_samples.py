"""What the bank's word means to the fence, as tests have it: none of it is read from the code under test."""

from __future__ import annotations

from bank_gateway.meanings import Meaning
from lockstep_kit.fence import Finding

#: Meaning -> finding; the other meanings find nothing.
FINDING_OF = {
    Meaning.VOTES_YES: Finding.VOTED_YES,
    Meaning.VOTES_NO: Finding.VOTED_NO,
    Meaning.LAPSED: Finding.LAPSED,
    Meaning.SETTLES: Finding.EXECUTED,
    Meaning.REFUSED: Finding.REFUSED,
    Meaning.RELEASED: Finding.RELEASED,
}
