// The numbers of a summary: a line for each quantity, a column for each way it was put together over the detectors.

import { el } from "./dom.js";
import { number, quantityOf } from "./format.js";

const KINDS = [["median", "median"], ["mean", "mean"], ["scatter", "scatter"], ["total", "total"], ["", "value"], ["error", "± error"], ["n", "detectors"]];

/** What a metric's key says: of which quantity, and which of its numbers. */
function partsOf(key) {
  const counted = /^n_detectors_(.+)$/.exec(key);
  if (counted) return [counted[1], "n"];
  const [, base, kind = ""] = /^(.*?)(?:_(median|mean|scatter|total))?$/.exec(key);
  if (kind) return [base, kind];
  // fwhm_field_tilt_x_error_arcsec_per_deg: the error stands before the unit.
  const error = /^(.*)_error(_.*)?$/.exec(key);
  return error ? [`${error[1]}${error[2] ?? ""}`, "error"] : [base, ""];
}

/** A table of them; null if there are none. */
export function summaryNumbers(metrics, quantities) {
  const lines = new Map();
  for (const [key, value] of Object.entries(metrics)) {
    const [base, kind] = partsOf(key);
    lines.set(base, { ...lines.get(base), [kind]: value });
  }
  if (!lines.size) return null;
  const place = (base) => {
    const at = quantities.findIndex((quantity) => quantity.key === base);
    return at < 0 ? quantities.length : at;
  };
  const shown = [...lines].map(([base, values]) => ({ base, values, quantity: quantityOf(base, quantities) }))
    .sort((a, b) => place(a.base) - place(b.base) || a.base.localeCompare(b.base));
  const kinds = KINDS.filter(([kind]) => shown.some(({ values }) => kind in values));
  const twice = (title) => shown.filter(({ quantity }) => quantity.title === title).length > 1;
  const word = ({ base, quantity }) => {
    const title = quantity.unit ? `${quantity.title} [${quantity.unit}]` : quantity.title;
    return twice(quantity.title) ? [title, el("span", { class: "dim" }, ` ${base}`)] : [title];
  };
  const decimals = (kind, quantity) => (kind === "n" ? 0 : quantity.decimals + (kind === "scatter" || kind === "error" ? 1 : 0));
  return el("div", { class: "span" }, el("h2", {}, "Focal plane"), el("table", { class: "grid numbers" },
    el("thead", {}, el("tr", {}, el("th", {}, "Quantity"), kinds.map(([, title]) => el("th", { class: "num" }, title)))),
    el("tbody", {}, shown.map((line) => el("tr", {}, el("td", { title: line.base }, ...word(line)), kinds.map(([kind]) => el("td", { class: "num" }, kind in line.values ? number(line.values[kind], decimals(kind, line.quantity)) : "")))))));
}
