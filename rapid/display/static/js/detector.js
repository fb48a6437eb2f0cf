// The drill-down: one detector of an exposure, from every pipeline that ran on it.

import { el, getJSON } from "./dom.js";
import { showStars } from "./stars.js";
import { clock, number, quantityOf } from "./format.js";
import { productUrl } from "./picture.js";

/** Fill a box with what is known of a detector; returns whether there was anything. */
export async function showDetector(box, camera, exposureId, detector, close, viewer = null) {
  const place = camera.detectors.find((one) => one.id === detector);
  const head = (...rest) => el("header", {}, el("h1", {}, `${place?.name ?? "detector"} `, el("span", { class: "dim" }, `${detector} ${place?.physical_type ?? ""}`)), ...rest,
    el("button", { class: "push", onclick: close, "aria-label": "Close (Esc)" }, "✕"));
  box.hidden = false;
  box.dataset.detector = detector;
  let found;
  try {
    found = await getJSON(`/api/exposures/${exposureId}/detectors/${detector}`);
  } catch (error) {
    box.replaceChildren(head(), el("p", {}, error.status === 404 ? "This detector was not asked for in this exposure." : error.message));
    return false;
  }
  if (box.dataset.detector !== String(detector)) return false; // another one was opened meanwhile
  const state = el("span", { class: "state", "data-state": found.state }, found.state);
  const zoom = viewer && found.state === "finished" ? el("button", { id: "zoom-detector", onclick: () => viewer.look(detector) }, "Image (Z)") : null;
  const parts = [head(state, zoom, found.reason ? el("span", {}, found.reason) : null)];
  for (const failure of found.failures) parts.push(el("p", {}, `${failure.pipeline}: ${failure.message} (${failure.attempts} attempts)`), el("pre", {}, failure.traceback ?? "no traceback was kept"));
  for (const result of found.results) parts.push(resultOf(result, camera));
  if (!found.results.length && !found.failures.length) parts.push(el("p", { class: "dim" }, "No result."));
  box.replaceChildren(...parts);
  if (viewer) addStars(box, camera, found, viewer).catch(() => {});
  return true;
}

/** The star list, and rings around its stars in the picture. */
async function addStars(box, camera, found, viewer) {
  const result = found.results.find((one) => one.products.stars && !one.pipeline.startsWith("build_"));
  if (!result) {
    viewer.stars(null);
    return;
  }
  const stars = await getJSON(productUrl(result.products.stars));
  if (box.dataset.detector !== String(found.detector) || box.hidden) return;
  box.append(showStars(stars, camera, (picked) => viewer.stars({ detector: found.detector, ...stars, picked })));
  viewer.stars({ detector: found.detector, ...stars, picked: null });
}

function table(title, entries) {
  if (!entries.length) return null;
  return el("div", {}, el("h2", {}, title), el("table", { class: "facts" }, entries.map(([name, value]) => el("tr", {}, el("td", {}, name), el("td", {}, value)))));
}

function resultOf(result, camera) {
  const { provenance } = result;
  const metrics = Object.entries(result.metrics).map(([key, value]) => {
    const quantity = quantityOf(key, camera.quantities);
    return [el("span", { title: key }, quantity.title), `${number(value, typeof value === "number" && Number.isInteger(value) ? 0 : Math.max(quantity.decimals, 3))} ${quantity.unit}`];
  });
  const seconds = Object.entries(result.timings).map(([step, value]) => [step.replace(/_s$/, ""), `${number(value, 3)} s`]);
  const resources = Object.entries(result.resources).map(([name, value]) => [name, number(value, 0)]);
  const history = [
    ["pipeline", `${provenance.pipeline} ${provenance.pipeline_version}`],
    ["applied", provenance.applied.join(", ") || "—"],
    ...Object.entries(provenance.calibs).map(([kind, calib]) => [kind, calib]),
    ["payloads", Object.entries(provenance.payloads).map(([name, version]) => `${name} ${version}`).join(", ")],
    ["software", provenance.software_version],
    ["configuration", el("span", { class: "mono", title: provenance.config_hash }, provenance.config_hash.slice(0, 12))],
    ["raw", el("span", { class: "mono" }, provenance.raw)],
    ["raw sha256", el("span", { class: "mono", title: provenance.raw_sha256 }, provenance.raw_sha256.slice(0, 12))],
    ["host", provenance.host || "—"],
    ["finished", result.finished_at ? `${clock(Date.parse(result.finished_at))} UTC` : "—"],
  ];
  const products = Object.entries(result.products).map(([kind, key]) => [kind, el("a", { href: productUrl(key) }, key.split("/").pop())]);
  return el("div", {},
    el("h2", { class: "subhead" }, result.pipeline),
    el("div", { class: "columns" }, ...[table("Metrics", metrics), table("Timings", [...seconds, ...resources]), table("Products", products), table("Provenance", history)].filter(Boolean)),
    ampsOf(result, camera));
}

function ampsOf(result, camera) {
  const names = Object.keys(result.amps);
  if (!names.length) return null;
  const keys = [...new Set(names.flatMap((name) => Object.keys(result.amps[name])))];
  const quantities = keys.map((key) => ({ ...quantityOf(key, camera.quantities), key }));
  return el("div", { class: "scroll", tabindex: 0 }, el("table", { class: "grid", id: "amps" },
    el("thead", {}, el("tr", {}, el("th", {}, "Amp"), quantities.map(({ title, unit }) => el("th", { class: "num" }, unit ? `${title} [${unit}]` : title)))),
    el("tbody", {}, names.map((name) => el("tr", {}, el("td", {}, name), quantities.map(({ key, decimals }) => el("td", { class: "num" }, number(result.amps[name][key], decimals))))))));
}
