// What failed for good in an exposure, with tracebacks; what failed alike is one entry, so that one cause is not two hundred lines.

import { el } from "./dom.js";
import { DASH } from "./format.js";

export function drawFailures(box, failures, camera) {
  box.hidden = !failures.length;
  const name = (number) => camera.detectors.find((place) => place.id === number)?.name ?? "";
  const alike = new Map();
  for (const failure of failures) {
    const key = JSON.stringify([failure.pipeline, failure.code, failure.message]);
    alike.set(key, [...(alike.get(key) ?? []), failure]);
  }
  const entry = (group) => {
    const [first] = group;
    const who = group.length === 1 ? name(first.detector) : `${group.length} detectors`;
    const names = group.length === 1 ? [] : [el("p", {}, group.map((one) => [one, name(one.detector)]).sort(([, a], [, b]) => a.localeCompare(b))
      .map(([one, text]) => el("a", { href: `?detector=${one.detector}` }, `${text} `)))];
    const attempts = [...new Set(group.map((one) => one.attempts ?? DASH))].sort().join(" or ");
    return el("details", {}, el("summary", {}, el("span", { class: "state", "data-state": "failed" }, `${who} ${first.pipeline ?? ""}`), ` ${first.message}`,
      el("span", { class: "dim" }, ` ${first.code}, ${attempts} attempt${attempts === "1" ? "" : "s"}`)), ...names, el("pre", {}, first.traceback ?? "no traceback was kept"));
  };
  box.replaceChildren(el("header", {}, el("h2", {}, "Failures"), el("span", { class: "dim" }, String(failures.length))),
    ...[...alike.values()].sort((a, b) => b.length - a.length).map(entry));
}
