// Checks of what persons and participants have signed, and that the chain tells the same.

import { finding, NotChecked, Signed, trustedKeys } from "./case.mjs";
import {
  BANK_EVIDENCE,
  BANK_FIELDS,
  GATE,
  INSTRUMENT_EVIDENCE,
  INSTRUMENT_FIELDS,
  OUTCOME,
  VOTE,
} from "./documents.mjs";
import { holds, octets } from "./forms.mjs";
import { sha256, sha256Hex } from "./hashes.mjs";
import { canonical, statement } from "./strict-json.mjs";

// Gates that a decision rests on.
export const DECIDING = ["MAKE", "APPROVE", "RELEASE"];

function read(given, name, domain, form) {
  if (!(name in given.bundle)) throw new NotChecked("the bundle holds none");
  const [signed, found] = [[], []];
  given.bundle[name].forEach((each, index) => {
    const place = `${name}[${index}]`;
    const document = statement(octets(each.statement), domain);
    if (holds(form, document)) signed.push(new Signed(place, octets(each.statement), document, each.signature));
    else found.push(finding(`${place}.statement`, "is not a statement of its kind"));
  });
  return [signed, found];
}

export function gates(given) {
  const [signed, found] = read(given, "gates", "lockstep/gate/v1", GATE);
  for (const each of signed) {
    if (each.document.plan_digest !== given.planDigest) found.push(finding(each.place, "is about another plan"));
  }
  if (found.length > 0) return found;
  const times = gateTimes(given);
  given.requireTrust("persons", "the persons who sign");
  for (const each of signed) {
    const recorded = times.get(`${each.hash} ${each.mark.signature}`);
    const [person, key] = given.owner(each.given.key_id) ?? [];
    if (person === undefined) continue;
    const counts = recorded === undefined ? key.notBefore <= each.document.expires_at : key.validAt(recorded);
    if (counts && key.signed(each.given, each.octets)) Object.assign(each, { signer: person.actor_id, key });
  }
  given.gates = signed;
  return signed.filter((each) => each.signer === "").map((each) => finding(`${each.place}.signature`, "is not by a trusted person"));
}

// When the chain recorded each gate's signature.
function gateTimes(given) {
  const times = new Map();
  for (const [entry, record] of given.told("gate")) {
    const key = `${gateHash(given, record)} ${record.signature}`;
    if (!times.has(key)) times.set(key, entry.document.event_time);
  }
  return times;
}

export function gateHash(given, record) {
  const said = { ...record, plan_digest: given.planDigest };
  for (const name of ["actor", "key_id", "signature"]) delete said[name];
  return sha256Hex("lockstep/gate/v1\n", canonical(said));
}

// The gates of the bundle by what records of them name them by: hash of the statement, and signature.
export const shownGates = (given) => new Map(given.gates.map((each) => [`${each.hash} ${each.mark.signature}`, each]));

// Every record of a gate with its entry: those of deciding gates twice.
export function gateRecords(given) {
  const deciding = given.told("decision").flatMap(([entry, decision]) => decision.gates.map((record) => [entry, record]));
  const further = given.told("further_gates").flatMap(([entry, records]) => records.map((record) => [entry, record]));
  return [...given.told("gate"), ...further, ...deciding];
}

export function gatesRecorded(given) {
  const found = [];
  const known = new Map(given.gates.map((each) => [`${each.hash} ${each.mark.key_id} ${each.mark.signature}`, each]));
  for (const [entry, record] of gateRecords(given)) {
    const shown = known.get(`${gateHash(given, record)} ${record.key_id} ${record.signature}`);
    if (shown === undefined) {
      found.push(finding(`${entry.place}.payload`, "records a gate that the bundle does not show"));
    } else if (shown.signer !== record.actor) {
      found.push(finding(`${entry.place}.payload`, "names another person than the one who signed"));
    }
  }
  for (const [entry, record] of given.told("gate")) {
    if (entry.document.actor !== record.actor) found.push(finding(entry.place, "names another actor than the person who signed"));
  }
  return given.requirePayloads(found);
}

export function votes(given) {
  const [signed, found] = read(given, "votes", "lockstep/vote/v1", VOTE);
  for (const each of signed) {
    if ("promise" in each.document === "refusal" in each.document) found.push(finding(each.place, "is neither a YES nor a NO"));
  }
  if (new Set(signed.map((each) => each.document.leg_id)).size !== signed.length) {
    found.push(finding("votes", "holds a leg's vote twice"));
  }
  given.votes = signed;
  return found.length > 0 ? found : participants(given, signed, "voted_at");
}

export function outcomes(given) {
  const [signed, found] = read(given, "outcomes", "lockstep/outcome/v1", OUTCOME);
  if (new Set(signed.map((each) => `${each.document.leg_id} ${reverses(each)}`)).size !== signed.length) {
    found.push(finding("outcomes", "holds a leg's outcome twice"));
  }
  given.outcomes = signed;
  return found.length > 0 ? found : participants(given, signed, "settled_at");
}

// Whether it answers an order to reverse; such an answer stands beside the leg's outcome.
const reverses = (each) => ["REVERSED", "REVERSAL_REFUSED"].includes(each.document.kind);

function participants(given, signed, time) {
  const legs = new Set(given.legs.map((leg) => leg.leg_id));
  const strange = signed.filter(
    ({ document }) =>
      document.plan_id !== given.header.plan_id || document.plan_digest !== given.planDigest || !legs.has(document.leg_id),
  );
  if (strange.length > 0) return strange.map((each) => finding(each.place, "is about another plan or leg"));
  const trusted = given.requireTrust("participants", "the participants");
  const keys = new Map(trusted.map((each) => [each.name, trustedKeys(each.keys)]));
  return signed
    .filter((each) => {
      const own = keys.get(each.document.participant) ?? [];
      return !own.some((key) => key.validAt(each.document[time]) && key.signed(each.given, each.octets));
    })
    .map((each) => finding(`${each.place}.signature`, "is not by the participant that it names"));
}

export function statementsRecorded(given) {
  const recorded = new Map();
  for (const [entry, leg] of given.told("leg")) {
    for (const name of ["vote", "outcome", "reversal"]) {
      if (!(name in leg)) continue;
      recorded.set(`${name} ${leg.leg_id}`, { name, place: `${entry.place}.payload.leg.${name}`, record: leg[name] });
    }
  }
  const shown = new Map(given.votes.map((each) => [`vote ${each.document.leg_id}`, each]));
  for (const each of given.outcomes) shown.set(`${reverses(each) ? "reversal" : "outcome"} ${each.document.leg_id}`, each);
  const found = [];
  for (const [key, { place, record }] of recorded) {
    const each = shown.get(key);
    if (superseded(record, each)) continue;
    if (each === undefined) {
      found.push(finding(place, "is recorded and not shown"));
    } else if (
      record.statement_sha256 !== each.hash ||
      record.key_id !== each.mark.key_id ||
      record.signature !== each.mark.signature
    ) {
      found.push(finding(place, "records another statement than the bundle shows"));
    } else if (answer(each) !== (record.vote ?? record.kind)) {
      found.push(finding(place, "says another answer than the statement"));
    }
  }
  const committed = given.seal?.outcome === "COMMITTED";
  for (const [key, each] of shown) {
    const inChain = key.startsWith("vote ") || given.settling.includes(each.document.leg_id);
    if (committed && !recorded.has(key) && inChain) found.push(finding(each.place, "is shown and not recorded"));
  }
  return given.requirePayloads(found);
}

// A leg that was refused is released in the end, and an order to reverse can be given again.
function superseded(record, shown) {
  return record.kind === "REVERSAL_REFUSED" || (record.kind === "REFUSED" && shown?.document.kind === "RELEASED");
}

function answer({ document }) {
  if ("voted_at" in document) return "promise" in document ? "YES" : "NO";
  return document.kind;
}

export function decision(given) {
  const told = given.told("decision");
  if (told.length === 0) {
    given.requirePayloads([]);
    if (given.seal?.outcome === "COMMITTED") {
      return [finding("entries", "hold no decision, and the seal says that the plan was committed")];
    }
    throw new NotChecked("the plan was never released");
  }
  const [entry, said] = told.at(-1);
  const place = `${entry.place}.payload.decision`;
  const order = given.legs.map((leg) => leg.leg_id);
  if (order.join(" ") !== given.votes.map((each) => each.document.leg_id).join(" ")) {
    return [finding("votes", "are not one of every leg, in plan order")];
  }
  const found = [];
  for (const each of given.votes) {
    const { promise } = each.document;
    if (promise === undefined || (promise.expires_at ?? "~") <= said.decided_at) {
      found.push(finding(each.place, "is no promise that stood when the plan was released"));
    }
  }
  if (said.votes_digest !== digestOf(given.votes)) found.push(finding(place, "is over other votes"));
  if (said.decided_at > given.header.deadline) found.push(finding(place, "was taken after the plan's deadline"));
  return [...found, ...decidingGates(given, said, place), ...delegation(given, said, place)];
}

// What participants were shown is these signatures and no others.
function decidingGates(given, said, place) {
  const [found, shown] = [[], shownGates(given)];
  for (const each of said.gates) {
    const { gate } = each;
    const key = shown.get(`${gateHash(given, each)} ${each.signature}`)?.key;
    if (!DECIDING.includes(gate) || each.verdict !== "APPROVE") {
      found.push(finding(place, `rests on ${each.verdict} at the gate ${gate}`));
    } else if (each.expires_at <= said.decided_at) {
      found.push(finding(place, `rests on a signature for the gate ${gate} whose time was over`));
    } else if (key !== undefined && !key.validAt(said.decided_at)) {
      found.push(finding(place, `rests on a signature for the gate ${gate} by a key that did not count then`));
    } else if (gate === "RELEASE" && each.votes_digest !== said.votes_digest) {
      found.push(finding(place, "rests on a release of other votes"));
    }
  }
  for (const gate of DECIDING) {
    const there = said.gates.some((each) => each.gate === gate && shown.has(`${gateHash(given, each)} ${each.signature}`));
    if (!there) found.push(finding(place, `lacks the gate ${gate}`));
  }
  return found;
}

// A decision is left to the first leg whose promise can lapse, if to any, and to none only where that is accepted.
function delegation(given, said, place) {
  const soft = given.votes.filter(({ document: { promise } }) => promise?.kind === "BEST_EFFORT" || promise?.expires_at !== undefined);
  if (said.delegate !== "" && said.delegate !== soft[0]?.document.leg_id) {
    return [finding(place, "is left to a leg that is not the first whose promise can lapse")];
  }
  if (said.delegate === "" && soft.length > 0 && !given.header.policy.accept_expiry_risk) {
    return [finding(place, "is not left to the leg whose promise can lapse, and the plan does not accept that risk")];
  }
  const done = given.outcomes.filter(({ document }) => document.kind === "DONE").map(({ document }) => document.leg_id);
  if (said.delegate !== "" && !done.includes(said.delegate) && done.some((leg) => given.settling.includes(leg))) {
    return [finding("outcomes", "hold a leg that was executed, and not the one that the decision was left to")];
  }
  return [];
}

// Digest over statements, as releaser and validator sign it.
function digestOf(signed) {
  return sha256Hex(canonical(signed.map((each) => ({ statement: each.hash, ...each.mark }))));
}

export function evidence(given) {
  if (given.seal === undefined) throw new NotChecked("the seal's payload was erased");
  const ended = given.seal.outcome;
  const own = new Map(given.outcomes.filter((each) => !reverses(each)).map((each) => [each.document.leg_id, each]));
  const shown = given.settling.filter((leg) => own.has(leg)).map((leg) => own.get(leg));
  const done = shown.filter((each) => each.document.kind === "DONE").map((each) => each.document.leg_id);
  const undone = given.outcomes.filter((each) => each.document.kind === "REVERSED").map((each) => each.document.leg_id);
  if (ended === "COMMITTED" && done.length !== shown.length) {
    return [finding("outcomes", "hold a leg that was not executed, and the seal says that the plan was committed")];
  }
  if (ended === "COMMITTED" && given.seal.evidence_digest !== digestOf(shown)) {
    return [finding(`${given.entries.at(-1).place}.payload`, "names other evidence than the outcomes that are shown")];
  }
  if (ended === "ABORTED" && done.length > 0) {
    return [finding("outcomes", "hold a leg that was executed, and the seal says that the plan was aborted")];
  }
  if (ended === "REVERSED" && done.some((leg) => !undone.includes(leg))) {
    if (given.told("resolution").length > 0) throw new NotChecked("operators answered for a participant");
    return [
      finding("outcomes", "hold a leg that was executed and not reversed, and the seal says that the plan was reversed"),
    ];
  }
  return [];
}

export function validation(given) {
  if (given.seal === undefined) throw new NotChecked("the seal's payload was erased");
  if (given.seal.outcome !== "COMMITTED") throw new NotChecked("the plan was not committed");
  const good = given.gates.some(
    ({ document }) =>
      document.gate === "VALIDATE" &&
      document.verdict === "APPROVE" &&
      document.evidence_digest === given.seal.evidence_digest,
  );
  return good ? [] : [finding("gates", "hold no validator's signature over the evidence")];
}

export function auditLog(given) {
  if (given.seal === undefined) throw new NotChecked("the seal's payload was erased");
  if (given.seal.outcome === "COMMITTED") throw new NotChecked("the plan was committed");
  if (!("audit_log" in given.bundle)) throw new NotChecked("the bundle holds no abort audit log");
  if (sha256Hex(octets(given.bundle.audit_log)) === given.seal.evidence_digest) return [];
  return [finding("audit_log", "is not the log whose hash the seal names")];
}

export function messages(given) {
  const found = [];
  for (const each of given.outcomes) {
    const shown = each.document.evidence ?? {};
    if (!["bank", "instrument"].includes(shown.kind)) continue;
    const [form, fields] = shown.kind === "bank" ? [BANK_EVIDENCE, BANK_FIELDS] : [INSTRUMENT_EVIDENCE, INSTRUMENT_FIELDS];
    if (!holds(form, shown)) {
      found.push(finding(each.place, "holds evidence of another form"));
      continue;
    }
    const leg = each.document.leg_id;
    if (shown.kind === "bank" && shown.uetr !== uetr(given.header.plan_id, leg)) {
      found.push(finding(each.place, "names a payment of another plan or leg"));
    }
    given.messages.push({ leg_id: leg, ...Object.fromEntries(Object.keys(fields).map((key) => [key, shown[key]])) });
  }
  if (found.length === 0 && given.messages.length === 0) throw new NotChecked("no outcome names a message of a bank");
  return found;
}

// A leg's unique end-to-end transaction reference: 128 bits of a SHA-256, marked as UUID version 4.
function uetr(planId, leg) {
  const octets16 = sha256(["lockstep/v1", planId, leg].join("\u001f")).subarray(0, 16);
  octets16[6] = (octets16[6] & 0x0f) | 0x40;
  octets16[8] = (octets16[8] & 0x3f) | 0x80;
  return octets16.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
