// One detector of one exposure, all that is known: numbers, amps, timings, provenance, products, failures.

import { el, getJSON } from "./dom.js";
import { DASH, clock, number, quantityOf, utcMs } from "./format.js";
import { productUrl } from "./picture.js";

export function facts(pairs) {
  return el("table", { class: "facts" }, pairs.map(([name, value]) => el("tr", {}, el("td", {}, name), el("td", {}, value))));
}

function block(title, ...nodes) {
  return el("div", {}, el("h2", {}, title), ...nodes);
}

function numbers(values, quantities) {
  return facts(
    Object.entries(values).map(([key, value]) => {
      const quantity = quantityOf(key, quantities);
      return [quantity.title, `${number(value, quantity.decimals)} ${value === null ? "" : quantity.unit}`.trim()];
    }),
  );
}

/** Seconds, resources: name and value with the unit its key ends in. */
export function measures(values) {
  return facts(Object.entries(values).map(([key, value]) => {
    const { title, unit } = quantityOf(key);
    return [title, `${number(value, unit === "s" ? 3 : 1)} ${unit}`.trim()];
  }));
}

/** A table of amps: a row for each, a column for each number. */
function amps(table, quantities) {
  const names = Object.keys(table);
  const keys = [...new Set(names.flatMap((name) => Object.keys(table[name])))];
  if (!names.length || !keys.length) return null;
  const columns = keys.map((key) => quantityOf(key, quantities));
  return el("div", { class: "scroll" }, el("table", { class: "grid" },
    el("thead", {}, el("tr", {}, el("th", {}, "amp"), columns.map(({ title, unit }) => el("th", { class: "num" }, unit ? `${title} [${unit}]` : title)))),
    el("tbody", {}, names.map((name) => el("tr", {}, el("td", {}, name),
      keys.map((key, at) => el("td", { class: "num" }, number(table[name][key], columns[at].decimals))))))));
}

export function productLinks(products) {
  const links = Object.entries(products ?? {}).map(([kind, key]) => el("div", {}, el("a", { href: productUrl(key), target: "_blank", rel: "noopener" }, `${kind} (${key.split(".").pop()})`)));
  return links.length ? links : [el("div", { class: "dim" }, "none")];
}

/** A failure with its traceback folded away. */
export function failureNode(failure, where = "") {
  const head = [el("span", { class: "state", "data-state": "failed" }, where ? `${where}: ` : "", failure.code), ` ${failure.message}`];
  const when = failure.failed_at ? `${failure.failed_at.slice(0, 10)} ${clock(utcMs(failure.failed_at))} UTC` : "";
  const notes = [failure.pipeline, failure.attempts ? `${failure.attempts} attempts` : "", when].filter(Boolean).join(", ");
  return el("div", { class: "failure" }, el("div", {}, ...head, " ", el("span", { class: "dim" }, notes)),
    failure.traceback ? el("details", {}, el("summary", {}, "traceback"), el("pre", {}, failure.traceback)) : null);
}

function resultNode(result, camera) {
  const p = result.provenance;
  const amp = amps(result.amps, camera.quantities);
  const pictures = Object.entries(result.products).filter(([, key]) => /\.(jpe?g|png|webp)$/i.test(key));
  return el("div", { class: "result" },
    el("h3", {}, result.pipeline, el("span", { class: "dim" }, result.finished_at ? ` finished ${clock(utcMs(result.finished_at))} UTC` : "")),
    el("div", { class: "columns" },
      block("Numbers", numbers(result.metrics, camera.quantities)),
      block("Timings", measures(result.timings), measures(result.resources)),
      block("Products", ...productLinks(result.products), ...pictures.map(([kind, key]) => el("img", { src: productUrl(key), alt: kind, class: "thumb" }))),
      block("Provenance", facts([
        ["raw", p.raw], ["sha256", el("span", { class: "mono" }, p.raw_sha256.slice(0, 16), "…")], ["pipeline", `${p.pipeline} ${p.pipeline_version}`],
        ["software", p.software_version], ["config", el("span", { class: "mono" }, p.config_hash.slice(0, 16), "…")],
        ["applied", p.applied.join(", ") || DASH], ["calibs", Object.entries(p.calibs).map(([kind, id]) => `${kind} ${id}`).join(", ") || DASH],
        ["payloads", Object.entries(p.payloads).map(([name, version]) => `${name} ${version}`).join(", ") || DASH], ["host", p.host || DASH],
      ]))),
    amp ? block("Amps", amp) : null);
}

/** Load a detector's view and return its nodes; an error becomes a sentence. */
export async function detectorNodes(exposureId, detector, camera) {
  let view;
  try {
    view = await getJSON(`/api/exposures/${exposureId}/detectors/${detector}`);
  } catch (error) {
    return [el("p", {}, `Detector ${detector}: ${error.message}`)];
  }
  return [
    el("div", {}, el("span", { class: "state", "data-state": view.state }, view.state), view.reason ? ` — ${view.reason}` : ""),
    ...view.failures.map((failure) => failureNode(failure)),
    ...view.results.map((result) => resultNode(result, camera)),
    view.results.length ? null : el("p", { class: "dim" }, "No result of this detector."),
  ].filter(Boolean);
}

/** Show a detector over the page, with a link to its permanent place. */
export async function openDetector(exposureId, place, camera) {
  const dialog = el("dialog", { class: "wide", "aria-label": place.name },
    el("header", {}, el("h1", {}, place.name, el("span", { class: "dim" }, ` ${place.id} ${place.physical_type}`)),
      el("a", { href: `/exposure/${exposureId}#${place.name}` }, "exposure's page"),
      el("form", { method: "dialog", class: "push" }, el("button", { "aria-label": "Close" }, "✕"))),
    el("div", { class: "body" }, "loading…"));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  const nodes = await detectorNodes(exposureId, place.id, camera);
  dialog.querySelector(".body").replaceChildren(...nodes);
}
