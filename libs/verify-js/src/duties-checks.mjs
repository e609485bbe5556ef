// Checks of who decided: whether those who signed could, for so much, and whether they were as many as the plan's matrix of duties asks for.

import { finding, NotChecked } from "./case.mjs";
import { DECIDING, gateHash, shownGates } from "./people-checks.mjs";
import { admits, affords, groups, needed, OPENING } from "./registry.mjs";

const WORDS = { MAKE: "made", APPROVE: "approved", RELEASE: "released", VALIDATE: "validated" };

export function matrix(given) {
  const version = given.header.sod_version;
  given.matrix = given.requireTrust("matrices", "the matrices of duties").find((each) => each.version === version);
  if (given.matrix !== undefined) return [];
  return [finding("plan.header", `names version ${version} of the matrix of duties, which the trust file lacks`)];
}

const ruleOf = (given, gate) => given.matrix.gates[gate];

export function roles(given) {
  return given.gates
    .filter(({ signer, document }) => !given.person(signer).roles.some((role) => ruleOf(given, document.gate).roles.includes(role)))
    .map((each) => finding(each.place, `is by ${each.signer}, who has no role for the gate ${each.document.gate}`));
}

export function duties(given) {
  return given.gates
    .filter(({ signer, document: { gate } }, index) => {
      const others = given.gates.slice(0, index).filter((other) => other.signer === signer && other.document.gate !== gate);
      return groups(given.matrix).some((group) => group.includes(gate) && others.some((other) => group.includes(other.document.gate)));
    })
    .map((each) => finding(each.place, `is by ${each.signer}, who signed another gate of the plan`));
}

// What limits and the rule for agents apply to: whoever has the role may stop a plan, whatever it is worth.
const bounded = (given) =>
  given.gates.filter(({ document }) => OPENING.includes(document.gate) && document.verdict === "APPROVE");

const inWords = (amounts) => amounts.map(([asset, many]) => `${many} minor units of ${asset}`).join(", ");

export function limits(given) {
  const { amounts } = given;
  return bounded(given)
    .filter((each) => !affords(given.person(each.signer), ruleOf(given, each.document.gate), amounts))
    .map((each) =>
      finding(each.place, `is by ${each.signer}, who may not sign the gate ${each.document.gate} for ${inWords(amounts)}`),
    );
}

export function agents(given) {
  const { amounts } = given;
  return bounded(given)
    .filter((each) => !admits(given.person(each.signer), ruleOf(given, each.document.gate), amounts))
    .map((each) =>
      finding(each.place, `is by the agent ${each.signer}, and the gate ${each.document.gate} takes none for ${inWords(amounts)}`),
    );
}

export function quorum(given) {
  const told = given.told("decision");
  if (told.length === 0) {
    given.requirePayloads([]);
    throw new NotChecked("the plan was never released");
  }
  const place = `${told.at(-1)[0].place}.payload.decision`;
  const found = [];
  for (const gate of DECIDING) {
    const signers = deciders(given, gate);
    const twice = [...new Set(signers.filter((who, at) => signers.indexOf(who) < at))].sort(byCodePoint);
    found.push(...twice.map((who) => finding(place, `counts ${who} twice at the gate ${gate}`)));
    found.push(...tooFew(given, gate, signers, place));
  }
  if (committed(given)) found.push(...tooFew(given, "VALIDATE", validators(given), given.entries.at(-1).place));
  return given.requirePayloads(found);
}

const committed = (given) => given.seal?.outcome === "COMMITTED";

// The order of UTF-8, in which names with characters beyond the first plane stand behind all others.
const byCodePoint = (left, right) => Buffer.compare(Buffer.from(left, "utf-8"), Buffer.from(right, "utf-8"));

function tooFew(given, gate, signers, place) {
  const [there, wanted] = [new Set(signers).size, needed(ruleOf(given, gate), given.amounts)];
  return there < wanted ? [finding(place, `rests on ${there} of ${wanted} persons at the gate ${gate}`)] : [];
}

// Who opened a gate that the decision rests on, once for each signature that is shown.
function deciders(given, gate) {
  const shown = shownGates(given);
  return given
    .told("decision")
    .at(-1)[1]
    .gates.filter((each) => each.gate === gate && each.verdict === "APPROVE")
    .map((each) => shown.get(`${gateHash(given, each)} ${each.signature}`)?.signer)
    .filter((each) => each !== undefined);
}

// Who validated the evidence that was committed, with signatures that stood then: after the last delivery, which has to be validated anew.
function validators(given) {
  const shown = shownGates(given);
  const moves = given.told("transition").map(([entry, moved]) => [entry.document, moved.to]);
  const since = Math.max(0, ...moves.filter(([, to]) => to === "VALIDATING").map(([document]) => document.sequence));
  const at = moves.filter(([, to]) => to === "COMMITTED").map(([document]) => document.event_time).sort().at(-1) ?? "";
  const found = given
    .told("gate")
    .filter(([entry, record]) => entry.document.sequence > since && record.expires_at > at)
    .map(([, record]) => record)
    .filter(({ gate, verdict }) => gate === "VALIDATE" && verdict === "APPROVE")
    .filter((record) => record.evidence_digest === given.seal.evidence_digest)
    .map((record) => shown.get(`${gateHash(given, record)} ${record.signature}`)?.signer)
    .filter((each) => each !== undefined);
  return [...new Set(found)].sort(byCodePoint);
}

// Who decided, in words.
export function decided(given) {
  const people = DECIDING.map((gate) => [gate, [...new Set(deciders(given, gate))].sort(byCodePoint)]);
  if (committed(given)) people.push(["VALIDATE", validators(given)]);
  const { amounts } = given;
  const parts = people.map(([gate, who]) => {
    const wanted = needed(ruleOf(given, gate), amounts);
    return `${WORDS[gate]} by ${who.length} of ${wanted} required persons (${who.join(", ")})`;
  });
  const said = `the plan was ${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}, none of them at two gates`;
  const within = `each in a role and within the limits of version ${given.matrix.version} of the matrix of duties`;
  return `${said}, ${within}${amounts.length > 0 ? `, for ${inWords(amounts)}` : ""}`;
}
