// Who signed a transaction: recovery of the public key from an ECDSA signature over secp256k1 (SEC 1, section 4.1.6; SEC 2, section 2.4.1).

import { keccak256 } from "./keccak.mjs";

const P = 2n ** 256n - 2n ** 32n - 977n;
const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const BASE = [
  0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
  0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
];

const modulo = (value, by) => ((value % by) + by) % by;

function power(base, exponent, by) {
  let [found, square] = [1n, modulo(base, by)];
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) found = (found * square) % by;
    square = (square * square) % by;
  }
  return found;
}

// Euclid's, which is many times faster than a power.
function inverse(value, by) {
  let [left, right, found, next] = [modulo(value, by), by, 1n, 0n];
  while (right > 0n) {
    const times = left / right;
    [left, right] = [right, left - times * right];
    [found, next] = [next, found - times * next];
  }
  return modulo(found, by);
}

const word = (value) => Buffer.from(value.toString(16).padStart(64, "0"), "hex");

// Address of the account that signed the digest; undefined where the numbers are no signature that a chain takes (EIP-2: low s).
export function signer(digest, odd, r, s) {
  if (r <= 0n || r >= N || s <= 0n || s > N / 2n) return undefined;
  const curve = modulo(r ** 3n + 7n, P);
  const root = power(curve, (P + 1n) / 4n, P);
  if ((root * root) % P !== curve) return undefined;
  const point = [r, root % 2n === (odd ? 1n : 0n) ? root : P - root];
  const back = inverse(r, N);
  const told = BigInt(`0x${digest.toString("hex")}`);
  const found = sum(times(point, modulo(s * back, N)), times(BASE, modulo(-told * back, N)));
  return found === undefined ? undefined : keccak256(Buffer.concat([word(found[0]), word(found[1])])).subarray(12);
}

// Points have two coordinates; the point at infinity is undefined.
function times(point, factor) {
  let [found, power2] = [undefined, point];
  for (let rest = factor; rest > 0n; rest >>= 1n) {
    if (rest & 1n) found = sum(found, power2);
    power2 = sum(power2, power2);
  }
  return found;
}

function sum(left, right) {
  if (left === undefined) return right;
  if (right === undefined) return left;
  const [across, up] = [modulo(right[0] - left[0], P), modulo(right[1] - left[1], P)];
  if (across === 0n && (up !== 0n || left[1] === 0n)) return undefined;
  const slope = across === 0n ? 3n * left[0] ** 2n * inverse(2n * left[1], P) : up * inverse(across, P);
  const x = modulo(slope * slope - left[0] - right[0], P);
  return [x, modulo(slope * (left[0] - x) - left[1], P)];
}
