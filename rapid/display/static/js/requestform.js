// The form of a new request: what it says is shown as the JSON that a script would send.

import { change, clearErrors, showError } from "./access.js";
import { $, el, setText } from "./dom.js";

const WAYS = [["exposures", "exposures"], ["group", "group"], ["next", "next"], ["sequence", "sequence"]];

export class RequestForm {
  /** @param onSent called with the request as it was accepted */
  constructor(root, facts, { onSent }) {
    Object.assign(this, { root, facts, onSent });
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
    input.id ||= `q-${path.replaceAll(".", "-")}`;
    this.inputs.set(path, input);
    return el("div", { class: "field", "data-field": path }, el("label", { for: input.id }, title), input, note && el("span", { class: "dim" }, note), el("p", { class: "error", role: "alert", hidden: true }));
  }

  options(first, names) {
    return [el("option", { value: "" }, first), ...names.map((name) => el("option", { value: name }, name.replaceAll("_", " ")))];
  }

  build() {
    this.inputs = new Map();
    const { image_types: types, pipelines, combines, priorities, day_obs: dayObs } = this.facts;
    const text = (attributes) => el("input", { autocomplete: "off", spellcheck: "false", ...attributes });
    const way = el("div", { class: "segments", role: "radiogroup", "aria-label": "Which exposures" }, WAYS.map(([value, title], at) => el("label", {}, el("input", { type: "radio", name: "way", value, checked: !at }), el("span", {}, title))));
    const example = `${dayObs ?? 20261120}00012-${dayObs ?? 20261120}00020`;
    this.ways = {
      exposures: this.field("select.exposures", "ids, ranges", text({ placeholder: example })),
      group: el("div", {}, this.field("select.group.group_id", "GROUPID", text({})), this.field("select.group.n", "how many", text({ class: "short", inputmode: "numeric", placeholder: "MAXINDEX" }))),
      next: el("div", {}, this.field("select.next.n", "how many", text({ class: "short", inputmode: "numeric", value: "1" })), this.field("select.next.image_type", "of type", el("select", {}, this.options("any", types)))),
      sequence: this.field("select.sequence.of", "any exposure of it", text({ inputmode: "numeric" })),
    };
    this.body = el("pre", { id: "body" });
    this.rest = el("p", { class: "error", id: "form-error", role: "alert", hidden: true });
    this.note = el("p", { class: "note", id: "form-note", role: "status" });
    this.root.replaceChildren(
      el("div", { class: "field", "data-field": "select" }, el("span", { class: "label" }, "which"), way, el("p", { class: "error", role: "alert", hidden: true })),
      ...Object.values(this.ways),
      this.field("combine", "make of them", el("select", {}, this.options("nothing: one by one", combines))),
      this.field("pipeline", "pipeline", el("select", {}, this.options("by the rules", pipelines))),
      this.field("detectors", "detectors", text({ placeholder: "a pattern; all science detectors" })),
      this.field("label", "label", text({ maxlength: 200, placeholder: "for people who read the list" })),
      el("details", {}, el("summary", {}, "More"),
        this.field("priority", "priority", el("select", {}, priorities.map((name) => el("option", { value: name, selected: name === "normal" }, name)))),
        this.field("deadline_s", "give up after", text({ class: "short", inputmode: "decimal", placeholder: "3600" }), "s"),
        this.field("when_whole", "begin when whole", el("input", { type: "checkbox" }), "not before all exposures and their raws are there"),
        this.field("arrival_s", "wait for them", text({ class: "short", inputmode: "decimal", placeholder: "to the end" }), "s, then"),
        this.field("on_missing", "if some are missing", el("select", {}, [["answer", "answer what is missing"], ["process", "process what is there"]].map(([value, title]) => el("option", { value }, title)))),
        this.field("guaranteed", "every detector", el("input", { type: "checkbox" }), "whatever the pattern"),
        this.field("reuse", "reuse results", el("input", { type: "checkbox", checked: true }), "of the night's own processing"),
        this.field("client_key", "client key", text({ maxlength: 128, placeholder: "asking twice is asking once" })),
        this.field("config", "settings", el("textarea", { rows: 2, spellcheck: "false", placeholder: '{"isr": {"flat": false}}' }), "")),
      el("div", { class: "buttons" }, el("button", { class: "primary", id: "send" }, "Submit")),
      this.rest, this.note,
      el("details", { id: "as-json" }, el("summary", {}, "As JSON, for a script"), this.body));
  }

  way() {
    return $("input[name=way]:checked", this.root).value;
  }

  number(path) {
    const value = this.inputs.get(path).value.trim();
    return value === "" ? undefined : /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value;
  }

  /** The request as it stands in the form; throws a complaint with its field. */
  spec() {
    const value = (path) => this.inputs.get(path).value.trim();
    const way = this.way();
    const select = {
      exposures: () => ({ exposures: value("select.exposures").split(/[,;\s]+/).filter(Boolean).map((item) => (/^\d+$/.test(item) ? Number(item) : item)) }),
      group: () => ({ group: { group_id: value("select.group.group_id"), n: this.number("select.group.n") } }),
      next: () => ({ next: { n: this.number("select.next.n"), image_type: value("select.next.image_type") || undefined } }),
      sequence: () => ({ sequence: { of: this.number("select.sequence.of") } }),
    }[way]();
    const spec = { version: 1, select };
    for (const path of ["combine", "pipeline", "detectors", "label", "client_key"]) if (value(path)) spec[path] = value(path);
    if (value("priority") !== "normal") spec.priority = value("priority");
    const deadline = this.number("deadline_s");
    if (deadline !== undefined) spec.deadline_s = deadline;
    const arrival = this.number("arrival_s");
    if (arrival !== undefined) spec.arrival_s = arrival;
    if (value("on_missing") !== "answer") spec.on_missing = value("on_missing");
    if (this.inputs.get("when_whole").checked) spec.when_whole = true;
    if (this.inputs.get("guaranteed").checked) spec.guaranteed = true;
    if (!this.inputs.get("reuse").checked) spec.reuse = false;
    if (value("config")) {
      try {
        spec.config = JSON.parse(value("config"));
      } catch (error) {
        throw Object.assign(new Error(`is no JSON: ${error.message}`), { field: "config" });
      }
    }
    return spec;
  }

  review() {
    const way = this.way();
    for (const [name, box] of Object.entries(this.ways)) box.hidden = name !== way;
    try {
      setText(this.body, JSON.stringify(this.spec(), null, 2));
    } catch {
      setText(this.body, "the settings are no JSON yet");
    }
  }

  async send() {
    clearErrors(this.root);
    setText(this.note, "");
    const button = $("#send", this.root);
    button.disabled = true;
    try {
      const { request } = await change("POST", "/api/requests", this.spec());
      setText(this.note, request.state === "posted" ? "Posted; no head node has taken it yet." : `${request.state}: ${request.request_id}`);
      this.onSent(request);
    } catch (error) {
      showError(this.root, error, this.rest);
    } finally {
      button.disabled = false;
    }
  }
}
