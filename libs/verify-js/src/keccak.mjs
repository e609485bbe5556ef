// Keccak-256 as Ethereum uses it: Keccak[c=512] with the padding of the submission, not that of FIPS 202.

const RATE = 136;
const MASK = (1n << 64n) - 1n;
const ROTATIONS = [1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44].map(BigInt);
const LANES = [10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1];
const CONSTANTS = constants();

function constants() {
  const found = [];
  let register = 1;
  for (let round = 0; round < 24; round += 1) {
    let constant = 0n;
    for (let power = 0; power < 7; power += 1) {
      if (register & 1) constant |= 1n << ((1n << BigInt(power)) - 1n);
      register = (register << 1) ^ (register & 0x80 ? 0x171 : 0);
    }
    found.push(constant);
  }
  return found;
}

const rotated = (lane, by) => ((lane << by) | (lane >> (64n - by))) & MASK;

function permute(state) {
  for (const constant of CONSTANTS) {
    const columns = [0, 1, 2, 3, 4].map((x) => state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20]);
    for (let x = 0; x < 5; x += 1) {
      const change = columns[(x + 4) % 5] ^ rotated(columns[(x + 1) % 5], 1n);
      for (let y = 0; y < 25; y += 5) state[x + y] ^= change;
    }
    let carried = state[1];
    LANES.forEach((lane, index) => {
      const next = state[lane];
      state[lane] = rotated(carried, ROTATIONS[index]);
      carried = next;
    });
    for (let y = 0; y < 25; y += 5) {
      const row = state.slice(y, y + 5);
      for (let x = 0; x < 5; x += 1) state[x + y] = row[x] ^ (~row[(x + 1) % 5] & MASK & row[(x + 2) % 5]);
    }
    state[0] ^= constant;
  }
}

export function keccak256(octets) {
  const padded = Buffer.alloc(Math.ceil((octets.length + 1) / RATE) * RATE);
  octets.copy(padded);
  padded[octets.length] = 0x01;
  padded[padded.length - 1] |= 0x80;
  const state = new Array(25).fill(0n);
  for (let start = 0; start < padded.length; start += RATE) {
    for (let lane = 0; lane < RATE / 8; lane += 1) state[lane] ^= padded.readBigUInt64LE(start + 8 * lane);
    permute(state);
  }
  const found = Buffer.alloc(32);
  for (let lane = 0; lane < 4; lane += 1) found.writeBigUInt64LE(state[lane], 8 * lane);
  return found;
}
