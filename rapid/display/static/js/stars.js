// The star list of a detector: sorted by any column; a row rings its star in the picture.

import { el } from "./dom.js";
import { number, quantityOf } from "./format.js";

const MOST = 400; // rows: brighter ones tell; the file has all
const FIRST = ["x", "y", "instrument_mag", "snr", "fwhm_arcsec", "e1", "e2", "peak_e", "background_e", "is_psf_star"];
const DECIMALS = { x: 1, y: 1, instrument_mag: 3, snr: 0, fwhm_arcsec: 2, e1: 3, e2: 3, peak_e: 0, background_e: 1, flux_e: 0 };

export function showStars(stars, camera, onPick) {
  const keys = FIRST.filter((key) => key in stars);
  const order = [...stars.x.keys()];
  let sort = { key: null, down: false };
  const body = el("tbody");
  const head = el("thead");
  const title = (key) => {
    const { title: words, unit } = quantityOf(key, camera.quantities);
    return unit ? `${words} [${unit}]` : words;
  };
  const value = (key, at) => stars[key][at];
  const draw = () => {
    if (sort.key) order.sort((a, b) => (sort.down ? -1 : 1) * ((value(sort.key, a) ?? -Infinity) - (value(sort.key, b) ?? -Infinity)));
    head.replaceChildren(el("tr", {}, keys.map((key) => el("th", { class: "num", "aria-sort": sort.key === key ? (sort.down ? "descending" : "ascending") : null }, el("button", { onclick: () => {
      sort = { key, down: sort.key === key ? !sort.down : false };
      draw();
    } }, title(key))))));
    body.replaceChildren(...order.slice(0, MOST).map((at) => el("tr", { "data-star": at, tabindex: -1, onclick: (event) => {
      body.querySelectorAll("[aria-selected=true]").forEach((row) => row.removeAttribute("aria-selected"));
      event.currentTarget.setAttribute("aria-selected", "true");
      onPick(at);
    } }, keys.map((key) => el("td", { class: "num" }, number(value(key, at), DECIMALS[key] ?? 3))))));
  };
  draw();
  const n = order.length;
  return el("section", { class: "stars" }, el("h2", { class: "subhead" }, `Stars `, el("span", { class: "dim" }, n > MOST ? `${MOST} of ${n}` : String(n))),
    el("div", { class: "scroll", tabindex: 0 }, el("table", { class: "grid", id: "stars" }, head, body)));
}
