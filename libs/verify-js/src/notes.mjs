// Checkpoints as signed notes: C2SP signed-note, tlog-checkpoint, tlog-cosignature.

import { octets } from "./forms.mjs";
import { sha256, verifies } from "./hashes.mjs";

const NAME = "[!-*,-~]{1,255}";
const NOTE = new RegExp(
  `^(?<text>(?<origin>${NAME})\\n(?<size>0|[1-9][0-9]{0,18})\\n(?<root>[A-Za-z0-9+/]{43}=)\\n)\\n` +
    `(?<lines>(?:— ${NAME} [A-Za-z0-9+/]{8,4096}={0,2}\\n){1,16})$`,
);
const SECONDS_END = 253_402_300_800n;

export class Note {
  constructor(text, origin, size, root, signatures) {
    Object.assign(this, { text, origin, size, root, signatures });
  }

  signedBy(name, key) {
    const mark = keyHash(name, 1, key);
    return this.signatures.some(
      (each) => each.name === name && each.octets.subarray(0, 4).equals(mark) && verifies(key, this.text, each.octets.subarray(4)),
    );
  }

  cosignedAt(name, key) {
    const mark = keyHash(name, 4, key);
    for (const each of this.signatures) {
      if (each.name !== name || !each.octets.subarray(0, 4).equals(mark) || each.octets.length !== 76) continue;
      const seconds = each.octets.readBigUInt64BE(4);
      const signed = Buffer.concat([Buffer.from(`cosignature/v1\ntime ${seconds}\n`), this.text]);
      if (seconds < SECONDS_END && verifies(key, signed, each.octets.subarray(12))) {
        return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}Z`;
      }
    }
    return undefined;
  }
}

function keyHash(name, kind, key) {
  return sha256(`${name}\n`, Buffer.from([kind]), key).subarray(0, 4);
}

// The signed checkpoint in the bytes; undefined where there is none, or it is written in another way.
export function parseNote(given) {
  let found;
  try {
    found = NOTE.exec(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(given));
  } catch {
    return undefined;
  }
  if (found === null || BigInt(found.groups.size) >= 2n ** 63n) return undefined;
  const { text, origin, size, root, lines } = found.groups;
  const signatures = lines.slice(0, -1).split("\n").map((line) => line.split(" "));
  const coded = [root, ...signatures.map((parts) => parts[2])];
  if (coded.some((each) => octets(each).toString("base64") !== each)) return undefined;
  const read = signatures.map((parts) => ({ name: parts[1], octets: octets(parts[2]) }));
  return new Note(Buffer.from(text), origin, BigInt(size), octets(root), read);
}
