// Plots that came with or after a summary, in a row; a click opens one at its own size.

import { $, el } from "./dom.js";
import { productUrl } from "./picture.js";

const TITLES = {
  fwhm_map: "FWHM", zero_point_map: "Zero point", psf_whiskers_camera: "PSF, camera frame", psf_whiskers_altaz: "PSF, alt-az frame",
  focus_sweep: "Focus sweep", wavefront_plot: "Wavefront", wavefront_donuts_plot: "Donuts and their fits",
};

export function showPlots(panel, products) {
  const found = Object.entries(products ?? {}).filter(([, key]) => key.endsWith(".png"));
  panel.hidden = !found.length;
  const text = found.map(([, key]) => key).join();
  if (panel.dataset.keys === text) return;
  panel.dataset.keys = text;
  const rank = ([kind]) => (kind.startsWith("wavefront") || kind === "focus_sweep" ? 0 : 1);
  found.sort((a, b) => rank(a) - rank(b) || a[0].localeCompare(b[0]));
  $(".gallery", panel).replaceChildren(...found.map(([kind, key]) => {
    const title = TITLES[kind] ?? kind.replaceAll("_", " ");
    return el("figure", {}, el("a", { href: productUrl(key), target: "_blank" }, el("img", { src: productUrl(key), alt: title, loading: "lazy" })), el("figcaption", {}, title));
  }));
}
