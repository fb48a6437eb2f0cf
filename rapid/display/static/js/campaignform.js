// The form of a new campaign: what it says is shown as the JSON that a script would send.

import { change, clearErrors, showError } from "./access.js";
import { $, el, setText } from "./dom.js";

/** Words between commas and blanks; numbers as numbers. */
const listOf = (text) => text.split(/[,;\s]+/).filter(Boolean).map((item) => (/^\d+$/.test(item) ? Number(item) : item));

export class CampaignForm {
  /** @param onSent called with the campaign as it was accepted */
  constructor(root, facts, { onSent }) {
    Object.assign(this, { root, facts, onSent, inputs: new Map() });
    this.build();
    root.addEventListener("input", () => this.review());
    root.addEventListener("change", () => this.review());
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.review();
  }

  field(path, title, input, note = "") {
    input.id ||= `c-${path}`;
    this.inputs.set(path, input);
    return el("div", { class: "field", "data-field": path }, el("label", { for: input.id }, title), input, note && el("span", { class: "dim" }, note), el("p", { class: "error", role: "alert", hidden: true }));
  }

  build() {
    const { image_types: types, pipelines, day_obs: dayObs } = this.facts;
    const text = (attributes) => el("input", { autocomplete: "off", spellcheck: "false", ...attributes });
    const options = (first, names) => [el("option", { value: "" }, first), ...names.map((name) => el("option", { value: name }, name.replaceAll("_", " ")))];
    this.body = el("pre", { id: "body" });
    this.rest = el("p", { class: "error", id: "form-error", role: "alert", hidden: true });
    this.note = el("p", { class: "note", id: "form-note", role: "status" });
    this.root.replaceChildren(
      this.field("run", "name", text({ maxlength: 63, placeholder: "newpsf: results are stored under it" })),
      this.field("nights", "nights", text({ placeholder: `${dayObs ?? 20261120}, or FIRST-LAST` })),
      this.field("where", "where", text({ maxlength: 1000, placeholder: "airmass < 1.5 and psf_fwhm_arcsec_median > 1.2" })),
      this.field("image_types", "of type", el("select", {}, options("any", types))),
      this.field("holes", "holes only", el("input", { type: "checkbox" }), "detectors that have no result"),
      this.field("pipeline", "pipeline", el("select", {}, options("by the rules", pipelines))),
      el("details", {}, el("summary", {}, "More"),
        this.field("exposures", "only exposures", text({ placeholder: "ids, ranges" })),
        this.field("exclude", "leave out", el("textarea", { rows: 2, spellcheck: "false", placeholder: "ids, ranges" })),
        this.field("of", "run looked at", text({ placeholder: "prompt: its metrics and holes" })),
        this.field("detectors", "detectors", text({ placeholder: "a pattern; all there are raws of" })),
        this.field("config", "settings", el("textarea", { rows: 2, spellcheck: "false", placeholder: '{"quality": {"n_max_stars": 100}}' })),
        this.field("label", "label", text({ maxlength: 200, placeholder: "for people who read the list" }))),
      el("div", { class: "buttons" }, el("button", { class: "primary", id: "begin" }, "Begin")),
      this.rest, this.note,
      el("details", { id: "as-json" }, el("summary", {}, "As JSON, for a script"), this.body));
  }

  /** The order as it stands in the form; throws a complaint with its field. */
  order() {
    const value = (path) => this.inputs.get(path).value.trim();
    const order = { run: value("run"), nights: listOf(value("nights")) };
    for (const path of ["where", "pipeline", "of", "detectors", "label"]) if (value(path)) order[path] = value(path);
    for (const path of ["exposures", "exclude"]) if (value(path)) order[path] = listOf(value(path));
    if (value("image_types")) order.image_types = [value("image_types")];
    if (this.inputs.get("holes").checked) order.holes = true;
    if (value("config")) {
      try {
        order.config = JSON.parse(value("config"));
      } catch (error) {
        throw Object.assign(new Error(`is no JSON: ${error.message}`), { field: "config" });
      }
    }
    return order;
  }

  review() {
    try {
      setText(this.body, JSON.stringify(this.order(), null, 2));
    } catch {
      setText(this.body, "the settings are no JSON yet");
    }
  }

  async send() {
    clearErrors(this.root);
    setText(this.note, "");
    const button = $("#begin", this.root);
    button.disabled = true;
    try {
      const found = await change("POST", "/api/campaigns", this.order());
      setText(this.note, found.state === "posted" ? "Posted; no head node has taken it yet." : `${found.run}: ${found.state}`);
      this.onSent(found);
    } catch (error) {
      showError(this.root, error, this.rest);
    } finally {
      button.disabled = false;
    }
  }
}
