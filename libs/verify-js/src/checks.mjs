// Every check by number and name, what it relies on, and which claims follow (docs/bundle.md).

import * as chainChecks from "./chain-checks.mjs";
import * as dutiesChecks from "./duties-checks.mjs";
import * as logChecks from "./log-checks.mjs";
import * as peopleChecks from "./people-checks.mjs";
import * as resolutionChecks from "./resolution-checks.mjs";

export const CHECKS = [
  ["PLAN", [], chainChecks.plan],
  ["ENTRIES", ["PLAN"], chainChecks.entries],
  ["CHAIN", ["ENTRIES"], chainChecks.chain],
  ["PAYLOADS", ["ENTRIES"], chainChecks.payloads],
  ["SEAL", ["CHAIN", "PAYLOADS"], chainChecks.seal],
  ["PLAN_BOUND", ["PAYLOADS"], chainChecks.planBound],
  ["TRANSITIONS", ["CHAIN", "PAYLOADS"], chainChecks.transitions],
  ["JOURNAL_KEYS", [], chainChecks.journalKeys],
  ["ENTRY_SIGNATURES", ["ENTRIES", "JOURNAL_KEYS"], chainChecks.entrySignatures],
  ["CHECKPOINT", ["JOURNAL_KEYS"], logChecks.checkpoint],
  ["INCLUSION", ["ENTRIES", "CHECKPOINT"], logChecks.inclusion],
  ["WITNESS", ["CHECKPOINT"], logChecks.witness],
  ["CONSISTENCY", ["WITNESS"], logChecks.consistency],
  ["CHECKPOINT_ANCHOR", ["WITNESS"], logChecks.checkpointAnchor],
  ["REGISTRATION", ["PLAN"], logChecks.registration],
  ["OUTCOME", ["PLAN", "SEAL"], logChecks.outcome],
  ["GATES", ["PLAN", "PAYLOADS"], peopleChecks.gates],
  ["MATRIX", ["PLAN"], dutiesChecks.matrix],
  ["ROLES", ["GATES", "MATRIX"], dutiesChecks.roles],
  ["DUTIES", ["GATES", "MATRIX"], dutiesChecks.duties],
  ["LIMITS", ["ROLES"], dutiesChecks.limits],
  ["AGENTS", ["ROLES"], dutiesChecks.agents],
  ["GATES_RECORDED", ["GATES"], peopleChecks.gatesRecorded],
  ["VOTES", ["PLAN"], peopleChecks.votes],
  ["OUTCOMES", ["PLAN"], peopleChecks.outcomes],
  ["STATEMENTS_RECORDED", ["PAYLOADS", "VOTES", "OUTCOMES"], peopleChecks.statementsRecorded],
  ["DECISION", ["PAYLOADS", "GATES", "VOTES"], peopleChecks.decision],
  ["QUORUM", ["CHAIN", "PAYLOADS", "GATES", "MATRIX"], dutiesChecks.quorum],
  ["EVIDENCE", ["SEAL", "OUTCOMES"], peopleChecks.evidence],
  ["VALIDATION", ["SEAL", "GATES"], peopleChecks.validation],
  ["AUDIT_LOG", ["SEAL"], peopleChecks.auditLog],
  ["RESOLUTIONS", ["CHAIN", "PAYLOADS", "GATES"], resolutionChecks.resolutions],
  ["REVERSALS", ["CHAIN", "PAYLOADS", "GATES", "OUTCOMES"], resolutionChecks.reversals],
  ["MESSAGES", ["OUTCOMES"], peopleChecks.messages],
];

// Without these nothing is proved.
export const CORE = [
  "PLAN",
  "ENTRIES",
  "CHAIN",
  "PAYLOADS",
  "SEAL",
  "JOURNAL_KEYS",
  "ENTRY_SIGNATURES",
  "CHECKPOINT",
  "INCLUSION",
];

const AUTHORITY = ["GATES", "MATRIX", "ROLES", "DUTIES", "LIMITS", "AGENTS", "QUORUM", "GATES_RECORDED"];

const anchored = (kind, what) => (given) => {
  const [transaction, , , sender] = given.blocks.get(kind);
  return `${what} by the transaction 0x${transaction}, which the account 0x${sender} signed`;
};

function checkpoint({ checkpoint: note }) {
  return `the entries stand in the log ${note.origin} of ${note.size} leaves under the root ${note.root.toString("hex")}`;
}

function inTheirRoles({ gates: signed, matrix }) {
  if (signed.length === 0) return "";
  return `each has a role for it by version ${matrix.version} of the matrix of duties, and none signed two`;
}

function gates(given) {
  const signed = given.gates.map((each) => `${each.signer} (${each.document.gate} ${each.document.verdict})`);
  return signed.length > 0 ? `these persons signed the plan: ${signed.join(", ")}` : "";
}

// Checks that a claim rests on, and what it says; "" where there is nothing to claim.
export const CLAIMS = [
  [CORE, (given) => `the plan's ${given.entries.length} entries are unchanged and complete up to its seal`],
  [[...CORE, "PLAN_BOUND"], (given) => `they are about the plan with the digest ${given.planDigest}`],
  [CORE, (given) => (given.seal === undefined ? "" : `the journal sealed the plan as ${given.seal.outcome}`)],
  [[...CORE, "TRANSITIONS"], () => "the plan went from state to state as the protocol allows"],
  [CORE, checkpoint],
  [
    [...CORE, "WITNESS", "CONSISTENCY"],
    (given) => `this log is the one that the witness saw with ${given.witnessed.size} leaves at ${given.witnessedAt}`,
  ],
  [
    [...CORE, "WITNESS", "CONSISTENCY", "CHECKPOINT_ANCHOR"],
    anchored("checkpoint", "the root that the witness saw is handed to the registry"),
  ],
  [["PLAN", "REGISTRATION"], anchored("registrations", "the plan's registration is handed to the registry")],
  [[...CORE, "OUTCOME"], anchored("outcomes", "the plan's outcome is handed to the registry")],
  [["PLAN", "GATES"], gates],
  [["PLAN", "GATES", "MATRIX", "ROLES", "DUTIES"], inTheirRoles],
  [
    [...CORE, "GATES_RECORDED"],
    (given) => (given.gates.length > 0 ? "the entries record these signatures and no others" : ""),
  ],
  [[...CORE, "STATEMENTS_RECORDED"], () => "what the entries record of votes and outcomes is what the participants signed"],
  [[...CORE, "DECISION", ...AUTHORITY], dutiesChecks.decided],
  [[...CORE, "DECISION"], () => "the release rests on every leg's promise and on maker, approver and releaser"],
  [[...CORE, "EVIDENCE"], () => "what the participants signed is the outcome that the seal says"],
  [[...CORE, "VALIDATION"], () => "a validator signed over the evidence"],
  [[...CORE, "RESOLUTIONS"], resolutionChecks.resolved],
  [
    [...CORE, "RESOLUTIONS", "REVERSALS"],
    () => "what was reversed answers an order of two operators or of the plan's own policy",
  ],
  [[...CORE, "AUDIT_LOG"], () => "the abort audit log is the one whose hash the seal names"],
  [["PLAN", "OUTCOMES", "MESSAGES"], (given) => `participants name ${given.messages.length} answers of banks`],
];

// What no bundle can prove, and what the auditor can do about it.
export function openQuestions(given, passed) {
  const said = ["that the trust file names the right keys: compare it with what their holders say"];
  const senders = new Set();
  for (const [kind, name] of [["checkpoint", "CHECKPOINT_ANCHOR"], ["registrations", "REGISTRATION"], ["outcomes", "OUTCOME"]]) {
    if (!passed.has(name)) continue;
    const [transaction, number, block, sender] = given.blocks.get(kind);
    senders.add(`0x${sender}`);
    said.push(
      `that the transaction 0x${transaction} succeeded in block ${number} with the hash 0x${block}: ask a node of your own`,
    );
  }
  if (senders.size > 0 && !("accounts" in given.trust.chain)) {
    const named = [...senders].sort().join(", ");
    said.push(`that the registry takes roots from ${named}: the trust file names none of its accounts; ask a node of your own`);
  }
  if (given.erased.length > 0) said.push(`what the erased payloads said: entries ${given.erased.join(", ")}`);
  if (given.messages.length > 0 && passed.has("MESSAGES")) {
    said.push("that the banks' messages with these hashes say so: compare them with the banks' own");
  }
  return said;
}
