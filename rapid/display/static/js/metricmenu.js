// Which number colours a focal plane: a menu of what has been measured, in the catalogue's order.

import { el } from "./dom.js";
import { quantityOf } from "./format.js";

/** Keys of the numbers that any of the cells has: known ones first, as the catalogue prefers them. */
export function measured(cells, quantities) {
  const keys = new Set();
  for (const { metrics } of cells) for (const key in metrics) if (typeof metrics[key] === "number") keys.add(key);
  const rank = new Map(quantities.map(({ key }, at) => [key, at]));
  return [...keys].sort((a, b) => (rank.get(a) ?? 1e6) - (rank.get(b) ?? 1e6) || a.localeCompare(b));
}

export class MetricMenu {
  /** @param onChange called with the chosen key, or null while nothing is measured. */
  constructor(select, camera, onChange) {
    Object.assign(this, { select, camera, onChange, keys: [], wished: new URLSearchParams(location.search).get("metric") });
    select.addEventListener("change", () => this.choose(select.value));
  }

  /** Offer what the cells have. The user's choice stays as long as it is measured. */
  offer(cells) {
    const keys = measured(cells, this.camera.quantities);
    if (keys.join() === this.keys.join()) return;
    this.keys = keys;
    this.select.hidden = !keys.length;
    this.select.replaceChildren(
      ...keys.map((key) => {
        const { title, unit } = quantityOf(key, this.camera.quantities);
        return el("option", { value: key }, unit ? `${title} [${unit}]` : title);
      }),
    );
    this.chosen = keys.includes(this.wished) ? this.wished : (keys[0] ?? null);
    this.select.value = this.chosen ?? "";
    this.onChange(this.chosen);
  }

  choose(key) {
    this.wished = this.chosen = key;
    this.select.value = key;
    // Part of the address, so that a link shows what its sender saw.
    const address = new URL(location.href);
    address.searchParams.set("metric", key);
    history.replaceState(history.state, "", address);
    this.onChange(key);
  }

  step(by) {
    if (!this.keys.length) return;
    const at = this.keys.indexOf(this.chosen);
    this.choose(this.keys[(at + by + this.keys.length) % this.keys.length]);
  }
}
