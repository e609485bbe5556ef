// SHA-256, Ed25519 (RFC 8032), and the proofs of Merkle trees (RFC 9162, sections 2.1.3.2 and 2.1.4.2).

import { createHash, createPublicKey, verify } from "node:crypto";

const ED25519_SPKI = Buffer.from("302a300506032b6570032100", "hex");
const ZERO = Buffer.from([0]);
const ONE = Buffer.from([1]);

export function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export const sha256Hex = (...parts) => sha256(...parts).toString("hex");

export function verifies(key, message, signature) {
  try {
    const known = createPublicKey({ key: Buffer.concat([ED25519_SPKI, key]), format: "der", type: "spki" });
    return signature.length === 64 && verify(null, message, known, signature);
  } catch {
    return false;
  }
}

export const keyId = (key) => sha256Hex(key).slice(0, 16);

export const leafHash = (octets) => sha256(ZERO, octets);
const nodeHash = (left, right) => sha256(ONE, left, right);

export function root(leaves) {
  if (leaves.length === 1) return leaves[0];
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  return nodeHash(root(leaves.slice(0, split)), root(leaves.slice(split)));
}

export function included(leaf, index, size, path, treeRoot) {
  if (index >= size) return false;
  let [node, here, last] = [leaf, index, size - 1n];
  for (const sibling of path) {
    if (last === 0n) return false;
    if (here & 1n || here === last) {
      node = nodeHash(sibling, node);
      while (!(here & 1n) && here) [here, last] = [here >> 1n, last >> 1n];
    } else {
      node = nodeHash(node, sibling);
    }
    [here, last] = [here >> 1n, last >> 1n];
  }
  return last === 0n && node.equals(treeRoot);
}

export function consistent(before, beforeRoot, after, afterRoot, path) {
  if (before <= 0n || before > after) return false;
  if (before === after) return path.length === 0 && beforeRoot.equals(afterRoot);
  const steps = (before & (before - 1n)) === 0n ? [beforeRoot, ...path] : path;
  if (steps.length === 0) return false;
  let [here, last] = [before - 1n, after - 1n];
  while (here & 1n) [here, last] = [here >> 1n, last >> 1n];
  let [first, second] = [steps[0], steps[0]];
  for (const sibling of steps.slice(1)) {
    if (last === 0n) return false;
    if (here & 1n || here === last) {
      [first, second] = [nodeHash(sibling, first), nodeHash(sibling, second)];
      while (!(here & 1n) && here) [here, last] = [here >> 1n, last >> 1n];
    } else {
      second = nodeHash(second, sibling);
    }
    [here, last] = [here >> 1n, last >> 1n];
  }
  return last === 0n && first.equals(beforeRoot) && second.equals(afterRoot);
}
