// One plan: where it stands, who is awaited, its legs, how it came there, and what the journal holds of it.

import { follow, get } from "./api.js";
import { badge, copied, deadline, el, facts, moment, section, table } from "./dom.js";
import { waitsFor } from "./board.js";
import { showBytes } from "./sign.js";

/** Changes that come together are shown together. */
const TOGETHER_MILLISECONDS = 150;

export function showPlan(main, signal, tell, planId) {
  const base = `/api/plans/${encodeURIComponent(planId)}`;
  const parts = Object.fromEntries(["head", "waiting", "gates", "legs", "timeline", "escalations", "journal"].map((name) => [name, el("div", { id: name })]));
  // What somebody opened stays as it was shown, also when the plan moves on meanwhile: bytes do not change under the eyes of who compares them.
  const bytes = el("div", { id: "bytes", "aria-live": "polite" });
  let timer = 0;
  let asking = 0;
  let placed = false;

  async function look() {
    asking += 1;
    const mine = asking;
    try {
      const plan = await get(base, signal);
      if (mine !== asking) return;
      if (!placed) {
        placed = true;
        main.replaceChildren(parts.head, parts.waiting, bytes, parts.gates, parts.legs, parts.timeline, parts.escalations, parts.journal);
      }
      draw(plan);
      const journal = await get(`${base}/journal`, signal).catch((refusal) => refusal);
      if (mine !== asking || journal.name === "AbortError") return;
      if (journal instanceof Error) tell.refused(parts.journal, journal);
      else parts.journal.replaceChildren(journalOf(journal));
    } catch (refusal) {
      if (refusal.name === "AbortError") return;
      if (placed) tell.lost(refusal);
      else tell.refused(main, refusal);
    }
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(look, TOGETHER_MILLISECONDS);
  }

  function draw(plan) {
    parts.head.replaceChildren(headOf(plan));
    redraw(parts.waiting, waitingOf(plan, bytes, base, signal, tell));
    parts.gates.replaceChildren(gatesOf(plan));
    parts.legs.replaceChildren(section("Legs", el("div", { class: "legs" }, plan.legs.map(legOf))));
    parts.timeline.replaceChildren(timelineOf(plan));
    parts.escalations.replaceChildren(escalationsOf(plan));
  }

  signal.addEventListener("abort", () => clearTimeout(timer));
  follow(`${base}/events`, signal, (event, document) => {
    if (event === "refused") {
      tell.lost(document);
      return false;
    }
    tell.live(event === "end" ? "closed: nothing more happens to it" : `live, ${new Date().toLocaleTimeString()}`);
    if (event === "snapshot" || event === "changed" || event === "end") soon();
    return event === "end";
  }, (refusal) => {
    if (placed) tell.lost(refusal);
    else tell.refused(main, refusal);
  });
}

/** Replace what is there, and give the focus back to the button that had it. */
function redraw(place, fresh) {
  const held = place.contains(document.activeElement) ? document.activeElement.dataset.opens : undefined;
  place.replaceChildren(fresh);
  if (held) place.querySelector(`[data-opens="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

function headOf(plan) {
  return el(
    "div",
    {},
    el("h1", {}, plan.reference || plan.plan_id),
    el("p", { class: "badges" }, badge(plan.state), plan.decision ? badge(plan.decision) : null, plan.outcome ? badge(plan.outcome) : null),
    plan.reason ? el("p", { class: "refused" }, el("strong", {}, plan.reason), ` ${plan.reason_leg_id ?? ""} ${plan.reason_detail ?? ""}`) : null,
    plan.findings.length
      ? el("div", { class: "refused", role: "alert" }, el("p", {}, "What the coordinator shows does not hold by the console's own registry. Do not sign; call somebody."), el("ul", {}, plan.findings.map((each) => el("li", {}, el("strong", {}, each.rule), ` ${each.leg_id} ${each.message}`))))
      : null,
    facts([
      ["Plan", el("code", {}, plan.plan_id)],
      ["Parties", plan.parties.map((each) => `${each.name} (${each.id}${each.lei ? `, LEI ${each.lei}` : ""})`).join(", ")],
      ["Deadline", deadline(plan.deadline)],
      ["Created", moment(plan.create_time)],
      ["Decided", moment(plan.decide_time)],
      ["Delegated to leg", plan.delegated_leg_id],
      ["Digest", el("code", { class: "bytes" }, plan.plan_digest)],
      ["Trace", plan.trace_id ? el("code", {}, plan.trace_id) : ""],
    ]),
  );
}

function waitingOf(plan, bytes, base, signal, tell) {
  const waiting = plan.waiting.map((each) => {
    const awaited = plan.gates_awaited.find((gate) => gate.gate === each.gate && each.kind === "GATE");
    const open = (verdict) => () => {
      const heading = el("h2", { tabindex: -1 }, `To sign: ${awaited.gate} ${verdict}`);
      const place = el("div", {});
      bytes.replaceChildren(el("section", { class: "signing" }, heading, place));
      heading.focus();
      showBytes(place, `${base}/gates/${encodeURIComponent(awaited.gate)}?verdict=${verdict}`, signal, tell);
    };
    return el(
      "li",
      {},
      el("span", {}, waitsFor(each)),
      each.until ? el("span", {}, ", until ", deadline(each.until)) : null,
      awaited
        ? el(
          "div",
          { class: "actions" },
          el("p", { class: "note" }, awaited.does),
          el("button", { type: "button", "data-opens": `${awaited.gate} APPROVE`, on: { click: open("APPROVE") } }, `Show the bytes to ${awaited.gate.toLowerCase()}`),
          el("button", { type: "button", class: "plain", "data-opens": `${awaited.gate} REJECT`, on: { click: open("REJECT") } }, "Show the bytes to reject"),
        )
        : null,
    );
  });
  return section("Waits for", waiting.length ? el("ul", { class: "waiting" }, waiting) : el("p", {}, plan.state === "CLOSED" ? "Nothing: it is closed." : "Nothing that anyone outside must do."));
}

function gatesOf(plan) {
  if (!plan.gates.length) return section("Signed", el("p", {}, "Nobody has signed yet."));
  const rows = plan.gates.map((each) => [
    each.gate,
    badge(each.verdict),
    each.actor_id,
    moment(each.sign_time),
    each.good ? "holds, by the console's registry" : el("strong", { class: "late" }, "NOT shown by the console's registry"),
  ]);
  return section("Signed", table("Gates that were signed", ["Gate", "Verdict", "By", "At", "Signature"], rows));
}

function legOf(leg) {
  const vote = leg.vote && (leg.vote.answer === "YES" ? `YES, ${leg.vote.promise ?? ""}` : `NO: ${leg.vote.reason ?? ""} ${leg.vote.outside_code ?? ""} ${leg.vote.detail ?? ""}`);
  const outcome = (told) => told && el("span", {}, `${told.kind} `, told.reason ? `${told.reason} ${told.outside_code ?? ""} ${told.detail ?? ""} ` : "", moment(told.outcome_time));
  return el(
    "article",
    { class: "leg", "data-leg": leg.leg_id },
    el("h3", {}, leg.leg_id, " ", badge(leg.phase || "NOT ASKED"), leg.trouble ? badge(leg.trouble) : null),
    facts([
      ["What", leg.what],
      ["From", leg.from && el("code", {}, leg.from)],
      ["To", leg.to && el("code", {}, leg.to)],
      ["Served by", leg.participant],
      ["After", leg.depends_on?.join(", ")],
      ["Vote", vote],
      ["Promised until", leg.vote?.expire_time && deadline(leg.vote.expire_time)],
      ["Outcome", outcome(leg.outcome)],
      ["Reversal", outcome(leg.reversal)],
      ["Operators say", leg.operators && (leg.operators.executed ? "it took effect" : "it took no effect")],
      ["Shown by", leg.shown_by],
      ["Evidence", evidenceOf(leg)],
    ]),
  );
}

function evidenceOf(leg) {
  const found = leg.reversal?.evidence ?? leg.outcome?.evidence ?? leg.operators?.evidence ?? leg.vote?.evidence;
  if (!found || !Object.keys(found).length) return "";
  return el("details", {}, el("summary", {}, `${found.kind}`), el("pre", {}, JSON.stringify(found, null, 2)));
}

function timelineOf(plan) {
  const items = plan.transitions.map((each) => el(
    "li",
    {},
    el("span", { class: "when" }, moment(each.transition_time)),
    badge(each.to_state),
    each.decision ? badge(each.decision) : null,
    el("span", { class: "cause" }, `${each.cause}, journal entry ${each.journal_sequence ?? "?"}`),
  ));
  return section("Timeline", el("ol", { class: "timeline" }, items));
}

function escalationsOf(plan) {
  if (!plan.escalations.length) return el("div", {});
  const rows = plan.escalations.map((each) => [
    el("a", { href: `#/escalation/${encodeURIComponent(each.escalation_id)}` }, each.reason),
    each.leg_id ?? "",
    each.detail,
    moment(each.raise_time),
    each.resolve_time ? moment(each.resolve_time) : badge("OPEN"),
  ]);
  return section("Escalations", table("Escalations of the plan", ["Reason", "Leg", "What happened", "Raised", "Closed"], rows));
}

function journalOf(journal) {
  const findings = journal.findings.length
    ? el("ul", { class: "findings" }, journal.findings.map((each) => el("li", {}, el("strong", {}, each.rule), ` ${each.message}`)))
    : null;
  const rows = journal.entries.map((each) => [
    each.sequence,
    each.payload ? el("details", {}, el("summary", {}, each.type), el("pre", {}, JSON.stringify(each.payload, null, 2))) : each.type,
    `${each.actor}${each.actor_role ? ` (${each.actor_role})` : ""}`,
    moment(each.event_time),
    el("code", { title: each.entry_hash }, each.entry_hash.slice(0, 16)),
  ]);
  return section(
    "Journal",
    el("p", { class: journal.verdict === "BROKEN" ? "refused" : "verdict", "data-verdict": journal.verdict }, badge(journal.verdict), " ", journal.says),
    el("p", { class: "note" }, "Links, hashes and signatures were recomputed by the console, with its own registry of keys."),
    findings,
    journal.head_hash ? facts([["Hash of the last entry", copied("head", journal.head_hash)]]) : null,
    table("Entries of the journal", ["No.", "Type", "By", "At", "Hash"], rows),
  );
}
