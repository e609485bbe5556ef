// node verify.mjs BUNDLE --trust TRUST [--json]: what a plan's bundle of evidence proves (docs/bundle.md). No dependencies.
// Exit codes: 0 proved, 1 something fails or the whole is not proved, 2 not readable.

import { closeSync, openSync, readSync } from "node:fs";
import { parseArgs } from "node:util";

import { DOCUMENT_BYTES_MAX } from "./src/documents.mjs";
import { EXIT_CODES, text, unreadable, verify } from "./src/verifying.mjs";

function read(path) {
  const file = openSync(path, "r");
  try {
    const parts = [];
    let total = 0;
    while (total <= DOCUMENT_BYTES_MAX) {
      const part = Buffer.alloc(1 << 20);
      const many = readSync(file, part, 0, part.length, null);
      if (many === 0) break;
      parts.push(part.subarray(0, many));
      total += many;
    }
    return Buffer.concat(parts);
  } finally {
    closeSync(file);
  }
}

function main() {
  let given;
  try {
    given = parseArgs({ allowPositionals: true, options: { trust: { type: "string" }, json: { type: "boolean" } } });
  } catch {
    given = { positionals: [], values: {} };
  }
  if (given.positionals.length !== 1 || given.values.trust === undefined) {
    process.stderr.write("usage: node verify.mjs BUNDLE --trust TRUST [--json]\n");
    return 2;
  }
  const octets = [];
  let report = null;
  for (const path of [given.positionals[0], given.values.trust]) {
    try {
      octets.push(read(path));
    } catch (error) {
      report ??= unreadable(path, `cannot be read: ${error.code}`);
    }
  }
  report ??= verify(octets[0], octets[1]);
  process.stdout.write(given.values.json ? `${JSON.stringify(report, null, 2)}\n` : text(report));
  return EXIT_CODES[report.verdict];
}

process.exitCode = main();
