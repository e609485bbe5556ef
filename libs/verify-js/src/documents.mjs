// Forms of the documents that a verifier reads: bundle, trust file, and what is signed inside (docs/bundle.md).

import { base64, flag, integer, number, oneOf, several, shape, text } from "./forms.mjs";
import { currency, MATRICES, persons, token, units } from "./registry.mjs";

export const DOCUMENT_BYTES_MAX = 64 << 20;
const LEGS_MAX = 64;

const uuid = text("[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "must be a lower-case UUID");
const time = text(
  "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{6}Z",
  "must be a UTC time with six decimals, as 2026-01-01T00:00:00.000000Z",
);
const any = text("[\\s\\S]*", "must be a string");
const some = text("[\\s\\S]+", "must be a string that is not empty");
const name = text("[!-*,-~]{1,255}", "must be 1 to 255 visible ASCII characters without a plus");
const legId = text("[a-z0-9][a-z0-9-]{0,30}", "must be the id of a leg");
const maybeLegId = text("([a-z0-9][a-z0-9-]{0,30})?", "must be the id of a leg, or empty");
const chain = text("eip155:[1-9][0-9]{0,17}", "must be a CAIP-2 id of an EVM chain");
const address = text("0x[0-9a-fA-F]{40}", "must be 0x and 40 hex digits");
const hex = (octets) => text(`[0-9a-f]{${2 * octets}}`, `must be the lower-case hex of ${octets} bytes`);
const maybeDigest = text("([0-9a-f]{64})?", "must be the lower-case hex of 32 bytes, or empty");
const digest = hex(32);
const keyId = hex(8);
const hash = base64(32, 32);
const statementBytes = base64(1, 65_536);
const path = several(hash, 0, 64);

// -- the bundle

const signature = shape({ key_id: keyId, signature: base64(64, 64) });
const signed = shape({ statement: statementBytes, signature });
const anchor = shape(
  {
    kind: oneOf("checkpoint", "registrations", "outcomes"),
    root: hash,
    size: number,
    chain,
    registry: address,
    block_number: number,
    block_hash: hash,
  },
  { raw_transaction: base64(1, 131_072) },
);
const proof = shape({ leaf_data: statementBytes, leaf_index: number, tree_size: number, path, root: hash }, { anchor });
const record = shape(
  { chain, registry: address, entry_key: hash, entry_status: some, block_number: number, block_hash: hash },
  { transaction_hash: hash },
);
const notarised = shape({}, { proof, record });
const entry = shape(
  { canonical_bytes: statementBytes, signature, leaf_index: number, inclusion_path: path },
  { payload: base64(1, 65_536) },
);

export const BUNDLE = shape(
  {
    format: oneOf("lockstep/bundle/v1"),
    plan: shape({ header: statementBytes, legs: several(statementBytes, 1, LEGS_MAX) }),
    entries: several(entry, 1, 10_000),
    checkpoint: base64(1, 16_384),
  },
  {
    journal_keys: several(shape({ statement: statementBytes, signatures: several(signature, 1, 2) }), 1, 1_000),
    witnessed: shape({ note: base64(1, 16_384), consistency_path: path }, { anchor }),
    registration: notarised,
    outcome: notarised,
    gates: several(signed, 0, 64),
    votes: several(signed, 0, LEGS_MAX),
    outcomes: several(signed, 0, 2 * LEGS_MAX),
    audit_log: base64(1, 8 << 20),
  },
);

// -- the trust file

const keys = several(shape({ public_key: hash, not_before: time, not_after: time }), 1, 1_000);

export const TRUST = shape(
  { format: oneOf("lockstep/trust/v1") },
  {
    journal: shape({ origin: name }, { keys, first_key: hash }),
    witness: shape({ name, keys: several(hash, 1, 100) }),
    chain: shape({ chain, registry: address }, { accounts: several(address, 1, 100) }),
    participants: several(shape({ name: some, keys }), 0, 1_000),
    persons: persons(keys),
    matrices: MATRICES,
  },
);

// -- what is signed

export const HEADER = shape({
  format: oneOf("lockstep/plan/v1"),
  plan_id: uuid,
  reference: any,
  parties: several(shape({ party_id: some, name: some, lei: any }), 1, 32),
  deadline: time,
  policy: shape({ accept_expiry_risk: flag, unwind_automatically: flag }),
  sod_version: integer(1),
  leg_count: integer(1, LEGS_MAX),
  legs_root: digest,
});
export const LEG = shape({
  format: oneOf("lockstep/leg/v1"),
  leg_id: legId,
  salt: hex(16),
  depends_on: several(legId, 0, LEGS_MAX),
  kind: oneOf("token_transfer", "credit_transfer", "issue_instrument", "notarisation", "journal"),
  terms: shape({}, {}, true),
});
// Terms of the legs that move value, as far as they are read.
const amountOf = (asset) => shape({ amount: shape({ asset, minor_units: units, scale: integer(0, 36) }) }, {}, true);
export const TERMS = {
  token_transfer: amountOf(token),
  credit_transfer: amountOf(currency),
  issue_instrument: amountOf(currency),
};
export const ENTRY = shape({
  version: integer(1, 1),
  plan_id: uuid,
  sequence: integer(1),
  event_id: some,
  type: oneOf(
    "plan.created",
    "plan.initiated",
    "plan.ready",
    "leg.prepared",
    "leg.refused",
    "plan.approved",
    "plan.released",
    "leg.executed",
    "evidence.validated",
    "plan.committed",
    "plan.aborted",
    "exception.raised",
    "exception.resolved",
    "leg.reversed",
    "plan.closed",
  ),
  actor: some,
  actor_role: some,
  event_time: time,
  payload_hash: digest,
  previous_hash: digest,
  key_id: keyId,
});
export const KEY = shape({
  version: integer(1, 1),
  holder: some,
  number: integer(1),
  key_id: keyId,
  public_key: digest,
  not_before: time,
  not_after: time,
  previous_hash: digest,
});
const gate = oneOf("MAKE", "APPROVE", "RELEASE", "VALIDATE", "CANCEL");
const verdict = oneOf("APPROVE", "REJECT");
const digests = { votes_digest: digest, evidence_digest: digest };
export const GATE = shape({ gate, verdict, plan_digest: digest, nonce: hex(16), expires_at: time }, digests);
const evidence = shape({ kind: some }, {}, true);
const refusal = shape({ reason: some, outside_code: any, detail: any });
const about = { participant: some, plan_id: uuid, plan_digest: digest, leg_id: legId };
const promise = shape({ kind: oneOf("GUARANTEED", "BEST_EFFORT") }, { expires_at: time, evidence });
export const VOTE = shape({ ...about, lock: digest, voted_at: time }, { promise, refusal });
const outcomeKind = oneOf("DONE", "REFUSED", "RELEASED", "REVERSED", "REVERSAL_REFUSED");
export const OUTCOME = shape(
  { ...about, kind: outcomeKind, revision: integer(0), settled_at: time },
  { evidence, refusal, order: digest, decision: digest },
);
export const BANK_FIELDS = {
  bank_bic: any,
  uetr: uuid,
  status: any,
  message_id: any,
  message_sha256: maybeDigest,
  booking_reference: any,
  booking_sha256: maybeDigest,
};
export const BANK_EVIDENCE = shape(BANK_FIELDS, {}, true);
export const INSTRUMENT_FIELDS = { reference: any, undertaking_number: any, status: any, message_id: any, message_sha256: maybeDigest };
export const INSTRUMENT_EVIDENCE = shape(INSTRUMENT_FIELDS, {}, true);
export const REGISTRATION_LEAF = shape({ version: integer(1, 1), kind: oneOf("registration"), plan_digest: digest });
export const OUTCOME_LEAF = shape({
  version: integer(1, 1),
  kind: oneOf("outcome"),
  plan_digest: digest,
  outcome: oneOf("Committed", "Aborted", "Mixed"),
  evidence_digest: digest,
});

// -- payloads: what is read of them; the rest is hashed like everything else

const mark = { key_id: keyId, signature: hex(64) };
const gateRecord = shape({ gate, verdict, actor: some, nonce: hex(16), expires_at: time, ...mark }, digests);
const transition = shape({ transition_no: integer(1), from: any, to: some }, { decision: any, cause: some });
// A statement itself is in the bundle beside; where a payload has it too, that is hashed like the rest.
const outcomeRecord = shape({ statement_sha256: digest, kind: outcomeKind, ...mark }, { refusal, statement: some });
const voteRecord = shape({ statement_sha256: digest, vote: oneOf("YES", "NO"), ...mark }, { refusal, statement: some });
const legRecord = shape(
  { leg_id: legId, kind: some },
  { vote: voteRecord, outcome: outcomeRecord, reversal: outcomeRecord },
);
const decision = shape(
  { delegate: maybeLegId, decided_at: time, votes_digest: digest, gates: several(gateRecord, 0, 16) },
  { legs: several(legId, 1, 64) },
);
const resolution = shape(
  {
    plan_digest: digest,
    escalation_id: some,
    verb: oneOf("RETRY", "REVERSE", "RESOLVE", "FORGET"),
    leg_id: maybeLegId,
    detail: any,
  },
  { executed: flag, evidence },
);
const operator = shape({ actor: some, nonce: hex(16), expires_at: time, ...mark });
export const PAYLOAD = shape(
  {},
  {
    resolution: shape({ resolution, digest, signatures: several(operator, 0, 16) }),
    escalation: shape({ escalation_id: some }, {}, true),
    plan_digest: digest,
    transition,
    leg: legRecord,
    gate: gateRecord,
    further_gates: several(gateRecord, 1, 64),
    decision,
    evidence_digest: digest,
  },
  true,
);
export const SEAL = shape(
  {
    outcome: oneOf("COMMITTED", "ABORTED", "REVERSED", "MIXED"),
    evidence_digest: digest,
    transition: shape({ transition_no: integer(1), from: some, to: oneOf("CLOSED") }),
    entry_count: integer(1),
    head_hash: digest,
  },
  { version: integer(1, 1) },
);
