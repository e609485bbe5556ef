// What a document must look like, field by field, and the first place where it does not.

export class FormBroken extends Error {
  constructor(place, rule) {
    super(`${place} ${rule}`);
    this.place = place;
    this.rule = rule;
  }
}

export function form(holds, rule) {
  return (value, place) => {
    if (!holds(value)) throw new FormBroken(place, rule);
  };
}

export function text(pattern, rule) {
  const whole = new RegExp(`^(?:${pattern})$`);
  return form((value) => typeof value === "string" && whole.test(value), rule);
}

export function oneOf(...values) {
  return form((value) => values.includes(value), `must be ${values.join(" or ")}`);
}

export function octets(text) {
  return Buffer.from(text, "base64");
}

export function base64(least, most) {
  const many = least === most ? `${least} bytes` : `${least} to ${most} bytes`;
  return form((value) => {
    if (typeof value !== "string") return false;
    const found = octets(value);
    return found.toString("base64") === value && found.length >= least && found.length <= most;
  }, `must be base64 of ${many}`);
}

const DIGITS = /^(?:0|[1-9][0-9]{0,18})$/;
export const number = form(
  (value) => typeof value === "string" && DIGITS.test(value) && BigInt(value) < 2n ** 63n,
  "must be a string of digits that is a number below 2^63, without leading zeros",
);

export function integer(least, most = Number.MAX_SAFE_INTEGER) {
  return form((value) => typeof value === "number" && value >= least && value <= most, `must be an integer from ${least} to ${most}`);
}

export const flag = form((value) => typeof value === "boolean", "must be true or false");

export function several(of, least, most) {
  return (value, place) => {
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      throw new FormBroken(place, `must be a list of ${least} to ${most}`);
    }
    value.forEach((each, index) => of(each, `${place}[${index}]`));
  };
}

export function shape(required, optional = {}, open = false) {
  const fields = [...Object.entries(required), ...Object.entries(optional)];
  const known = new Set(fields.map(([name]) => name));
  return (value, place) => {
    if (typeof value !== "object" || Array.isArray(value)) throw new FormBroken(place, "must be an object");
    const under = (name) => (place ? `${place}.${name}` : name);
    const unknown = open ? undefined : Object.keys(value).sort().find((name) => !known.has(name));
    if (unknown !== undefined) throw new FormBroken(under(unknown), "must not be there");
    const missing = Object.keys(required).find((name) => !(name in value));
    if (missing !== undefined) throw new FormBroken(under(missing), "must be present");
    for (const [name, check] of fields) if (name in value) check(value[name], under(name));
  };
}

export function holds(check, value) {
  if (value === undefined) return false;
  try {
    check(value, "");
    return true;
  } catch (error) {
    if (error instanceof FormBroken) return false;
    throw error;
  }
}
