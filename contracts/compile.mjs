// Compiles the Solidity sources to the artifacts that are committed beside the code that uses them.
//
//     node contracts/compile.mjs            writes them
//     node contracts/compile.mjs --check    compiles, compares, and exits 1 if a committed artifact is not what the sources give
//
// Nothing is fetched: compiler and library come from tools/node_modules, both pinned by a lock file. The same sources give the
// same bytes on every machine, since sources are named by their path in the repository.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(join(ROOT, "tools", "package.json"));
const LIBRARY = dirname(require.resolve("@openzeppelin/contracts/package.json"));
const LIBRARY_PREFIX = "@openzeppelin/contracts/";

// Where sources live, and where the artifacts of the contracts that they declare go. The second holds what only tests deploy.
const UNITS = [
  { sources: "contracts/src", artifacts: "contracts/src/lockstep_contracts/artifacts" },
  { sources: "contracts/tests/solidity", artifacts: "contracts/tests/artifacts" },
];

const SETTINGS = {
  // The oldest fork that a chain of ours may run: no opcode of a later one is used.
  evmVersion: "paris",
  viaIR: true,
  optimizer: { enabled: true, runs: 1_000_000 },
};

function main() {
  const [mode, ...rest] = process.argv.slice(2);
  if ((mode !== undefined && mode !== "--check") || rest.length > 0) {
    console.error("usage: node contracts/compile.mjs [--check]");
    return 2;
  }
  const artifacts = compile();
  return mode === "--check" ? check(artifacts) : write(artifacts);
}

/** Every artifact by its path in the repository, as text. Throws an Error that holds the compiler's messages. */
function compile() {
  const solc = require("solc");
  const sources = {};
  const folders = new Map();
  for (const unit of UNITS) {
    for (const name of readdirSync(join(ROOT, unit.sources)).filter((name) => name.endsWith(".sol")).sort()) {
      const path = `${unit.sources}/${name}`;
      sources[path] = { content: text(path) };
      folders.set(path, unit.artifacts);
    }
  }
  const outputSelection = { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } };
  const input = { language: "Solidity", sources, settings: { ...SETTINGS, outputSelection } };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: find }));
  const messages = (output.errors ?? []).filter((message) => message.severity !== "info");
  if (messages.length > 0) {
    // A warning is a finding: it is mended, not looked over.
    throw new Error(messages.map((message) => message.formattedMessage).join("\n"));
  }
  const artifacts = new Map();
  for (const [path, folder] of folders) {
    for (const [name, contract] of Object.entries(output.contracts[path] ?? {})) {
      if (contract.evm.bytecode.object !== "") {
        artifacts.set(`${folder}/${name}.json`, artifact(name, path, contract, solc.version()));
      }
    }
  }
  return artifacts;
}

/** Answers an import of the compiler: only the pinned library, and the repository's own sources. */
function find(path) {
  const file = path.startsWith(LIBRARY_PREFIX) ? join(LIBRARY, path.slice(LIBRARY_PREFIX.length)) : join(ROOT, path);
  return existsSync(file) ? { contents: readFileSync(file, "utf8") } : { error: "no such source" };
}

/** The text of an artifact: keys in a fixed order, one item of the ABI a line, so that a change reads well in a review. */
function artifact(name, source, contract, compiler) {
  const deployed = contract.evm.deployedBytecode.object;
  const head = {
    name,
    source,
    compiler,
    settings: SETTINGS,
    library: `@openzeppelin/contracts@${JSON.parse(readFileSync(join(LIBRARY, "package.json"), "utf8")).version}`,
    deployed_bytes: deployed.length / 2,
    // Of the code before immutable values are filled in, as the compiler gives it.
    deployed_sha256: createHash("sha256").update(Buffer.from(deployed, "hex")).digest("hex"),
  };
  const lines = Object.entries(head).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)},`);
  const abi = contract.abi.map((item) => `    ${JSON.stringify(item)}`).join(",\n");
  return `{\n${lines.join("\n")}\n  "abi": [\n${abi}\n  ],\n  "bytecode": "0x${contract.evm.bytecode.object}"\n}\n`;
}

function write(artifacts) {
  for (const unit of UNITS) {
    mkdirSync(join(ROOT, unit.artifacts), { recursive: true });
  }
  for (const path of committed().filter((path) => !artifacts.has(path))) {
    rmSync(join(ROOT, path));
    console.log(`removed  ${path}`);
  }
  for (const [path, content] of artifacts) {
    const isNew = !existsSync(join(ROOT, path)) || text(path) !== content;
    if (isNew) {
      writeFileSync(join(ROOT, path), content);
    }
    console.log(`${isNew ? "written " : "the same"} ${path}`);
  }
  return 0;
}

function check(artifacts) {
  const findings = committed()
    .filter((path) => !artifacts.has(path))
    .map((path) => `${path}: no source declares this contract`);
  for (const [path, content] of artifacts) {
    if (!existsSync(join(ROOT, path))) {
      findings.push(`${path}: missing`);
    } else if (text(path) !== content) {
      findings.push(`${path}: differs from what its source compiles to (${difference(JSON.parse(text(path)), JSON.parse(content))})`);
    }
  }
  if (findings.length > 0) {
    console.error(`${findings.join("\n")}\nrun: make contracts`);
    return 1;
  }
  console.log(`${artifacts.size} contract artifacts are what their sources compile to`);
  return 0;
}

/** Names of the fields in which two artifacts differ. */
function difference(before, after) {
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key])).join(", ") || "its layout";
}

/** Paths of the artifacts that there are. */
function committed() {
  return UNITS.filter((unit) => existsSync(join(ROOT, unit.artifacts))).flatMap((unit) =>
    readdirSync(join(ROOT, unit.artifacts))
      .filter((name) => name.endsWith(".json"))
      .map((name) => `${unit.artifacts}/${name}`),
  );
}

function text(path) {
  return readFileSync(join(ROOT, path), "utf8");
}

try {
  process.exitCode = main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
