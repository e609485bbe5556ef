// Who may do what, as the auditor holds it in the trust file: persons and agents with keys, roles and limits, and the matrices of duties by version.

import { FormBroken, flag, form, integer, oneOf, several, shape, text } from "./forms.mjs";
import { keccak256 } from "./keccak.mjs";

export const OPENING = ["MAKE", "APPROVE", "RELEASE", "VALIDATE"];
const GATES = [...OPENING, "CANCEL"];
const PLURAL = ["APPROVE", "RELEASE", "VALIDATE"];
const ROLES = ["maker", "approver", "releaser", "validator", "operator", "auditor"];
const LIMITED_ROLES = ["maker", "approver", "releaser", "validator"];
const UNLIMITED = "unlimited";
const SIGNATURES_MAX = 7;

export const units = form(
  (value) => typeof value === "string" && /^(?:0|[1-9][0-9]{0,77})$/.test(value) && BigInt(value) < 2n ** 256n,
  "must be a string of digits that is a number below 2^256, without leading zeros",
);

const TOKEN = /^eip155:[1-9][0-9]{0,17}\/erc20:0x([0-9a-fA-F]{40})$/;
const isCurrency = (value) => /^[A-Z]{3}$/.test(value);

// EIP-55.
function withChecksum(address) {
  const marks = keccak256(Buffer.from(address.toLowerCase(), "ascii")).toString("hex");
  return [...address.toLowerCase()].map((digit, at) => (Number.parseInt(marks[at], 16) >= 8 ? digit.toUpperCase() : digit)).join("");
}

function isToken(value) {
  const found = TOKEN.exec(value);
  return found !== null && found[1] === withChecksum(found[1]);
}

function assetForm(...kinds) {
  const rule = "must be an ISO 4217 currency or a CAIP-19 ERC-20 id with the address's checksum";
  return form((value) => typeof value === "string" && kinds.some((kind) => kind(value)), rule);
}

export const currency = assetForm(isCurrency);
export const token = assetForm(isToken);
const asset = assetForm(isCurrency, isToken);

function once(named, rule) {
  const seen = new Set();
  for (const [place, name] of named) {
    if (seen.has(name)) throw new FormBroken(place, rule);
    seen.add(name);
  }
}

const listed = several(shape({ asset, minor_units_max: units }), 0, 1_000);

function limits(value, place) {
  if (value === UNLIMITED) return;
  if (!Array.isArray(value)) throw new FormBroken(place, `must be a list of assets with their limits, or ${UNLIMITED}`);
  listed(value, place);
  once(value.map((each, at) => [`${place}[${at}].asset`, each.asset]), "must be unique in the list");
}

const same = (names, each) => Object.fromEntries(names.map((name) => [name, each]));
const threshold = shape({ asset, from_minor_units: units, signatures: integer(2, SIGNATURES_MAX) });
const roles = several(oneOf(...ROLES), 1, ROLES.length);
const rule = shape({ roles }, { thresholds: several(threshold, 0, 1_000), agents: limits });

export const MATRICES = several(
  shape({
    version: integer(1),
    gates: shape(same(GATES, rule)),
    different_persons: several(several(oneOf(...GATES), 0, GATES.length), 0, 16),
  }),
  0,
  1_000,
);

export function persons(keys) {
  const required = { actor_id: text("[\\s\\S]+", "must be a string that is not empty"), roles, keys };
  return several(shape(required, { limits: shape({}, same(LIMITED_ROLES, limits)), agent: flag }), 0, 100_000);
}

// What must hold of persons, participants and matrices beyond their forms: what no participant would load is refused here too.
export function checkRegistry(trust) {
  if ("persons" in trust && !("matrices" in trust)) {
    const missing = "must be present where persons are: by the matrix of duties it is judged how many had to sign, and who could";
    throw new FormBroken("trust.matrices", missing);
  }
  const [people, services, matrices] = [trust.persons ?? [], trust.participants ?? [], trust.matrices ?? []];
  once(services.map((each, at) => [`trust.participants[${at}].name`, each.name]), "must be unique");
  once(people.map((each, at) => [`trust.persons[${at}].actor_id`, each.actor_id]), "must be unique");
  once([...keysOf("participants", services), ...keysOf("persons", people)], "must be registered once");
  people.forEach((person, at) => checkLimits(person, `trust.persons[${at}].limits`));
  once(matrices.map((each, at) => [`trust.matrices[${at}].version`, each.version]), "must be unique");
  matrices.forEach((matrix, at) => checkMatrix(matrix, `trust.matrices[${at}]`));
}

function keysOf(name, holders) {
  return holders.flatMap((holder, index) =>
    holder.keys.map((key, number) => {
      const place = `trust.${name}[${index}].keys[${number}]`;
      if (key.not_before >= key.not_after) throw new FormBroken(`${place}.not_after`, "must be after not_before");
      return [`${place}.public_key`, key.public_key];
    }),
  );
}

function checkLimits(person, place) {
  const said = person.limits ?? {};
  for (const role of LIMITED_ROLES) {
    if (person.roles.includes(role) && !(role in said)) {
      throw new FormBroken(`${place}.${role}`, `must be present: a list of assets with their limits, or ${UNLIMITED}`);
    }
    if (role in said && !person.roles.includes(role)) throw new FormBroken(`${place}.${role}`, "must be a role of the person");
  }
}

function checkMatrix(matrix, place) {
  for (const gate of GATES) {
    const [said, here] = [matrix.gates[gate], `${place}.gates.${gate}`];
    if (said.roles.includes("auditor")) throw new FormBroken(`${here}.roles`, "must not name auditor, who only reads");
    if ((said.thresholds ?? []).length > 0 && !PLURAL.includes(gate)) {
      throw new FormBroken(`${here}.thresholds`, "must be absent: one person's signature is enough");
    }
    if ("agents" in said && !OPENING.includes(gate)) {
      throw new FormBroken(`${here}.agents`, "must be absent: an agent stops a plan by its role");
    }
    checkThresholds(said, here);
  }
  if (!matrix.different_persons.some((group) => OPENING.every((gate) => group.includes(gate)))) {
    const missing = "must have a list with MAKE, APPROVE, RELEASE and VALIDATE: they are four different persons";
    throw new FormBroken(`${place}.different_persons`, missing);
  }
}

// More persons for more, and no agent where several sign: four eyes are persons' eyes.
function checkThresholds(said, place) {
  const [last, first] = [new Map(), new Map()];
  (said.thresholds ?? []).forEach((each, index) => {
    const [start, here] = [BigInt(each.from_minor_units), `${place}.thresholds[${index}]`];
    const [before, signatures] = last.get(each.asset) ?? [0n, 1];
    if (start <= before) throw new FormBroken(`${here}.from_minor_units`, "must be more than the asset's one before, and at least 1");
    if (each.signatures <= signatures) throw new FormBroken(`${here}.signatures`, "must be more than the asset's one before");
    last.set(each.asset, [start, each.signatures]);
    if (!first.has(each.asset)) first.set(each.asset, start);
  });
  if (!("agents" in said) || first.size === 0) return;
  if (said.agents === UNLIMITED) throw new FormBroken(`${place}.agents`, "must be limited below the gate's thresholds");
  said.agents.forEach((limit, index) => {
    if (first.has(limit.asset) && BigInt(limit.minor_units_max) >= first.get(limit.asset)) {
      throw new FormBroken(`${place}.agents[${index}].minor_units_max`, "must be below the asset's first threshold");
    }
  });
}

// -- what the matrix and the limits ask for; amounts are pairs of an asset and its minor units

function keeps(said, amounts) {
  if (said === UNLIMITED) return true;
  const allowed = new Map(said.map((each) => [each.asset, BigInt(each.minor_units_max)]));
  return amounts.every(([name, many]) => many <= (allowed.get(name) ?? 0n));
}

export function affords(person, said, amounts) {
  const own = person.limits ?? {};
  return person.roles.some((role) => said.roles.includes(role) && role in own && keeps(own[role], amounts));
}

export function admits(person, said, amounts) {
  return !(person.agent ?? false) || ("agents" in said && keeps(said.agents, amounts));
}

export function needed(said, amounts) {
  const known = new Map(amounts);
  const asked = (said.thresholds ?? []).filter((each) => (known.get(each.asset) ?? 0n) >= BigInt(each.from_minor_units));
  return Math.max(1, ...asked.map((each) => each.signatures));
}

export const groups = (matrix) => [OPENING, ...matrix.different_persons];
