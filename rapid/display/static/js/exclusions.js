// What is switched off: chosen on the focal plane, with a reason; listed with who and since when; switched on again.

import { change, clearErrors, showError } from "./access.js";
import { $, el, getJSON, setText } from "./dom.js";
import { DASH } from "./format.js";

const minute = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : DASH);

export class ExclusionPanel {
  /** @param onChange called when what is off has changed */
  constructor(camera, plane, { onChange }) {
    Object.assign(this, { camera, plane, onChange, chosen: new Set(), list: [], withHistory: false });
    this.places = new Map(camera.detectors.map((place) => [place.id, place]));
    this.build();
    $("#off-history").addEventListener("click", () => {
      this.withHistory = !this.withHistory;
      $("#off-history").setAttribute("aria-pressed", String(this.withHistory));
      this.load();
    });
  }

  build() {
    const root = $("#exclude-form");
    this.who = el("div", { class: "chosen", id: "chosen", "aria-live": "polite" });
    this.amp = el("select", { id: "x-amp" });
    this.reason = el("input", { id: "x-reason", maxlength: 500, placeholder: "why? It is shown wherever the detector is", autocomplete: "off" });
    this.from = el("input", { id: "x-from", class: "date", placeholder: "next exposure", autocomplete: "off" });
    this.to = el("input", { id: "x-to", class: "date", placeholder: "open", autocomplete: "off" });
    const field = (name, title, input) => el("div", { class: "field", "data-field": name }, el("label", { for: input.id }, title), input, el("p", { class: "error", role: "alert", hidden: true }));
    this.rest = el("p", { class: "error", id: "x-error", role: "alert", hidden: true });
    this.button = el("button", { class: "primary", id: "x-apply" }, "Switch off");
    root.replaceChildren(
      el("div", { "data-field": "targets" }, this.who, el("p", { class: "error", role: "alert", hidden: true })),
      el("div", { class: "fields" }, this.ampField = field("amp", "part", this.amp), field("valid_from", "from (UTC or night)", this.from), field("valid_to", "to (UTC or night)", this.to)),
      field("reason", "reason", this.reason),
      el("div", { class: "buttons" }, this.button, el("button", { type: "button", onclick: () => this.choose([]) }, "Choose none")), this.rest);
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.switchOff();
    });
    this.form = root;
  }

  show() {
    this.form.hidden = false;
    this.showChosen();
  }

  clear() {
    this.form.hidden = true;
    this.choose([]);
  }

  toggle(id) {
    const chosen = new Set(this.chosen);
    if (!chosen.delete(id)) chosen.add(id);
    this.choose(chosen);
  }

  choose(ids) {
    this.chosen = new Set(ids);
    this.plane.choose(this.chosen);
    this.showChosen();
  }

  showChosen() {
    clearErrors(this.form);
    const names = [...this.chosen].map((id) => this.places.get(id).name);
    const off = this.list.filter((one) => one.is_active && this.chosen.has(one.detector));
    this.who.replaceChildren(...(names.length
      ? [el("b", {}, names.slice(0, 12).join(" ") + (names.length > 12 ? ` and ${names.length - 12} more` : "")),
        ...off.map((one) => el("div", {}, el("span", { class: "state", "data-state": "excluded" }, `${nameOf(one)}: ${one.reason} (${one.author})`)))]
      : [el("span", { class: "dim" }, "Click the detectors that are to be switched off, or one that is off.")]));
    const [only] = names.length === 1 ? [...this.chosen] : [];
    const amps = only === undefined ? [] : this.camera.amps?.[only] ?? [];
    this.amp.replaceChildren(el("option", { value: "" }, "whole detector"), ...amps.map((name) => el("option", { value: name }, `amp ${name}`)));
    this.ampField.hidden = !amps.length;
    const whole = off.filter((one) => one.amp === null);
    this.button.disabled = !names.length || whole.length === names.length;
    this.button.title = this.button.disabled && names.length ? "It is switched off already" : "";
  }

  async switchOff() {
    clearErrors(this.form);
    const amp = this.amp.value;
    const targets = [...this.chosen].filter((id) => amp || !this.plane.off.has(id)).map((id) => (amp ? `${id}/${amp}` : id));
    const body = { targets, reason: this.reason.value };
    if (this.from.value.trim()) body.valid_from = this.from.value.trim();
    if (this.to.value.trim()) body.valid_to = this.to.value.trim();
    if (!body.reason.trim()) {
      showError(this.form, { field: "reason", message: "say why: whoever sees the hatched detector will ask" }, this.rest);
      return;
    }
    try {
      await change("POST", "/api/exclusions", body);
      this.reason.value = this.from.value = this.to.value = "";
      this.choose([]);
      await this.load();
    } catch (error) {
      showError(this.form, error, this.rest);
    }
  }

  /** Ask why, then switch something on again. */
  switchOn(one) {
    const reason = el("input", { id: "end-reason", maxlength: 500, autocomplete: "off" });
    const undo = el("input", { type: "checkbox", id: "end-undo" });
    const error = el("p", { class: "error", role: "alert", hidden: true });
    const dialog = el("dialog", { "aria-label": `Switch ${nameOf(one)} on again`, class: "form" },
      el("h1", {}, `Switch ${nameOf(one)} on again?`), el("p", {}, `${one.reason} (${one.author}, since ${minute(one.valid_from)} UTC)`),
      el("form", { onsubmit: async (event) => {
        event.preventDefault();
        try {
          await change("DELETE", `/api/exclusions/${one.id}?undo=${undo.checked}&reason=${encodeURIComponent(reason.value)}`);
          dialog.close();
          await this.load();
        } catch (problem) {
          setText(error, problem.message);
          error.hidden = false;
        }
      } },
      el("label", { for: "end-reason" }, "Why (for the history)"), reason,
      el("label", { class: "check" }, undo, " it was a mistake: as if it had never been off"), error,
      el("div", { class: "buttons" }, el("button", { class: "primary" }, "Switch on"), el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    reason.focus();
  }

  async load() {
    const problem = $("#off-error");
    try {
      const [found, history] = await Promise.all([getJSON("/api/exclusions"), this.withHistory ? getJSON("/api/exclusions?history=true&limit=500") : null]);
      this.list = found.exclusions;
      this.shown = history?.exclusions ?? found.exclusions;
      problem.hidden = true;
    } catch (error) {
      setText(problem, `What is excluded cannot be read: ${error.message}`);
      problem.hidden = false;
      return;
    }
    this.plane.setExclusions(this.list);
    if (!this.form.hidden) this.showChosen();
    this.table();
    this.onChange();
  }

  table() {
    const active = this.list.filter((one) => one.is_active).length;
    setText($("#n-off"), active ? String(active) : "");
    const heads = ["What", "Why", "Who", "From (UTC)", "To (UTC)", ""];
    const body = this.shown.map((one) => el("tr", { class: one.is_active ? "" : "dim" },
      el("td", {}, el("span", one.is_active ? { class: "state", "data-state": "excluded" } : {}, nameOf(one))),
      el("td", { title: one.reason, class: "wrap" }, one.reason, one.end_reason ? el("div", { class: "dim" }, `ended: ${one.end_reason}`) : null),
      el("td", {}, one.author, one.ended_by ? el("div", { class: "dim" }, `${one.valid_to <= one.valid_from ? "undone" : "ended"} by ${one.ended_by}`) : null),
      el("td", {}, minute(one.valid_from)), el("td", {}, one.valid_to ? minute(one.valid_to) : "open"),
      el("td", {}, one.ended_by || (!one.is_active && Date.parse(one.valid_to) < Date.now()) ? "" : el("button", { type: "button", onclick: () => this.switchOn(one) }, one.is_active ? "Switch on" : "Cancel"))));
    $("#off").replaceChildren(el("thead", {}, el("tr", {}, heads.map((title) => (title ? el("th", { scope: "col" }, title) : el("td"))))),
      el("tbody", {}, body.length ? body : el("tr", {}, el("td", { colspan: heads.length, class: "dim" }, this.withHistory ? "Nothing was ever excluded." : "Nothing is excluded."))));
  }
}

function nameOf(one) {
  return one.amp === null ? one.detector_name : `${one.detector_name}/${one.amp}`;
}
