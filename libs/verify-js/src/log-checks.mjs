// Checks of the journal's log: checkpoint, inclusion, witness, and what is anchored on chain.

import { finding, NotChecked } from "./case.mjs";
import { OUTCOME_LEAF, REGISTRATION_LEAF } from "./documents.mjs";
import { holds, octets } from "./forms.mjs";
import { consistent, included, leafHash } from "./hashes.mjs";
import { parseNote } from "./notes.mjs";
import { statement } from "./strict-json.mjs";
import { parseTransaction } from "./transactions.mjs";

const KINDS = { checkpoint: 1, registrations: 2, outcomes: 3 };
const STATUSES = { COMMITTED: "Committed", ABORTED: "Aborted", REVERSED: "Aborted", MIXED: "Mixed" };

const signedByJournal = (given, note) => given.journalKeys.some(({ key }) => note.signedBy(note.origin, key));

export function checkpoint(given) {
  const note = parseNote(octets(given.bundle.checkpoint));
  if (note === undefined) return [finding("checkpoint", "is no signed checkpoint")];
  if (note.origin !== given.trust.journal.origin) return [finding("checkpoint", "is of another log")];
  if (!signedByJournal(given, note)) return [finding("checkpoint", "is not signed by the journal")];
  given.checkpoint = note;
  return [];
}

export function inclusion(given) {
  const found = [];
  const { size, root } = given.checkpoint;
  let before = -1n;
  given.entries.forEach(({ place, signed }, at) => {
    const each = given.bundle.entries[at];
    const index = BigInt(each.leaf_index);
    if (index <= before) found.push(finding(`${place}.leaf_index`, "does not come after the entry before"));
    if (!included(leafHash(signed), index, size, each.inclusion_path.map(octets), root)) {
      found.push(finding(`${place}.inclusion_path`, "does not lead to the checkpoint's root"));
    }
    before = index;
  });
  return found;
}

export function witness(given) {
  if (!("witnessed" in given.bundle)) throw new NotChecked("the bundle holds no checkpoint of a witness");
  const trusted = given.requireTrust("witness", "the witness");
  const note = parseNote(octets(given.bundle.witnessed.note));
  if (note === undefined) return [finding("witnessed.note", "is no signed checkpoint")];
  if (note.origin !== given.checkpoint.origin || !signedByJournal(given, note)) {
    return [finding("witnessed.note", "is not a checkpoint of the journal")];
  }
  const moment = trusted.keys.map((key) => note.cosignedAt(trusted.name, octets(key))).find((each) => each !== undefined);
  if (moment === undefined) return [finding("witnessed.note", "is not cosigned by the witness")];
  Object.assign(given, { witnessed: note, witnessedAt: moment });
  return [];
}

export function consistency(given) {
  const [before, after] = [given.checkpoint, given.witnessed];
  const path = given.bundle.witnessed.consistency_path.map(octets);
  if (consistent(before.size, before.root, after.size, after.root, path)) return [];
  return [finding("witnessed.consistency_path", "does not show that the witness's log begins with the checkpoint's")];
}

export function checkpointAnchor(given) {
  const shown = given.bundle.witnessed.anchor;
  if (shown === undefined) throw new NotChecked("the bundle holds no anchor of the witness's checkpoint");
  return anchor(given, shown, "witnessed.anchor", "checkpoint", given.witnessed.root, given.witnessed.size);
}

function anchor(given, shown, place, kind, root, size) {
  const trusted = given.requireTrust("chain", "the chain and its registry");
  if (shown.kind !== kind || !octets(shown.root).equals(root) || BigInt(shown.size) !== size) {
    return [finding(place, "is of another root")];
  }
  if (!atHome(shown, trusted)) return [finding(place, "is in another registry")];
  if (!("raw_transaction" in shown)) {
    throw new NotChecked("the anchor names no transaction: a node alone can say whether the registry holds the root");
  }
  const sent = parseTransaction(octets(shown.raw_transaction));
  const here = `${place}.raw_transaction`;
  if (sent === undefined) return [finding(here, "is no transaction that anchors roots")];
  const target = Buffer.from(trusted.registry.slice(2), "hex");
  if (trusted.chain !== `eip155:${sent.chainNumber}` || !sent.to.equals(target)) return [finding(here, "calls another registry")];
  if (!sent.roots.some((each) => each.kind === KINDS[kind] && each.root.equals(root) && each.size === size)) {
    return [finding(here, "anchors other roots")];
  }
  const sender = sent.sender.toString("hex");
  if ("accounts" in trusted && !trusted.accounts.some((each) => each.slice(2).toLowerCase() === sender)) {
    return [finding(here, "is signed by an account that the trust file does not name")];
  }
  given.blocks.set(kind, [sent.hash.toString("hex"), shown.block_number, octets(shown.block_hash).toString("hex"), sender]);
  return [];
}

const atHome = (shown, trusted) =>
  shown.chain === trusted.chain && shown.registry.toLowerCase() === trusted.registry.toLowerCase();

export function registration(given) {
  return notarised(given, "registration", REGISTRATION_LEAF, {}, "Registered");
}

export function outcome(given) {
  if (given.seal !== undefined) {
    const said = { outcome: STATUSES[given.seal.outcome], evidence_digest: given.seal.evidence_digest };
    return notarised(given, "outcome", OUTCOME_LEAF, said, said.outcome);
  }
  if ("outcome" in given.bundle) {
    throw new NotChecked("the seal's payload was erased, or there is no seal: nothing says what the outcome must be");
  }
  return notarised(given, "outcome", OUTCOME_LEAF, {}, "");
}

function notarised(given, name, form, said, status) {
  const shown = given.bundle[name] ?? {};
  const trusted = given.requireTrust("chain", "the chain and its registry");
  const { record, proof } = shown;
  if (record !== undefined) {
    const same = octets(record.entry_key).toString("hex") === given.planDigest && record.entry_status === status;
    if (!atHome(record, trusted) || !same) return [finding(`${name}.record`, "is about another plan, outcome or registry")];
  }
  if (proof === undefined) {
    throw new NotChecked(
      record ? "the bundle holds a record that a node alone can confirm" : "the bundle holds no record of it",
    );
  }
  return proofOf(given, proof, name, form, said);
}

function proofOf(given, proof, name, form, said) {
  const place = `${name}.proof`;
  const leaf = octets(proof.leaf_data);
  const document = statement(leaf, "lockstep/anchor/v1");
  if (!holds(form, document)) return [finding(`${place}.leaf_data`, "is no leaf of that kind")];
  if (document.plan_digest !== given.planDigest || Object.entries(said).some(([key, value]) => document[key] !== value)) {
    return [finding(`${place}.leaf_data`, "is about another plan or outcome")];
  }
  const [index, size, root] = [BigInt(proof.leaf_index), BigInt(proof.tree_size), octets(proof.root)];
  if (!included(leafHash(leaf), index, size, proof.path.map(octets), root)) {
    return [finding(`${place}.path`, "does not lead to the root")];
  }
  if (!("anchor" in proof)) throw new NotChecked("the root is not anchored yet");
  return anchor(given, proof.anchor, `${place}.anchor`, `${name}s`, root, size);
}
