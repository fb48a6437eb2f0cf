// The guider files of an exposure: a movie of each star, and how it moved and changed.

import { $, el, getJSON } from "./dom.js";
import { number } from "./format.js";
import { productUrl } from "./picture.js";

const PIPELINE = "guider";
const NUMBERS = [
  ["guider_fwhm_arcsec_median", "FWHM", "″", 2], ["guider_motion_fwhm_arcsec", "motion adds", "″", 2], ["guider_jitter_x_arcsec", "jitter x", "″", 3], ["guider_jitter_y_arcsec", "jitter y", "″", 3],
  ["guider_drift_x_arcsec_per_min", "drift x", "″/min", 2], ["guider_drift_y_arcsec_per_min", "drift y", "″/min", 2], ["guider_flux_scatter_percent", "flux scatter", "%", 1], ["guider_flux_slope_percent_per_min", "flux slope", "%/min", 1],
];
/** By detector, what was shown last: a movie that plays must not begin anew whenever another detector is done. */
const shown = new Map();

export async function showGuiders(panel, camera, view) {
  const cells = view.detectors.filter((cell) => cell.pipeline === PIPELINE && cell.state === "finished");
  panel.hidden = !cells.length && !shown.size;
  const { exposure_id: id } = view.row;
  for (const { detector, name } of cells) {
    const found = await getJSON(`/api/exposures/${id}/detectors/${detector}`);
    const result = found.results.find((one) => one.pipeline === PIPELINE);
    if (!result || shown.get(detector)?.at === result.finished_at) continue;
    const figure = figureOf(name, result);
    const before = shown.get(detector)?.figure;
    shown.set(detector, { at: result.finished_at, figure });
    if (before) before.replaceWith(figure);
    else $("#guider-movies").append(figure);
  }
}

function figureOf(name, result) {
  const { metrics, products } = result;
  const numbers = NUMBERS.filter(([key]) => typeof metrics[key] === "number").map(([key, title, unit, decimals]) => [title, `${number(metrics[key], decimals)} ${unit}`]);
  const movie = products.guider_movie && el("video", { src: productUrl(products.guider_movie), controls: true, loop: true, muted: true, playsinline: true, preload: "metadata", "aria-label": `Stamps of guider ${name}` });
  return el("figure", { class: "guider", "data-guider": name },
    el("figcaption", {}, el("b", {}, name), products.guider_star ? el("a", { href: productUrl(products.guider_star) }, " table") : "", movie ? el("a", { href: productUrl(products.guider_movie), download: true }, " MP4") : ""),
    movie || el("p", { class: "dim" }, "no movie"),
    numbers.length ? el("table", { class: "facts" }, numbers.map(([title, value]) => el("tr", {}, el("td", {}, title), el("td", {}, value)))) : el("p", { class: "dim" }, "no star was found"));
}
