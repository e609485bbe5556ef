// From the bytes of a bundle and of a trust file to a report.

import { Case, NotChecked } from "./case.mjs";
import { CHECKS, CLAIMS, CORE, openQuestions } from "./checks.mjs";
import { BUNDLE, DOCUMENT_BYTES_MAX, TRUST } from "./documents.mjs";
import { FormBroken } from "./forms.mjs";
import { checkRegistry } from "./registry.mjs";
import { NotStrict, parse } from "./strict-json.mjs";

const FORMAT = "lockstep/report/v1";
const FINDINGS_MAX = 20;
const MARKS = { PASSED: "ok", FAILED: "FAILED", NOT_CHECKED: "--" };
export const EXIT_CODES = { PROVED: 0, NOT_PROVED: 1, FAILED: 1, UNREADABLE: 2 };

export const unreadable = (place, message) => ({ format: FORMAT, verdict: "UNREADABLE", place, message });

export function verify(bundle, trust) {
  let given;
  try {
    given = new Case(read(bundle, BUNDLE, "bundle"), read(trust, TRUST, "trust"));
    checkTrust(given.trust);
  } catch (error) {
    if (error instanceof FormBroken) return unreadable(error.place, error.rule);
    throw error;
  }
  const checks = results(given);
  const passed = new Set(checks.filter((each) => each.result === "PASSED").map((each) => each.name));
  const whole = (needs) => needs.every((name) => passed.has(name));
  const failed = checks.some((each) => each.result === "FAILED");
  const proved = whole(CORE) ? "PROVED" : "NOT_PROVED";
  return {
    format: FORMAT,
    verdict: failed ? "FAILED" : proved,
    plan_id: passed.has("PLAN") ? given.header.plan_id : "",
    plan_digest: given.planDigest,
    checks,
    proved: CLAIMS.filter(([needs]) => whole(needs)).map(([, says]) => says(given)).filter((claim) => claim !== ""),
    not_proved: openQuestions(given, passed),
    messages: passed.has("MESSAGES") ? given.messages : [],
  };
}

function read(octets, form, name) {
  if (octets.length > DOCUMENT_BYTES_MAX) throw new FormBroken(name, `must have at most ${DOCUMENT_BYTES_MAX} bytes`);
  let document;
  try {
    document = parse(octets);
  } catch (error) {
    if (!(error instanceof NotStrict)) throw error;
    const rule = "must be strict JSON: UTF-8, no key twice, no null, no number but integers of 53 bits, not too deep";
    throw new FormBroken(name, rule);
  }
  form(document, name);
  return document;
}

function checkTrust(trust) {
  if ("journal" in trust && "keys" in trust.journal === "first_key" in trust.journal) {
    throw new FormBroken("trust.journal", "must name keys or first_key, and not both");
  }
  checkRegistry(trust);
}

// Every check in its order, each made once those that it relies on have passed.
function results(given) {
  const made = new Map();
  CHECKS.forEach(([name, needs, make], index) => {
    made.set(name, { number: index + 1, name, ...result(given, needs, make, made) });
  });
  return [...made.values()];
}

function result(given, needs, make, before) {
  const missing = needs.find((name) => before.get(name).result !== "PASSED");
  if (missing !== undefined) return { result: "NOT_CHECKED", note: `relies on ${missing}` };
  try {
    const findings = make(given);
    return findings.length === 0 ? { result: "PASSED" } : { result: "FAILED", findings: findings.slice(0, FINDINGS_MAX) };
  } catch (error) {
    if (error instanceof NotChecked) return { result: "NOT_CHECKED", note: error.message };
    throw error;
  }
}

// A report for people.
export function text(report) {
  if (report.verdict === "UNREADABLE") return `UNREADABLE: ${report.place} ${report.message}\n`;
  const lines = [`plan     ${report.plan_id}`, `digest   ${report.plan_digest}`, ""];
  for (const each of report.checks) {
    const note = "note" in each ? `  ${each.note}` : "";
    lines.push(`${String(each.number).padStart(2)} ${each.name.padEnd(20)} ${MARKS[each.result]}${note}`);
    for (const found of each.findings ?? []) lines.push(`      ${found.place} ${found.message}`);
  }
  for (const [title, claims] of [["proved", report.proved], ["not proved by any bundle", report.not_proved]]) {
    lines.push("", `${title}:`, ...claims.map((each) => `  - ${each}`));
  }
  for (const each of report.messages) {
    lines.push(`  message  ${each.leg_id} ${each.uetr ?? each.reference} ${each.message_id} ${each.message_sha256}`);
  }
  return [...lines, "", report.verdict, ""].join("\n");
}
