// JSON in one reading, and its one writing (RFC 8785): no key twice, no null, no number but integers of 53 bits.

const DEPTH_MAX = 32;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

export class NotStrict extends Error {}

export function parse(octets) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    throw new NotStrict("not UTF-8");
  }
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.blank();
  if (reader.at !== text.length) throw new NotStrict("something stands behind the document");
  return value;
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  blank() {
    while (" \t\n\r".includes(this.text[this.at] ?? "x")) this.at += 1;
  }

  take(mark) {
    this.blank();
    if (this.text[this.at] !== mark) return false;
    this.at += 1;
    return true;
  }

  need(mark) {
    if (!this.take(mark)) throw new NotStrict(`${mark} is missing`);
  }

  value(depth) {
    this.blank();
    const first = this.text[this.at];
    if (first === "{" || first === "[") {
      if (depth === DEPTH_MAX) throw new NotStrict("too deep");
      this.at += 1;
      return first === "{" ? this.object(depth + 1) : this.list(depth + 1);
    }
    if (first === '"') return this.string();
    for (const [word, value] of [["true", true], ["false", false]]) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    return this.integer();
  }

  integer() {
    const form = /-?(?:0|[1-9][0-9]*)(?![0-9.eE])/y;
    form.lastIndex = this.at;
    const found = form.exec(this.text);
    if (found === null || found[0] === "-0" || found[0].length > 17 || !Number.isSafeInteger(Number(found[0]))) {
      throw new NotStrict("no integer of 53 bits");
    }
    this.at = form.lastIndex;
    return Number(found[0]);
  }

  list(depth) {
    const found = [];
    if (this.take("]")) return found;
    do found.push(this.value(depth));
    while (this.take(","));
    this.need("]");
    return found;
  }

  object(depth) {
    const found = Object.create(null);
    if (this.take("}")) return found;
    do {
      this.blank();
      const key = this.string();
      if (key in found) throw new NotStrict("a key stands twice");
      this.need(":");
      found[key] = this.value(depth);
    } while (this.take(","));
    this.need("}");
    return found;
  }

  string() {
    if (this.text[this.at] !== '"') throw new NotStrict("a string is missing");
    let found = "";
    for (this.at += 1; this.text[this.at] !== '"'; ) {
      const char = this.text[this.at];
      if (char === undefined || char < " ") throw new NotStrict("a string does not end, or holds a control character");
      this.at += 1;
      found += char === "\\" ? this.escape() : char;
    }
    this.at += 1;
    if (!found.isWellFormed()) throw new NotStrict("a string is not Unicode");
    return found;
  }

  escape() {
    const char = this.text[this.at];
    this.at += 1;
    if (char === "u") {
      const digits = this.text.slice(this.at, this.at + 4);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw new NotStrict("an escape is cut off");
      this.at += 4;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    if (char === undefined || !Object.hasOwn(ESCAPES, char)) throw new NotStrict("no such escape");
    return ESCAPES[char];
  }
}

export function canonical(value) {
  return Buffer.from(write(value), "utf-8");
}

function write(value) {
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  if (typeof value === "object") {
    const keys = Object.keys(value).sort();
    return `{${keys.map((key) => `${JSON.stringify(key)}:${write(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

// The document in RFC 8785 bytes; undefined where they hold none.
export function canonicalDocument(octets) {
  try {
    const document = parse(octets);
    return canonical(document).equals(octets) ? document : undefined;
  } catch (error) {
    if (error instanceof NotStrict) return undefined;
    throw error;
  }
}

// The document of a signed statement (domain, line feed, RFC 8785 bytes); undefined where it is none of that domain.
export function statement(octets, domain) {
  const head = Buffer.from(`${domain}\n`, "ascii");
  return octets.subarray(0, head.length).equals(head) ? canonicalDocument(octets.subarray(head.length)) : undefined;
}
