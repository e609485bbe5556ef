// The board: how many plans stand in each state, and the plans, newest first, live.

import { follow } from "./api.js";
import { badge, deadline, el, moment } from "./dom.js";

const WAY = ["DRAFT", "INITIATED", "PRECONDITIONS_PENDING", "READY_FOR_PREPARE", "PREPARED", "EXECUTING", "VALIDATING", "COMMITTED", "CLOSED"];
/** More lines are not drawn: they are found by filtering. */
const LINES_MAX = 200;
/** Filters survive a look at a plan. */
const wanted = { states: new Set(), party: "", text: "" };

export function showBoard(main, signal, tell) {
  const plans = new Map();
  let states = [];
  const counts = el("div", { class: "counts", role: "group", "aria-label": "Plans by state" });
  const party = el("select", { id: "party" });
  const text = el("input", { id: "text", type: "search", value: wanted.text, placeholder: "id, reference, reason, leg" });
  const note = el("p", { class: "note", role: "status" });
  const list = el("ul", { class: "plans", "aria-label": "Plans, newest first" });
  const form = el("form", { class: "filters", role: "search" }, el("label", { for: "party" }, "Party"), party, el("label", { for: "text" }, "Text"), text);
  form.addEventListener("submit", (event) => event.preventDefault());
  party.addEventListener("change", () => { wanted.party = party.value; draw(); });
  text.addEventListener("input", () => { wanted.text = text.value; draw(); });

  function draw() {
    drawCounts();
    drawParties();
    const all = [...plans.values()].sort((a, b) => (a.create_time < b.create_time ? 1 : a.create_time > b.create_time ? -1 : 0));
    const chosen = all.filter(matches);
    const shown = chosen.slice(0, LINES_MAX);
    const before = new Map([...list.children].map((each) => [each.dataset.plan, each]));
    shown.forEach((plan, index) => {
      let line = before.get(plan.plan_id);
      before.delete(plan.plan_id);
      if (!line || line.shown !== plan) {
        const fresh = lineOf(plan, Boolean(line));
        if (line?.contains(document.activeElement)) queueMicrotask(() => fresh.querySelector("a").focus({ preventScroll: true }));
        line?.replaceWith(fresh);
        line = fresh;
      }
      if (list.children[index] !== line) list.insertBefore(line, list.children[index] ?? null);
    });
    for (const line of before.values()) line.remove();
    note.textContent = shown.length < chosen.length ? `The newest ${shown.length} of ${chosen.length} plans are shown: filter to see others.` : chosen.length === 0 ? "No plans." : "";
  }

  function drawCounts() {
    const found = Object.fromEntries(states.map((each) => [each, 0]));
    for (const plan of plans.values()) found[plan.state] = (found[plan.state] ?? 0) + 1;
    for (const [state, count] of Object.entries(found)) {
      let button = counts.querySelector(`[data-state="${CSS.escape(state)}"]`);
      if (!button) {
        button = el("button", { type: "button", "data-state": state }, el("span", { class: "count" }), el("span", { class: "label" }, state.replaceAll("_", " ").toLowerCase()));
        button.addEventListener("click", () => {
          if (!wanted.states.delete(state)) wanted.states.add(state);
          draw();
        });
        counts.append(button);
      }
      button.setAttribute("aria-pressed", wanted.states.has(state));
      button.firstChild.textContent = count;
      button.classList.toggle("none", count === 0);
    }
  }

  function drawParties() {
    const found = [...new Set([...plans.values()].flatMap((plan) => plan.parties.map((each) => each.id)))].sort();
    if (wanted.party && !found.includes(wanted.party)) found.push(wanted.party);
    const options = ["", ...found];
    if (options.length !== party.options.length || options.some((each, index) => party.options[index].value !== each)) {
      party.replaceChildren(...options.map((each) => el("option", { value: each }, each || "all parties")));
    }
    party.value = wanted.party;
  }

  main.replaceChildren(el("h1", {}, "Plans"), counts, form, note, list);
  follow("/api/events", signal, (event, document) => {
    switch (event) {
      case "board":
        states = document.states;
        plans.clear();
        for (const plan of document.plans) plans.set(plan.plan_id, plan);
        break;
      case "plan":
        plans.set(document.plan_id, document);
        break;
      case "gone":
        plans.delete(document.plan_id);
        break;
      case "stale":
        tell.lost(document);
        return false;
      default:
    }
    if (document.as_of) tell.live(`live, as of ${new Date(document.as_of).toLocaleTimeString()}`);
    if (event === "board" || event === "plan" || event === "gone") draw();
    return false;
  }, tell.lost);
}

function matches(plan) {
  if (wanted.states.size && !wanted.states.has(plan.state)) return false;
  if (wanted.party && !plan.parties.some((each) => each.id === wanted.party)) return false;
  const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
  const parties = plan.parties.flatMap((each) => [each.id, each.name]);
  const legs = plan.legs.flatMap((each) => [each.leg_id, each.what]);
  const text = [plan.plan_id, plan.reference, plan.reason, plan.outcome, ...parties, ...legs].filter(Boolean).join(" ").toLowerCase();
  return words.every((each) => text.includes(each));
}

function lineOf(plan, moved) {
  const place = WAY.indexOf(plan.state);
  const track = el("ol", { class: "track", "aria-hidden": "true" }, WAY.map((state, index) => el("li", { class: index < place ? "done" : index === place ? "here" : null })));
  const waits = (plan.waiting ?? []).map(waitsFor).join("; ");
  const line = el(
    "li",
    { "data-plan": plan.plan_id, class: moved ? "moved" : null },
    el(
      "a",
      { href: `#/plan/${encodeURIComponent(plan.plan_id)}` },
      el("span", { class: "title" }, plan.reference || plan.plan_id),
      badge(plan.state),
      plan.outcome ? badge(plan.outcome) : null,
      plan.escalations_open ? badge(`${plan.escalations_open} escalation${plan.escalations_open === 1 ? "" : "s"}`) : null,
      plan.state === "CLOSED" && plan.outcome !== "COMMITTED" ? null : track,
    ),
    el("p", { class: "sub" }, el("code", {}, plan.plan_id), " · ", plan.parties.map((each) => each.name || each.id).join(" – "), " · created ", moment(plan.create_time)),
    el("p", { class: "sub" }, plan.legs.filter((each) => each.what).map((each) => `${each.leg_id}: ${each.what}${each.phase ? ` (${each.phase.toLowerCase()})` : ""}`).join(" · ")),
    waits || plan.reason ? el("p", { class: "sub" }, plan.reason ? el("strong", {}, `${plan.reason} `) : null, waits ? `waits for ${waits}` : null) : null,
    plan.state === "CLOSED" ? null : el("p", { class: "sub" }, "deadline ", deadline(plan.deadline)),
  );
  line.shown = plan;
  return line;
}

/** What is awaited, from whom. */
export function waitsFor(waiting) {
  const what = { GATE: `${(waiting.gate ?? "").toLowerCase()} signature`, EXECUTE: "execution", OPERATORS: "operators" }[waiting.kind] ?? `leg ${waiting.leg_id ?? ""}`;
  const who = waiting.who?.length ? ` by ${waiting.who.join(", ")}` : "";
  return `${waiting.signatures_missing > 1 ? `${waiting.signatures_missing} times ` : ""}${what}${who}`;
}
