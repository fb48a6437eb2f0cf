// The form of the control state: a draft beside what is in force, and what would change, before it changes.

import { clearErrors, showError } from "./access.js";
import { $, el, setText } from "./dom.js";
import { DASH } from "./format.js";

const BY_RULES = "";

/** Value at a dotted path; undefined where there is none. */
const at = (tree, path) => path.split(".").reduce((value, key) => value?.[key], tree);

const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);

const shown = (value) => (value === null || value === undefined || value === "" ? DASH : Array.isArray(value) ? value.join(", ") || "none" : value === true ? "yes" : value === false ? "no" : String(value));

const number = (text) => (text.trim() === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text.trim());
const list = (text) => text.split(/[\n,;]+/).map((part) => part.trim()).filter(Boolean);
const idList = (text) => text.split(/[\s,;]+/).filter(Boolean).map((part) => (/^\d+$/.test(part) ? Number(part) : part));

export class ControlForm {
  /**
   * @param facts image types, pipelines and modes there are
   * @param onPattern called with the pattern's text as it is typed; onApply with patch and reason, may throw
   */
  constructor(root, facts, { onPattern, onApply }) {
    Object.assign(this, { root, facts, onPattern, onApply, onForget: () => {}, fields: new Map(), state: null, patternError: "" });
    this.build();
    root.addEventListener("input", () => this.review());
    root.addEventListener("change", () => this.review());
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply();
    });
  }

  // ---- the fields -----------------------------------------------------------------------------------

  /** One field: where it is in the document, its widget, and how the two speak. */
  add(path, title, input, { read = () => input.value, write = (value) => { input.value = value ?? ""; }, note = "" } = {}) {
    const id = `f-${path.replaceAll(".", "-")}`;
    const isGroup = input.getAttribute("role") === "radiogroup";
    if (!isGroup) input.id = id;
    this.fields.set(path, { title, read, write });
    return el("div", { class: "field", "data-field": path },
      isGroup ? el("span", { class: "label", id: `${id}-label` }, title) : el("label", { for: id }, title),
      input, note && el("span", { class: "dim" }, note), el("p", { class: "error", role: "alert", hidden: true }));
  }

  choice(path, title, values) {
    const name = `c-${path}`;
    const box = el("div", { class: "segments", role: "radiogroup", "aria-labelledby": `f-${path}-label` }, values.map((value) => el("label", {}, el("input", { type: "radio", name, value }), el("span", {}, value.replaceAll("_", " ")))));
    return this.add(path, title, box, {
      read: () => $("input:checked", box)?.value ?? null,
      write: (value) => { for (const input of box.querySelectorAll("input")) input.checked = input.value === value; },
    });
  }

  number(path, title, { placeholder = "", note = "" } = {}) {
    const input = el("input", { inputmode: "decimal", class: "short", placeholder, autocomplete: "off" });
    return this.add(path, title, input, { read: () => number(input.value), note });
  }

  text(path, title, { read, write, ...attributes }) {
    const input = el("input", { autocomplete: "off", spellcheck: "false", ...attributes });
    return this.add(path, title, input, { read: () => (read ? read(input.value) : input.value), write: (value) => { input.value = write ? write(value) : (value ?? ""); } });
  }

  pipeline(path, title, names) {
    const input = el("select", {}, el("option", { value: BY_RULES }, "by the rules"), names.map((name) => el("option", { value: name }, name)));
    return this.add(path, title, input, {
      read: () => input.value || null,
      write: (value) => {
        if (value && !names.includes(value)) input.append(el("option", { value }, value));
        input.value = value ?? BY_RULES;
      },
    });
  }

  build() {
    const { image_types: types, pipelines, visit_modes: visits, worker_modes: modes, waits } = this.facts;
    const pattern = el("input", { list: "pattern-names", autocomplete: "off", spellcheck: "false", class: "wide-input", maxlength: 4096 });
    pattern.addEventListener("input", () => this.onPattern(pattern.value));
    pattern.addEventListener("change", () => this.onPattern(pattern.value));
    const ladder = el("input", { autocomplete: "off", spellcheck: "false" });
    const enabled = el("input", { type: "checkbox" });
    const wait = (key) => ({ placeholder: waits?.[key] ? String(waits[key]) : "as set up", note: "s" });
    this.saved = el("div", { class: "saved", id: "saved" });
    this.diff = el("ul", { class: "diff", id: "diff", "aria-live": "polite" });
    this.reason = el("input", { id: "reason", maxlength: 1000, placeholder: "why, for the log", "aria-label": "Reason", autocomplete: "off" });
    this.button = el("button", { class: "primary", id: "apply", disabled: true }, "Apply");
    this.discard = el("button", { type: "button", id: "discard", disabled: true, onclick: () => this.reset() }, "Discard");
    this.note = el("p", { class: "note", id: "form-note", role: "status" });
    this.rest = el("p", { class: "error", id: "form-error", role: "alert", hidden: true });
    this.root.replaceChildren(
      this.add("pattern", "Pattern", pattern, { read: () => pattern.value.trim() }),
      el("datalist", { id: "pattern-names" }), this.saved,
      this.choice("visit_mode", "Visit mode", visits),
      this.choice("worker_mode", "Worker mode", modes),
      el("details", { open: innerWidth > 680 }, el("summary", {}, "Pipelines by image type"),
        el("div", { class: "fields" }, types.map((type) => this.pipeline(`pipelines.${type}`, type, pipelines)), this.pipeline("wavefront_pipeline", "corner sensors", pipelines))),
      el("details", {}, el("summary", {}, "Timeouts"),
        el("div", { class: "fields" }, this.number("timeouts.gather_s", "gather", wait("gather_s")), this.number("timeouts.regather_s", "re-gather", wait("regather_s")), this.number("timeouts.deadline_s", "deadline", wait("deadline_s")))),
      el("details", {}, el("summary", {}, "Load shedding"),
        el("div", { class: "fields" },
          this.add("shedding.enabled", "shed", enabled, { read: () => enabled.checked, write: (value) => { enabled.checked = Boolean(value); } }),
          this.number("shedding.cadence_s", "cadence", { placeholder: "measured", note: "s" }),
          this.number("shedding.step_down_at", "shed above", { note: "of the cadence" }),
          this.number("shedding.step_up_at", "calm below", { note: "of the cadence" }),
          this.number("shedding.calm_exposures", "calm exposures")),
        this.add("shedding.ladder", "patterns to fall back to, in order", ladder, { read: () => list(ladder.value), write: (value) => { ladder.value = (value ?? []).join(", "); } })),
      el("details", {}, el("summary", {}, "Guaranteed exposures, witness detector"),
        this.text("guaranteed", "exposure ids", { read: idList, write: (value) => (value ?? []).join(" "), placeholder: "2026112000012 2026112000013" }),
        el("div", { class: "fields" },
          this.text("guaranteed_header", "header key", { class: "short", maxlength: 8 }),
          this.number("witness_detector", "witness detector", { placeholder: String(this.facts.camera.witness_detector) }))),
      el("div", { class: "review" }, this.diff, el("div", { class: "buttons" }, this.reason, this.button, this.discard), this.rest, this.note));
  }

  // ---- what is in force, and the draft ---------------------------------------------------------------

  /** Show another document; what was changed in the draft stays changed. */
  show(document_) {
    const edited = this.state ? this.edits() : new Map();
    this.state = document_.state;
    for (const [path, field] of this.fields) if (!edited.has(path)) field.write(at(this.state, path));
    if (!edited.has("pattern")) this.onPattern(this.state.pattern);
    this.showSaved();
    this.review();
  }

  reset() {
    if (!this.state) return;
    for (const [path, field] of this.fields) field.write(at(this.state, path));
    this.reason.value = "";
    this.onPattern(this.state.pattern);
    clearErrors(this.root);
    this.review();
  }

  value(path) {
    return this.fields.get(path).read();
  }

  edits() {
    const found = new Map();
    for (const [path, field] of this.fields) if (!same(field.read(), at(this.state, path))) found.set(path, field.read());
    return found;
  }

  review() {
    if (!this.state) return;
    const edits = this.edits();
    this.diff.replaceChildren(...[...edits].map(([path, value]) => el("li", {}, el("span", { class: "dim" }, `${path} `), `${shown(at(this.state, path))} → `, el("b", {}, shown(value)))));
    this.button.disabled = !edits.size || Boolean(this.patternError && edits.has("pattern"));
    this.discard.disabled = !edits.size;
  }

  async apply() {
    const patch = {};
    for (const [path, value] of this.edits()) {
      const [head, ...rest] = path.split(".");
      if (rest.length) (patch[head] ??= {})[rest.join(".")] = value;
      else patch[head] = value;
    }
    clearErrors(this.root);
    this.say("");
    this.button.disabled = true;
    try {
      await this.onApply(patch, this.reason.value.trim());
      this.say("In force for the next exposure.");
    } catch (error) {
      showError(this.root, error, this.rest);
      if (error.status === 412) setText(this.rest, "Somebody else has changed the control state meanwhile. It is shown now; look again before you apply.");
    }
    this.review();
  }

  say(text, isBad = false) {
    this.note.dataset.state = isBad ? "bad" : "ok";
    setText(this.note, text);
  }

  // ---- patterns ---------------------------------------------------------------------------------------

  offerPatterns(patterns) {
    this.patterns = patterns;
    $("#pattern-names").replaceChildren(...patterns.filter((one) => !one.needs_arguments && one.sizes)
      .map((one) => el("option", { value: one.name }, `${one.description}, ${one.sizes.join(" or ")} detectors`)),
      ...patterns.filter((one) => one.needs_arguments).map((one) => el("option", { value: one.usage }, one.description)));
  }

  showSaved() {
    const names = Object.keys(this.state.patterns ?? {});
    const use = (name) => {
      this.fields.get("pattern").write(name);
      this.onPattern(name);
      this.review();
    };
    this.saved.hidden = !names.length;
    this.saved.replaceChildren(el("span", { class: "dim" }, "saved"), ...names.map((name) => el("span", { class: "chip" },
      el("button", { type: "button", title: this.state.patterns[name], onclick: () => use(name) }, name),
      el("button", { type: "button", "aria-label": `Forget ${name}`, title: `Forget ${name}`, onclick: () => this.onForget(name) }, "✕"))));
  }

  patternIsGood(found) {
    this.patternError = "";
    const box = this.root.querySelector('[data-field="pattern"]');
    clearErrors(box);
    this.review();
  }

  patternIsBad(message) {
    this.patternError = message;
    const box = this.root.querySelector('[data-field="pattern"]');
    const place = $(".error", box);
    setText(place, message);
    place.hidden = false;
    $("input", box).setAttribute("aria-invalid", "true");
    this.review();
  }
}
