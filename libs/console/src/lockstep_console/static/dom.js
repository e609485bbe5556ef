// Elements are made here and nowhere else. What comes from the services is hostile: it becomes text nodes, never markup.

/**
 * An element. Attributes that are null or false are left out; `on` holds listeners. Children are elements, text, or lists of them.
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  made.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== "").map(asNode));
  return made;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/** A section with its heading. */
export function section(title, ...children) {
  return el("section", {}, el("h2", {}, title), ...children);
}

/** Names and values; those without a value are left out. */
export function facts(rows) {
  const shown = rows.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el("dl", { class: "facts" }, shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** A table that scrolls by itself where it is wider than the page. `rows` are lists of cells. */
export function table(caption, headings, rows) {
  const head = el("tr", {}, headings.map((each) => el("th", { scope: "col" }, each)));
  const body = rows.map((row) => el("tr", {}, row.map((cell, index) => (index ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))));
  return el(
    "div",
    { class: "wide", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "hidden" }, caption), el("thead", {}, head), el("tbody", {}, body)),
  );
}

/** A state, decision or phase as a badge. Its colour says nothing that its text does not. */
export function badge(text) {
  return el("span", { class: "badge", "data-kind": String(text).toLowerCase() }, text);
}

/** A moment, in the reader's own time, with UTC as its title. */
export function moment(text) {
  if (!text) return "";
  const at = new Date(text);
  const shown = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return el("time", { datetime: text, title: text }, shown);
}

/** How far away a moment is, in its two largest units. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [unit, name, smaller, part] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
    if (whole >= unit) return `${Math.floor(whole / unit)}${name} ${Math.floor((whole % unit) / smaller)}${part}`;
  }
  return `${whole}s`;
}

/** A deadline with how long there is left, which goes on counting. */
export function deadline(text) {
  if (!text) return "";
  const shown = el("span", { "data-until": text }, moment(text), el("span", {}));
  count(shown);
  return shown;
}

function count(shown) {
  const left = (new Date(shown.dataset.until).getTime() - Date.now()) / 1000;
  shown.className = left < 0 ? "late" : left < 300 ? "soon" : "";
  shown.lastChild.textContent = left < 0 ? ` (${age(-left)} ago)` : ` (in ${age(left)})`;
}

setInterval(() => document.querySelectorAll("[data-until]").forEach(count), 1000);

/** A long value that is copied by a button. */
export function copied(label, value) {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${label}` }, "Copy");
  const code = el("code", { class: "bytes", "data-field": label }, value);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
  return el("div", { class: "copied" }, code, button);
}
