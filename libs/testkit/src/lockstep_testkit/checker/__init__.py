"""The invariant checker: reads the chain, the bank's book, every database and the journal, and judges I1 to I8 over what it read.

evidence = await collect(sandbox, told=told, probes=await probe(sandbox, …))
judgement = judge(evidence)
assert judgement.holds, judgement.text()
"""

from lockstep_testkit.checker.collecting import collect
from lockstep_testkit.checker.evidence import Evidence, Probe, Told, Violation
from lockstep_testkit.checker.probing import probe
from lockstep_testkit.checker.verdict import INVARIANTS, Judgement, judge

__all__ = ["INVARIANTS", "Evidence", "Judgement", "Probe", "Told", "Violation", "collect", "judge", "probe"]
