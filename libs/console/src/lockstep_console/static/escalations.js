// Escalations: which are open, what is at risk, what each verb would do now, and the bytes that operators sign.

import { get } from "./api.js";
import { age, badge, el, facts, moment, section, table } from "./dom.js";
import { showBytes } from "./sign.js";

const AGAIN_MILLISECONDS = 5_000;

/** Ask again and again while the view is open. */
export async function again(path, signal, tell, place, draw) {
  let drawn = false;
  while (!signal.aborted) {
    try {
      draw(await get(typeof path === "function" ? path() : path, signal));
      drawn = true;
      tell.live(`as of ${new Date().toLocaleTimeString()}, asked every ${AGAIN_MILLISECONDS / 1000} s`);
    } catch (refusal) {
      if (signal.aborted || refusal.name === "AbortError") return;
      if (drawn) tell.lost(refusal);
      else tell.refused(place, refusal);
      if (refusal.reason === "TOKEN_REQUIRED") return;
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, AGAIN_MILLISECONDS);
      signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
    });
  }
}

export function showEscalations(main, signal, tell) {
  let which = "open";
  let leaving = new AbortController();
  const list = el("div", { id: "escalations" });
  const choice = el("select", { id: "which" }, ["open", "closed", "all"].map((each) => el("option", { value: each }, each)));
  choice.addEventListener("change", () => { which = choice.value; begin(); });
  signal.addEventListener("abort", () => leaving.abort());

  function begin() {
    leaving.abort();
    leaving = new AbortController();
    again(`/api/escalations?which=${which}`, leaving.signal, tell, list, (found) => list.replaceChildren(tableOf(found.escalations)));
  }

  main.replaceChildren(el("h1", {}, "Escalations"), el("form", { class: "filters" }, el("label", { for: "which" }, "Which"), choice), list);
  begin();
}

function tableOf(found) {
  if (!found.length) return el("p", {}, "No escalations.");
  const rows = found.map((each) => [
    el("a", { href: `#/escalation/${encodeURIComponent(each.escalation_id)}` }, each.reason),
    each.resolve_time ? "closed" : badge("OPEN"),
    el("a", { href: `#/plan/${encodeURIComponent(each.plan_id)}` }, each.plan_id),
    badge(each.state),
    each.at_risk_text.join(", ") || "nothing",
    age(each.age_seconds ?? 0),
    signedText(each),
  ]);
  return table("Escalations, newest first", ["Reason", "Stands", "Plan", "State", "At risk", "Age", "Signed"], rows);
}

function signedText(file) {
  return (file.resolutions ?? []).map((each) => {
    const who = (each.signatures ?? []).map((signature) => signature.actor_id).join(", ") || "nobody any more";
    return `${each.verb}${each.leg_id ? ` ${each.leg_id}` : ""} by ${who}${each.effect_time ? ", took effect" : `, ${each.missing} missing`}`;
  }).join("; ");
}

export function showEscalation(main, signal, tell, escalationId) {
  const path = `/api/escalations/${encodeURIComponent(escalationId)}`;
  const head = el("div", {});
  const form = el("div", {});
  const bytes = el("div", { id: "bytes", "aria-live": "polite" });
  let options = "";
  again(path, signal, tell, main, (file) => {
    if (!head.isConnected) main.replaceChildren(head, form, bytes);
    head.replaceChildren(headOf(file));
    // The form is left alone while its choices are the same: somebody may be writing in it.
    const offered = JSON.stringify(file.options);
    if (offered !== options) {
      options = offered;
      form.replaceChildren(formOf(file, path, bytes, signal, tell));
    }
  });
}

function headOf(file) {
  const risk = (file.legs ?? []).map((each) => [each.leg_id, `${each.amount} ${each.asset}`, each.participant, badge(each.doubt), moment(each.since), age(each.age_seconds)]);
  return el(
    "div",
    {},
    el("h1", {}, file.reason),
    el("p", { class: "badges" }, file.resolve_time ? badge("CLOSED") : badge("OPEN"), badge(file.state), file.decision ? badge(file.decision) : null),
    el("p", {}, file.detail),
    facts([
      ["Escalation", el("code", {}, file.escalation_id)],
      ["Plan", el("a", { href: `#/plan/${encodeURIComponent(file.plan_id)}` }, file.plan.reference || file.plan_id)],
      ["Leg", file.leg_id],
      ["Raised", moment(file.raise_time)],
      ["Closed", moment(file.resolve_time)],
      ["At risk now", file.at_risk_text.join(", ") || "nothing"],
      ["Operators who may sign", (file.who ?? []).join(", ")],
      ["Signed so far", signedText(file) || "nobody"],
    ]),
    risk.length ? section("Money at risk", table("Legs at risk", ["Leg", "Amount", "Served by", "Why", "Since", "Age"], risk)) : null,
  );
}

function formOf(file, path, bytes, signal, tell) {
  if (!file.options.length) return section("What may be done", el("p", {}, file.resolve_time ? "Nothing more: it is closed." : "The coordinator allows nothing now."));
  const label = (option) => `${option.verb}${option.leg_id ? ` of leg ${option.leg_id}` : ""}`;
  const chosen = () => file.options[Number(fields.querySelector("input[name=option]:checked").value)];
  const fields = el(
    "fieldset",
    {},
    el("legend", {}, "What the coordinator allows now; two operators must sign the same"),
    file.options.map((option, index) => el("label", { class: "option" }, el("input", { type: "radio", name: "option", value: index, checked: index === 0 }), el("span", {}, el("strong", {}, label(option)), `: ${option.does}`))),
  );
  const executed = el("select", { id: "executed" }, el("option", { value: "yes" }, "it took effect"), el("option", { value: "no" }, "it took no effect"));
  const evidence = el("textarea", { id: "evidence", rows: 6, spellcheck: "false" });
  const shown = el(
    "div",
    { class: "resolving", hidden: true },
    el("label", { for: "executed" }, "The leg"), executed,
    el("label", { for: "evidence" }, "What shows it: JSON or YAML of bank, chain or instrument, the same as in the file evidence.json that the command is given"), evidence,
  );
  const detail = el("input", { id: "detail", required: true, maxlength: 500, autocomplete: "off" });
  fields.addEventListener("change", () => { shown.hidden = !(chosen().verb === "RESOLVE" && chosen().leg_id); });
  fields.dispatchEvent(new Event("change"));
  const submit = (event) => {
    event.preventDefault();
    const option = chosen();
    const query = new URLSearchParams({ verb: option.verb, detail: detail.value });
    if (option.leg_id) query.set("leg", option.leg_id);
    if (!shown.hidden) {
      query.set("executed", executed.value);
      query.set("evidence", evidence.value);
    }
    const heading = el("h2", { tabindex: -1 }, `To sign: ${label(option)}`);
    const place = el("div", {});
    bytes.replaceChildren(el("section", { class: "signing" }, heading, place));
    heading.focus();
    showBytes(place, `${path}/resolution?${query}`, signal, tell);
  };
  return section(
    "What may be done",
    el(
      "form",
      { class: "form", on: { submit } },
      fields,
      shown,
      el("label", { for: "detail" }, "Why, in one sentence: it is journaled, and both operators sign the same"), detail,
      el("button", { type: "submit" }, "Show the bytes to sign"),
    ),
  );
}
