// What is being verified, as far as it has been read. Checks run in order; one that reads something leaves it here for those that rely on it.

import { TERMS } from "./documents.mjs";
import { octets } from "./forms.mjs";
import { keyId, sha256Hex, verifies } from "./hashes.mjs";

export class NotChecked extends Error {}

export const finding = (place, message) => ({ place, message });

export class TrustedKey {
  constructor(key, notBefore, notAfter) {
    Object.assign(this, { key, notBefore, notAfter });
  }

  // Texts of the one form of a time are ordered as times are.
  validAt(moment) {
    return this.notBefore <= moment && moment < this.notAfter;
  }

  get id() {
    return keyId(this.key);
  }

  // A signature of a payload, in hex.
  made(signature, message) {
    return verifies(this.key, message, Buffer.from(signature, "hex"));
  }

  signed(mark, message) {
    return mark.key_id === this.id && verifies(this.key, message, octets(mark.signature));
  }
}

export function trustedKeys(listed) {
  return listed.map((each) => new TrustedKey(octets(each.public_key), each.not_before, each.not_after));
}

// A statement of a person or a participant.
export class Signed {
  constructor(place, signedBytes, document, given) {
    Object.assign(this, { place, octets: signedBytes, document, given, signer: "", key: undefined });
    this.hash = sha256Hex(signedBytes);
    this.mark = { key_id: given.key_id, signature: octets(given.signature).toString("hex") };
  }
}

export class Case {
  constructor(bundle, trust) {
    Object.assign(this, { bundle, trust, header: undefined, planDigest: "", legs: [], entries: [], seal: undefined });
    Object.assign(this, { journalKeys: [], checkpoint: undefined, witnessed: undefined, witnessedAt: "" });
    Object.assign(this, { gates: [], votes: [], outcomes: [], messages: [], blocks: new Map() });
    Object.assign(this, { matrix: undefined, orders: [], owners: undefined });
    this.payloads = new Map();
  }

  get erased() {
    return this.entries.filter((each) => each.payload === undefined).map((each) => String(each.document.sequence));
  }

  get settling() {
    return this.legs.filter((each) => !["notarisation", "journal"].includes(each.kind)).map((each) => each.leg_id);
  }

  // Minor units by asset, over all legs: what a plan's signers are judged by.
  get amounts() {
    const found = new Map();
    for (const { terms } of this.legs.filter((each) => Object.hasOwn(TERMS, each.kind))) {
      found.set(terms.amount.asset, (found.get(terms.amount.asset) ?? 0n) + BigInt(terms.amount.minor_units));
    }
    return [...found].sort(([left], [right]) => (left < right ? -1 : 1));
  }

  // A person of the trust file who has signed something.
  person(actorId) {
    return this.trust.persons.find((each) => each.actor_id === actorId);
  }

  // Whose key it is, and the key; undefined where no trusted person has it.
  owner(id) {
    if (this.owners === undefined) {
      const all = (this.trust.persons ?? []).flatMap((person) => trustedKeys(person.keys).map((key) => [key.id, [person, key]]));
      this.owners = new Map(all);
    }
    return this.owners.get(id);
  }

  // What payloads say under a name, each with its entry, in the order of the chain.
  told(name) {
    return [...this.payloads].filter(([, payload]) => name in payload).map(([index, payload]) => [this.entries[index], payload[name]]);
  }

  requirePayloads(findings) {
    if (findings.length === 0 && this.erased.length > 0) throw new NotChecked("payloads were erased");
    return findings;
  }

  requireTrust(name, what) {
    if (!(name in this.trust)) throw new NotChecked(`the trust file does not name ${what}`);
    return this.trust[name];
  }
}
