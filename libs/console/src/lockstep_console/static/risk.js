// Money at risk: by asset, and leg by leg.

import { age, badge, el, moment, section, table } from "./dom.js";
import { again } from "./escalations.js";

export function showRisk(main, signal, tell) {
  again("/api/in-doubt", signal, tell, main, (found) => {
    const totals = found.totals.map((each) => [each.text, each.asset, each.legs, age(each.oldest_age_seconds)]);
    const legs = found.legs.map((each) => [
      each.text,
      el("a", { href: `#/plan/${encodeURIComponent(each.plan_id)}` }, each.plan_id),
      badge(each.state),
      each.leg_id,
      each.participant,
      badge(each.doubt),
      moment(each.since),
      age(each.age_seconds),
      each.escalation_ids.map((id, index) => [index ? ", " : "", el("a", { href: `#/escalation/${encodeURIComponent(id)}` }, "escalation")]),
    ]);
    main.replaceChildren(
      el("h1", {}, "Money at risk"),
      el("p", { class: "note" }, "What was ordered and is not known yet, what took effect alone, what is held while people are called, and what is contradicted."),
      totals.length ? section("By asset", table("At risk, by asset", ["Amount", "Asset", "Legs", "Oldest"], totals)) : el("p", {}, "Nothing is at risk."),
      legs.length ? section("By leg", table("At risk, by leg", ["Amount", "Plan", "State", "Leg", "Served by", "Why", "Since", "Age", "Called"], legs)) : "",
    );
  });
}
