// What a person would sign, byte for byte, and the command that signs it. Nothing is signed in the browser: it has no key.

import { get } from "./api.js";
import { copied, el, facts, moment } from "./dom.js";

/** Ask for the bytes and show them in `place`. */
export async function showBytes(place, path, signal, tell) {
  place.replaceChildren(el("p", {}, "Loading…"));
  let shown;
  try {
    shown = await get(path, signal);
  } catch (refusal) {
    tell.refused(place, refusal);
    return;
  }
  place.replaceChildren(
    el("pre", { class: "lines" }, shown.lines.join("\n")),
    facts([
      ["Command", el("div", {}, copied("command", shown.command), el("p", { class: "note" }, `Put your own key in place of ${shown.key}: a file, ssh-agent:… or pkcs11:…. It computes the statement anew, shows it, and signs these bytes and no others; where the plan has changed, it refuses.`))],
      ["Good until", moment(shown.until)],
      ["SHA-256", copied("sha256", shown.sha256)],
      [`Bytes, hex (${shown.byte_count})`, copied("hex", shown.hex)],
      ["Bytes, base64", copied("base64", shown.base64)],
      ["Bytes, as text", el("code", { class: "bytes", "data-field": "text" }, shown.text)],
    ]),
  );
}
