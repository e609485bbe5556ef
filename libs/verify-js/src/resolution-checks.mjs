// Checks of what operators decided about exceptions, and of what was reversed by their order.

import { finding, NotChecked } from "./case.mjs";
import { gateHash, gateRecords, shownGates } from "./people-checks.mjs";
import { OPENING } from "./registry.mjs";
import { sha256Hex } from "./hashes.mjs";
import { canonical } from "./strict-json.mjs";

const SIGNERS = 2;
const RESOLVED = "exception.resolved";
// What a resolution that moves the plan must say.
const CAUSES = { UNWIND_ORDERED: "REVERSE", REDRIVEN: "RETRY" };

export function resolutions(given) {
  given.requireTrust("persons", "the operators");
  const [found, seen, told] = [[], new Set(), given.told("resolution")];
  for (const [entry, mandate] of told) {
    const said = mandate.resolution;
    const digest = sha256Hex(canonical(said));
    const wrong = [...about(given, entry, said), ...signed(given, entry, mandate)];
    if (mandate.digest !== digest) wrong.push("does not have the digest that is recorded");
    if (seen.has(digest)) wrong.push("takes effect a second time");
    seen.add(digest);
    found.push(...wrong.map((each) => finding(`${entry.place}.payload.resolution`, each)));
    if (wrong.length === 0 && said.verb === "REVERSE") {
      given.orders.push(order(mandate.signatures.map((each) => statementOf(said, each))));
    }
  }
  found.push(...unresolved(given, new Set(told.map(([entry]) => entry))));
  if (found.length === 0 && told.length === 0) {
    given.requirePayloads([]);
    throw new NotChecked("operators resolved nothing");
  }
  return given.requirePayloads(found);
}

// What is wrong with what was resolved.
function about(given, entry, said) {
  const wrong = [];
  if (said.plan_digest !== given.planDigest) wrong.push("is about another plan");
  const answers = said.verb === "RESOLVE" && said.leg_id !== "";
  const legless = said.leg_id !== "" && !["RETRY", "RESOLVE"].includes(said.verb);
  if ("executed" in said !== answers || "evidence" in said !== answers || legless) {
    wrong.push("says too much or too little for its verb");
  }
  const raised = payloads(given, "exception.raised").filter(([each]) => before(each, entry)).map(([, payload]) => payload);
  const named = new Map(
    raised.filter((each) => "escalation" in each).map((each) => [each.escalation.escalation_id, each.leg?.leg_id ?? ""]),
  );
  if (!named.has(said.escalation_id)) {
    // Of what was erased, and of chains from before exceptions were named in them, nobody can say which one it was.
    if (given.erased.length === 0 && raised.every((each) => "escalation" in each)) {
      wrong.push("is about an exception that was never raised");
    }
  } else if (said.leg_id !== "" && said.leg_id !== named.get(said.escalation_id)) {
    wrong.push("names another leg than the exception that it is about");
  }
  const moved = given.payloads.get(given.entries.indexOf(entry)).transition;
  if (moved !== undefined && !(Object.hasOwn(CAUSES, moved.cause ?? "") && CAUSES[moved.cause] === said.verb)) {
    wrong.push(`is ${said.verb}, which does not move the plan so`);
  }
  return wrong;
}

// What is wrong with who signed.
function signed(given, entry, mandate) {
  const [wrong, people, barred] = [[], [], openers(given, entry)];
  const [marks, at] = [mandate.signatures, entry.document.event_time];
  if (marks.length !== SIGNERS) wrong.push(`takes ${SIGNERS} operators' signatures, and ${marks.length} are there`);
  marks.forEach((each, index) => {
    const [owner, key] = given.owner(each.key_id) ?? [];
    if (owner === undefined || !key.made(each.signature, statementOf(mandate.resolution, each))) {
      wrong.push(`has a signature, its number ${index}, that is not by a trusted person over this resolution`);
      return;
    }
    const person = owner.actor_id;
    people.push(person);
    if (!key.validAt(at) || each.expires_at <= at) {
      wrong.push(`is signed by ${person} with a key or a statement that did not count then`);
    }
    if (!owner.roles.includes("operator")) wrong.push(`is signed by ${person}, who is no operator`);
    if (person !== each.actor) wrong.push(`names ${each.actor} where ${person} signed`);
    if (barred.has(person)) wrong.push(`is signed by ${person}, who had signed a gate of the plan`);
  });
  if (new Set(people).size !== people.length) wrong.push("is signed twice by the same person");
  if (marks.length > 0 && (entry.document.type !== RESOLVED || entry.document.actor !== marks.at(-1).actor)) {
    wrong.push("is recorded as another actor's, or as something else");
  }
  return wrong;
}

// Who had signed one of the gates that need different persons, as far as the chain records it up to there.
function openers(given, entry) {
  const shown = shownGates(given);
  const found = gateRecords(given)
    .filter(([each, record]) => before(each, entry) && OPENING.includes(record.gate))
    .map(([, record]) => shown.get(`${gateHash(given, record)} ${record.signature}`)?.signer);
  return new Set(found.filter((each) => each !== undefined));
}

// The plan's own policy may reverse without operators, and what they answered for a leg may have the plan go on.
function unresolved(given, withResolution) {
  const found = [];
  let answered = false;
  for (const [entry, payload] of payloads(given, RESOLVED)) {
    if (!withResolution.has(entry)) {
      const cause = payload.transition?.cause;
      const byPolicy = cause === "UNWIND_ORDERED" && given.header.policy.unwind_automatically;
      if (!byPolicy && !(cause === "REDRIVEN" && answered)) {
        found.push(finding(entry.place, "resolves an exception, and shows no operators' resolution"));
      }
    }
    const said = payload.resolution?.resolution;
    answered = said !== undefined && said.verb === "RESOLVE" && said.leg_id !== "";
  }
  if (given.seal?.outcome === "MIXED" && given.erased.length === 0) {
    const settled = given.told("resolution").map(([, mandate]) => mandate.resolution);
    if (!settled.some((each) => each.verb === "RESOLVE" && each.leg_id === "")) {
      found.push(finding(given.entries.at(-1).place, "seals a plan as settled outside, and no operators said so"));
    }
  }
  return found;
}

export function reversals(given) {
  given.requireTrust("persons", "the operators");
  const answers = given.outcomes.filter(({ document }) => ["REVERSED", "REVERSAL_REFUSED"].includes(document.kind));
  if (answers.length === 0) throw new NotChecked("nothing was reversed");
  const legs = given.told("leg").map(([, leg]) => leg);
  const refused = legs.filter((leg) => leg.outcome?.kind === "REFUSED").map((leg) => leg.leg_id);
  const policyOrder = sha256Hex(canonical({ domain: "lockstep/reverse/v1", policy_of_plan: given.planDigest }));
  const found = answers
    .filter(({ document }) => {
      const others = refused.some((leg) => leg !== document.leg_id);
      const byPolicy = document.order === policyOrder && given.header.policy.unwind_automatically && others;
      return !given.orders.includes(document.order) && !byPolicy;
    })
    .map((each) => finding(each.place, "answers an order to reverse that nobody who may is shown to have given"));
  if (found.length > 0 && given.erased.length > 0) throw new NotChecked("payloads were erased");
  return found;
}

// What names an order of two operators: their statements have nonces, so each order is one of its own.
function order(statements) {
  const hashes = statements.map((each) => sha256Hex(each)).sort();
  return sha256Hex(canonical({ domain: "lockstep/reverse/v1", statements: hashes }));
}

function statementOf(said, { nonce, expires_at }) {
  return Buffer.concat([Buffer.from("lockstep/resolution/v1\n", "ascii"), canonical({ resolution: said, nonce, expires_at })]);
}

function payloads(given, type) {
  return [...given.payloads]
    .sort(([left], [right]) => left - right)
    .map(([index, payload]) => [given.entries[index], payload])
    .filter(([entry]) => entry.document.type === type);
}

const before = (entry, other) => entry.document.sequence < other.document.sequence;

// Who resolved what, in words.
export function resolved(given) {
  const parts = given.told("resolution").map(([, { resolution: said, signatures }]) => {
    const leg = said.leg_id === "" ? "" : ` of the leg ${said.leg_id}`;
    return `${said.escalation_id} by ${said.verb}${leg}, signed by ${signatures.map((each) => each.actor).join(" and ")}`;
  });
  return `two operators each time, neither with a part in the plan's gates, resolved: ${parts.join("; ")}`;
}
