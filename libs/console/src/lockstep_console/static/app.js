// The page: which view is shown, what the console's process is doing, and the token where one is asked for.

import { takeToken, useToken } from "./api.js";
import { el } from "./dom.js";
import { showBoard } from "./board.js";
import { showPlan } from "./plan.js";
import { showEscalation, showEscalations } from "./escalations.js";
import { showRisk } from "./risk.js";

const main = document.getElementById("main");
const status = document.getElementById("status");
const stale = document.getElementById("stale");
let leave = new AbortController();

/** What views tell of themselves. */
const tell = {
  live(text) {
    status.textContent = text;
    status.dataset.live = "yes";
    stale.hidden = true;
  },
  lost(refusal) {
    status.textContent = "not live";
    status.dataset.live = "no";
    stale.textContent = `${refusal.reason}: ${refusal.message}. What is shown may be old. Next: ${refusal.next}.`;
    stale.hidden = false;
    if (refusal.reason === "TOKEN_REQUIRED") askForToken();
  },
  refused(place, refusal) {
    if (refusal.name === "AbortError") return;
    if (refusal.reason === "TOKEN_REQUIRED") {
      askForToken();
      return;
    }
    place.replaceChildren(el("p", { class: "refused", role: "alert" }, el("strong", {}, refusal.reason || "ERROR"), ` ${refusal.message}. Next: ${refusal.next}.`));
  },
};

function askForToken() {
  leave.abort();
  stale.hidden = true;
  status.textContent = "token required";
  const field = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const given = (event) => {
    event.preventDefault();
    useToken(field.value);
    show();
  };
  main.replaceChildren(
    el("h1", {}, "Token"),
    el("p", {}, "The console asks for the token that its configuration names. The page keeps it in memory alone: a reload asks again."),
    el("form", { class: "form", on: { submit: given } }, el("label", { for: "token" }, "Token"), field, el("button", { type: "submit" }, "Open")),
  );
  field.focus();
}

const ROUTES = [
  [/^#\/plan\/([^/]+)$/, "board", showPlan],
  [/^#\/escalations$/, "escalations", showEscalations],
  [/^#\/escalation\/([^/]+)$/, "escalations", showEscalation],
  [/^#\/risk$/, "risk", showRisk],
  [/^#?\/?$/, "board", showBoard],
];

function show() {
  leave.abort();
  leave = new AbortController();
  stale.hidden = true;
  status.textContent = "connecting…";
  for (const [pattern, view, showing] of ROUTES) {
    const match = pattern.exec(location.hash);
    if (!match) continue;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    main.replaceChildren(el("p", {}, "Loading…"));
    showing(main, leave.signal, tell, ...match.slice(1).map(decodeURIComponent));
    return;
  }
  if (location.hash !== "#main") main.replaceChildren(el("p", { class: "refused" }, "There is no such view. ", el("a", { href: "#/" }, "To the board")));
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  takeToken();
  show();
  main.focus({ preventScroll: true });
});
takeToken();
show();
