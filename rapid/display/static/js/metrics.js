// The menu of metrics for a focal plane, and the legend of its states.

import { el } from "./dom.js";
import { quantityOf } from "./format.js";

export class MetricMenu {
  constructor(select, camera, onChange) {
    Object.assign(this, { select, camera, onChange, key: null, chosen: null, keys: [] });
    select.addEventListener("change", () => this.choose(select.value));
  }

  /** Offer what these cells have been measured in; keep the choice where it exists. */
  offer(cells) {
    const found = new Set();
    for (const cell of cells) for (const [key, value] of Object.entries(cell.metrics)) if (typeof value === "number") found.add(key);
    const listed = this.camera.quantities.map((quantity) => quantity.key).filter((key) => found.has(key));
    const others = [...found].filter((key) => !listed.includes(key)).sort();
    const keys = [...listed, ...others];
    if (keys.join() !== this.keys.join()) {
      this.keys = keys;
      this.select.replaceChildren(...keys.map((key) => {
        const { title, unit } = quantityOf(key, this.camera.quantities);
        return el("option", { value: key }, unit ? `${title} [${unit}]` : title);
      }));
    }
    this.select.disabled = !keys.length;
    if (!keys.length) this.select.replaceChildren(el("option", {}, "no numbers yet"));
    this.key = keys.includes(this.chosen) ? this.chosen : (keys[0] ?? null);
    if (this.key) this.select.value = this.key;
  }

  choose(key) {
    this.chosen = key;
    this.key = key;
    this.select.value = key;
    this.onChange(key);
  }

  next(by) {
    if (!this.keys.length) return;
    const at = this.keys.indexOf(this.key);
    this.choose(this.keys[(at + by + this.keys.length) % this.keys.length]);
  }
}

const STATES = ["finished", "running", "queued", "waiting", "failed", "quarantined", "superseded", "excluded"];

/** @param key the number that colours the cells: a detector that finished without it is told apart. */
export function drawLegend(box, cells, key = null) {
  const counts = new Map();
  const without = key ? cells.filter((cell) => cell.state === "finished" && typeof cell.metrics[key] !== "number").length : 0;
  for (const cell of cells) counts.set(cell.state, (counts.get(cell.state) ?? 0) + 1);
  const shown = STATES.filter((state) => counts.has(state));
  const text = [...shown.map((state) => `${state} ${counts.get(state)}`), without].join();
  if (box.dataset.text === text) return;
  box.dataset.text = text;
  const plain = without ? [el("span", {}, el("i", { "data-state": "queued" }), `${without} of them without this number`)] : [];
  box.replaceChildren(...shown.flatMap((state) => [el("span", {}, el("i", { "data-state": state }), `${state} ${counts.get(state)}`), ...(state === "finished" ? plain : [])]));
}
