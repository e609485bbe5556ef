// A signed transaction (EIP-1559, RLP) that calls anchorMany((uint8,bytes32,uint64)[]): its hash, signer, chain, contract and roots.

import { keccak256 } from "./keccak.mjs";
import { signer } from "./secp256k1.mjs";

const HEAD = Buffer.concat([keccak256(Buffer.from("anchorMany((uint8,bytes32,uint64)[])")).subarray(0, 4), word(32n)]);
const DEPTH_MAX = 4;
// Fields that are signed; parity of y, r and s come behind them.
const SIGNED = 9;

class Broken extends Error {}

function word(value) {
  return Buffer.from(value.toString(16).padStart(64, "0"), "hex");
}

const big = (octets) => (octets.length === 0 ? 0n : BigInt(`0x${octets.toString("hex")}`));

// The anchoring transaction in the bytes; undefined where there is none.
export function parseTransaction(octets) {
  try {
    return read(octets);
  } catch (error) {
    if (error instanceof Broken) return undefined;
    throw error;
  }
}

function read(octets) {
  if (octets[0] !== 2) throw new Broken();
  const [fields, end] = item(octets, 1, 0);
  if (end !== octets.length || !Array.isArray(fields) || fields.length !== 12) throw new Broken();
  const [chain, to, calldata] = [fields[0], fields[5], fields[7]];
  if ([chain, to, calldata].some(Array.isArray)) throw new Broken();
  if (chain.length > 8 || chain[0] === 0 || to.length !== 20) throw new Broken();
  return { hash: keccak256(octets), sender: senderOf(octets, fields), chainNumber: big(chain), to, roots: roots(calldata) };
}

// The signature is over the list of the fields before it.
function senderOf(octets, fields) {
  const start = 2 + Math.max(octets[1] - 0xf7, 0);
  let place = start;
  for (let many = 0; many < SIGNED; many += 1) [, place] = item(octets, place, 1);
  const body = octets.subarray(start, place);
  const digits = body.length.toString(16);
  const size = Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, "hex");
  const head = body.length <= 55 ? Buffer.from([0xc0 + body.length]) : Buffer.concat([Buffer.from([0xf7 + size.length]), size]);
  const marks = fields.slice(SIGNED);
  if (marks.some((each) => Array.isArray(each) || each.length > 32 || each[0] === 0)) throw new Broken();
  if (marks[0].length > 0 && !marks[0].equals(Buffer.from([1]))) throw new Broken();
  const told = keccak256(Buffer.concat([Buffer.from([2]), head, body]));
  const found = signer(told, marks[0].length > 0, big(marks[1]), big(marks[2]));
  if (found === undefined) throw new Broken();
  return found;
}

function roots(calldata) {
  const body = calldata.subarray(68);
  const many = big(calldata.subarray(36, 68));
  if (!calldata.subarray(0, HEAD.length).equals(HEAD) || BigInt(body.length) !== many * 96n) throw new Broken();
  const found = [];
  for (let start = 0; start < body.length; start += 96) {
    const kind = big(body.subarray(start, start + 32));
    const size = big(body.subarray(start + 64, start + 96));
    if (kind >= 256n || size >= 2n ** 64n) throw new Broken();
    found.push({ kind: Number(kind), root: body.subarray(start + 32, start + 64), size });
  }
  return found;
}

function item(octets, start, depth) {
  if (start >= octets.length || depth > DEPTH_MAX) throw new Broken();
  const first = octets[start];
  if (first < 0x80) return [octets.subarray(start, start + 1), start + 1];
  const nested = first >= 0xc0;
  let [length, body] = [first - (nested ? 0xc0 : 0x80), start + 1];
  if (length > 55) {
    const many = length - 55;
    if (many > 4 || octets[body] === 0) throw new Broken();
    length = Number(big(octets.subarray(body, body + many)));
    body += many;
    if (length <= 55) throw new Broken();
  }
  const end = body + length;
  if (end > octets.length) throw new Broken();
  if (!nested) {
    if (length === 1 && octets[body] < 0x80) throw new Broken();
    return [octets.subarray(body, end), end];
  }
  const items = [];
  while (body < end) {
    const [each, next] = item(octets, body, depth + 1);
    items.push(each);
    body = next;
  }
  if (body !== end) throw new Broken();
  return [items, end];
}
