// Of a run: which detectors have no result, and why; and what differs from another run.

import { $, el, getJSON, setText } from "./dom.js";
import { day, number, quantityOf } from "./format.js";

const PROMPT = "prompt";
/** A comparison reads every number of a night. */
const PATIENCE_MS = 330_000;
const MAX_LINES = 200;

export class Reports {
  constructor({ camera, day_obs: dayObs }) {
    this.quantities = camera.quantities;
    this.dayObs = dayObs;
    this.wanted = null;
    for (const [form, run] of [["#holes-form", () => this.lookForHoles()], ["#compare-form", () => this.compare()]]) {
      $(form).addEventListener("submit", (event) => {
        event.preventDefault();
        run();
      });
    }
    $("#holes-run").addEventListener("change", () => this.sayWhichNight());
  }

  /** Offer these runs, the choice that was made kept. */
  offer(runs) {
    for (const [id, preferred] of [["holes-run", this.wanted], ["compare-before", PROMPT], ["compare-after", this.wanted ?? runs[0]]]) {
      const select = $(`#${id}`);
      const names = [PROMPT, ...runs];
      if ([...select.options].map((option) => option.value).join() === names.join()) continue;
      const before = select.value || preferred;
      select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
      select.value = names.includes(before) ? before : PROMPT;
    }
    this.sayWhichNight();
  }

  /** Make a campaign the one that is looked at. */
  choose(run) {
    this.wanted = run;
    for (const id of ["holes-run", "compare-after"]) if ([...$(`#${id}`).options].some((option) => option.value === run)) $(`#${id}`).value = run;
    this.sayWhichNight();
  }

  sayWhichNight() {
    $("#holes-night").placeholder = $("#holes-run").value === PROMPT ? String(this.dayObs ?? "20261120") : "all of it";
  }

  holesOf(run) {
    this.choose(run);
    $("#holes-night").value = "";
    return this.lookForHoles();
  }

  compareWith(before, after) {
    this.choose(after);
    $("#compare-before").value = before;
    return this.compare();
  }

  async look(name, url, timeoutMs, show) {
    const [button, complaint, note] = [$(`#${name}-go`), $(`#${name}-error`), $(`#${name}-note`)];
    complaint.hidden = true;
    delete note.dataset.state;
    setText(note, "looking…");
    button.disabled = true;
    try {
      show(await getJSON(url, { timeoutMs }));
    } catch (error) {
      setText(note, "");
      complaint.hidden = false;
      setText(complaint, error.message);
    } finally {
      button.disabled = false;
    }
  }

  // -- holes -----------------------------------------------------------------------------------------

  lookForHoles() {
    const run = $("#holes-run").value;
    const night = $("#holes-night").value.trim();
    const url = run === PROMPT ? `/api/holes/${encodeURIComponent(night || this.dayObs || "")}` : `/api/campaigns/${encodeURIComponent(run)}/holes${night ? `?night=${encodeURIComponent(night)}` : ""}`;
    return this.look("holes", url, PATIENCE_MS, (found) => this.showHoles([found].flat()));
  }

  showHoles(nights) {
    const sum = (name) => nights.reduce((total, night) => total + (night[name] ?? 0), 0);
    const note = $("#holes-note");
    const raws = nights.every((night) => night.n_raws !== null) ? `${sum("n_raws")} raws` : "raws not looked at";
    if (sum("n_missing")) note.dataset.state = "bad";
    setText(note, `${nights.length === 1 ? day(nights[0].day_obs) : `${nights.length} nights`}, ${nights[0]?.run ?? ""}: ${sum("n_exposures")} exposures, ${raws}, ${sum("n_results")} results, ${sum("n_missing")} missing${sum("n_excluded") ? `, ${sum("n_excluded")} switched off` : ""}`);
    const holes = nights.flatMap((night) => night.holes);
    $("#holes").replaceChildren(
      el("thead", {}, el("tr", {}, ["Exposure", "Type", "Pipeline", "Missing", "Why"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, holes.length ? holes.slice(0, MAX_LINES).map((hole) => el("tr", {},
        el("td", {}, el("a", { href: `/exposure/${hole.exposure_id}` }, String(hole.exposure_id))), el("td", {}, hole.image_type), el("td", {}, hole.pipeline),
        el("td", {}, `${Object.values(hole.reasons).flat().length} of ${hole.n_expected}`),
        el("td", { class: "wrap" }, Object.entries(hole.reasons).map(([why, names]) => el("div", { title: names.join(" ") }, el("b", {}, names.slice(0, 5).join(" ") + (names.length > 5 ? ` and ${names.length - 5} more` : "")), `: ${why}`))))) : el("tr", {}, el("td", { colspan: 5, class: "dim" }, sum("n_exposures") ? "Nothing is missing" : "There is no raw and no result")),
        holes.length > MAX_LINES ? el("tr", {}, el("td", { colspan: 5, class: "dim" }, `and ${holes.length - MAX_LINES} more`)) : null));
  }

  // -- compare ---------------------------------------------------------------------------------------

  compareUrl(page) {
    const percent = Number($("#compare-rel").value.trim() || "0.1");
    const query = new URLSearchParams({ before: $("#compare-before").value, rel: Number.isFinite(percent) ? String(percent / 100) : $("#compare-rel").value });
    if (page) query.set("page", "true");
    return `/api/campaigns/${encodeURIComponent($("#compare-after").value)}/compare?${query}`;
  }

  compare() {
    const page = this.compareUrl(true);
    return this.look("compare", this.compareUrl(false), PATIENCE_MS, (found) => this.showChanges(found, page));
  }

  showChanges(found, page) {
    const counts = Object.entries(found.counts).map(([kind, n]) => `${n} ${kind}`).join(", ");
    const note = $("#compare-note");
    if (!found.is_good) note.dataset.state = "bad";
    note.replaceChildren(`${found.before} and ${found.after}: ${found.n_exposures} exposures, ${found.n_values} values, ${found.is_good ? "nothing differs by more than is allowed" : counts} `, el("a", { href: page, target: "_blank", rel: "noopener" }, "with plots"));
    const text = (value, key) => number(value, Math.max(quantityOf(key, this.quantities).decimals, 3));
    $("#changes").replaceChildren(
      el("thead", {}, el("tr", {}, ["Metric", "Values", "Outside", "Worst / allowed", found.before, found.after, "Change"].map((title, at) => el("th", { scope: "col", class: at ? "num" : null }, title)))),
      el("tbody", {}, found.metrics.slice(0, MAX_LINES).map((one) => el("tr", {}, el("td", { title: one.metric }, el("span", { class: "state", "data-state": one.n_outside ? "partial" : "complete" }, one.metric)),
        [String(one.n), String(one.n_outside), one.worst === null ? "nothing allowed" : number(one.worst, 2), text(one.median_before, one.metric), text(one.median_after, one.metric), text(one.median_change, one.metric)].map((cell) => el("td", { class: "num" }, cell)))),
        found.metrics.length ? null : el("tr", {}, el("td", { colspan: 7, class: "dim" }, "No number to compare"))));
    const findings = found.findings.slice(0, MAX_LINES);
    $("#findings").replaceChildren(...(findings.length ? [
      el("thead", {}, el("tr", {}, ["Finding", "Where", "How"].map((title) => el("th", { scope: "col" }, title)))),
      el("tbody", {}, findings.map((one) => el("tr", {}, el("td", {}, one.kind), el("td", {}, one.where), el("td", { class: "wrap" }, one.message)))),
    ] : []));
  }
}
