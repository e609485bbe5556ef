// Checks of the plan and of its chain in the journal.

import { finding, NotChecked, TrustedKey, trustedKeys } from "./case.mjs";
import { ENTRY, HEADER, KEY, LEG, PAYLOAD, SEAL, TERMS } from "./documents.mjs";
import { holds, octets } from "./forms.mjs";
import { keyId, leafHash, root, sha256Hex } from "./hashes.mjs";
import { canonicalDocument, statement } from "./strict-json.mjs";
import { TRANSITIONS } from "./transitions.mjs";

const JOURNAL = "event-journal";
const GENESIS = "00".repeat(32);

export function plan(given) {
  const head = octets(given.bundle.plan.header);
  const header = canonicalDocument(head);
  if (!holds(HEADER, header)) return [finding("plan.header", "is not the RFC 8785 bytes of a plan's head")];
  const signed = given.bundle.plan.legs.map(octets);
  const legs = signed.map(canonicalDocument);
  const found = legs.flatMap((leg, index) =>
    holds(LEG, leg) ? [] : [finding(`plan.legs[${index}]`, "is not the RFC 8785 bytes of a leg")],
  );
  if (found.length > 0) return found;
  const unsaid = legs.flatMap((leg, index) => {
    const known = !Object.hasOwn(TERMS, leg.kind) || holds(TERMS[leg.kind], leg.terms);
    return known ? [] : [finding(`plan.legs[${index}]`, "does not say what it moves as such a leg does")];
  });
  if (unsaid.length > 0) return unsaid;
  if (new Set(legs.map((leg) => leg.leg_id)).size !== legs.length) return [finding("plan.legs", "holds a leg's id twice")];
  if (header.leg_count !== legs.length || header.legs_root !== root(signed.map(leafHash)).toString("hex")) {
    return [finding("plan.legs", "are not the legs under the head's legs_root")];
  }
  Object.assign(given, { header, legs, planDigest: sha256Hex(head) });
  return [];
}

export function entries(given) {
  const found = [];
  given.bundle.entries.forEach((each, index) => {
    const place = `entries[${index}]`;
    const signed = octets(each.canonical_bytes);
    const document = statement(signed, "lockstep/entry/v1");
    if (!holds(ENTRY, document)) {
      found.push(finding(`${place}.canonical_bytes`, "is not the signed form of an entry"));
      return;
    }
    if (document.plan_id !== given.header.plan_id) found.push(finding(`${place}.canonical_bytes`, "belongs to another plan"));
    if (document.key_id !== each.signature.key_id) {
      found.push(finding(`${place}.signature.key_id`, "is not the key that the signed bytes name"));
    }
    const payload = "payload" in each ? octets(each.payload) : undefined;
    given.entries.push({ place, signed, document, payload, hash: sha256Hex(signed) });
  });
  return found;
}

export function chain(given) {
  const found = [];
  let previous = GENESIS;
  given.entries.forEach(({ place, document, hash }, index) => {
    if (document.sequence !== index + 1) found.push(finding(place, "does not have the next sequence"));
    if (document.previous_hash !== previous) found.push(finding(place, "does not name the hash of the entry before"));
    if ((document.type === "plan.created") !== (index === 0)) found.push(finding(place, "has a type that cannot stand there"));
    previous = hash;
  });
  return found;
}

export function payloads(given) {
  const found = [];
  given.entries.forEach(({ place, document, payload }, index) => {
    if (payload === undefined) return;
    const read = canonicalDocument(payload);
    if (sha256Hex(payload) !== document.payload_hash) {
      found.push(finding(`${place}.payload`, "is not the payload that was hashed"));
    } else if (!holds(document.type === "plan.closed" ? SEAL : PAYLOAD, read)) {
      found.push(finding(`${place}.payload`, "is not of the form of its event type"));
    } else {
      given.payloads.set(index, read);
    }
  });
  return found;
}

export function seal(given) {
  const closing = given.entries.filter((each) => each.document.type === "plan.closed");
  if (closing.length === 0) throw new NotChecked("the chain is not sealed: what came after these entries is not shown");
  const last = given.entries.at(-1);
  if (closing.length !== 1 || closing[0] !== last) return [finding(closing[0].place, "is a seal, and entries stand behind it")];
  if (last.document.actor !== JOURNAL || last.document.actor_role !== "journal") {
    return [finding(last.place, "is a seal that the journal did not write")];
  }
  const before = given.entries.length - 1;
  given.seal = given.payloads.get(before);
  if (given.seal === undefined) return [];
  if (given.seal.entry_count !== before || before === 0 || given.seal.head_hash !== given.entries[before - 1].hash) {
    return [finding(`${last.place}.payload`, "does not count the entries before it, or names another head")];
  }
  return [];
}

export function planBound(given) {
  const found = [];
  for (const [index, payload] of given.payloads) {
    const { place, document } = given.entries[index];
    if (document.type !== "plan.closed" && payload.plan_digest !== given.planDigest) {
      found.push(finding(`${place}.payload`, "does not name this plan's digest"));
    }
  }
  return given.requirePayloads(found);
}

export function transitions(given) {
  if (given.erased.length > 0) return given.requirePayloads([]);
  let [number, state, decision] = [0, "", ""];
  for (const [entry, moved] of given.told("transition")) {
    number += 1;
    const place = `${entry.place}.payload.transition`;
    if (moved.transition_no !== number || moved.from !== state) return [finding(place, "does not go on from the transition before")];
    if (!legal(state, decision, moved)) return [finding(place, "is no transition of the protocol")];
    [state, decision] = [moved.to, moved.decision ?? decision];
  }
  if ((state === "CLOSED") !== (given.seal !== undefined)) return [finding("entries", "do not end in the state that the seal closes")];
  return [];
}

function legal(state, decision, moved) {
  if (state === "") return moved.cause === "CREATED" && moved.to === "DRAFT" && moved.decision === "";
  const from = TRANSITIONS.filter((row) => row[0] === state && row[1] === decision);
  if (moved.cause === undefined) return moved.to === "CLOSED" && from.some((row) => row[3] === "CLOSED");
  return from.some((row) => row[2] === moved.cause && row[3] === moved.to && row[4] === moved.decision);
}

export function journalKeys(given) {
  const trusted = given.requireTrust("journal", "the journal");
  if ("keys" in trusted) {
    given.journalKeys = trustedKeys(trusted.keys);
    return [];
  }
  if (!("journal_keys" in given.bundle)) throw new NotChecked("the bundle holds no history of the journal's keys");
  return history(given, octets(trusted.first_key));
}

function history(given, first) {
  const keys = [];
  let previous = GENESIS;
  for (const [index, each] of given.bundle.journal_keys.entries()) {
    const place = `journal_keys[${index}]`;
    const signed = octets(each.statement);
    const document = statement(signed, "lockstep/key/v1");
    if (!holds(KEY, document)) return [finding(place, "is not the signed form of a key")];
    const key = Buffer.from(document.public_key, "hex");
    const own = new TrustedKey(key, document.not_before, document.not_after);
    const inPlace = document.holder === JOURNAL && document.number === index + 1 && document.previous_hash === previous;
    if (!inPlace || document.key_id !== keyId(key) || document.not_before >= document.not_after) {
      return [finding(place, "does not follow the statement before")];
    }
    if (index === 0 && !key.equals(first)) return [finding(place, "is not the first key that the trust file names")];
    const before = keys.at(-1);
    if (
      before !== undefined &&
      !(before.notBefore <= own.notBefore && own.notBefore <= before.notAfter && before.notAfter <= own.notAfter)
    ) {
      return [finding(place, "begins or ends before the key before, or leaves a gap behind it")];
    }
    if (keys.some((known) => known.key.equals(key))) return [finding(place, "is a key that was in the history before")];
    const signers = before === undefined ? [own] : [before, own];
    const byAll = each.signatures.every((mark, at) => signers[at]?.signed(mark, signed));
    if (each.signatures.length !== signers.length || !byAll) {
      return [finding(place, "is not signed by the key before and by the key itself")];
    }
    keys.push(own);
    previous = sha256Hex(signed);
  }
  given.journalKeys = keys;
  return [];
}

export function entrySignatures(given) {
  return given.entries.flatMap(({ place, document, signed }, index) => {
    const mark = given.bundle.entries[index].signature;
    const good = given.journalKeys.some((key) => key.validAt(document.event_time) && key.signed(mark, signed));
    return good ? [] : [finding(`${place}.signature`, "is not the journal's, by a key valid at the entry's time")];
  });
}
