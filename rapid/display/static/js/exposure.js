// One exposure: mosaic, metric maps, every detector, versions, timings, failures.

import { $, boot, el, getJSON, setText } from "./dom.js";
import { mountComments } from "./comments.js";
import { showDetector } from "./detector.js";
import { drawFailures } from "./failures.js";
import { FocalPlane } from "./focalplane.js";
import { clock, excludedWords, number, quantityOf, seq, taiMs } from "./format.js";
import { drawLegend, MetricMenu } from "./metrics.js";
import { Gantt } from "./gantt.js";
import { showGuiders } from "./guiders.js";
import { MosaicViewer } from "./mosaicviewer.js";
import { productUrl } from "./picture.js";
import { showPlots } from "./plots.js";
import { PsfPanel } from "./psfpanel.js";
import { startReprocess } from "./reprocess.js";
import { ScaleBar } from "./scale.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";
import { summaryNumbers } from "./summarynumbers.js";

const data = boot();
const { camera } = data;
const id = data.view.row.exposure_id;
let view = data.view;
let sort = { key: "detector", down: false };
let opened = null;

const scaleBar = new ScaleBar($("#scale"));
const plane = new FocalPlane($("#plane"), camera, { onPick: open, onScale: (...args) => scaleBar.show(...args) });
const menu = new MetricMenu($("#metric"), camera, (key) => {
  plane.setMetric(key);
  drawLegend($("#legend"), view.detectors, key);
  showTable();
});
const viewer = new MosaicViewer($("#mosaic"), camera, id, plane, { onPick: open });
const psf = new PsfPanel($("#psf"), camera);
const gantt = new Gantt($("#gantt"), { onPick: open });

function showOverview() {
  const { row } = view;
  const count = (title, value, unit) => el("div", {}, el("h2", {}, title), el("b", {}, value, unit && el("small", {}, ` ${unit}`)));
  const tiles = camera.tiles[["bias", "dark", "flat"].includes(row.image_type) ? "calibration" : "sky"];
  const numbers = tiles.map((tile) => [tile, tile.keys.map((key) => row.metrics[key]).find((value) => typeof value === "number")])
    .filter(([tile, value]) => !tile.is_optional || value !== undefined)
    .map(([tile, value]) => count(tile.title, `${number(value, tile.decimals)}`, value === undefined ? "" : tile.unit));
  const state = el("div", {}, el("h2", {}, "State"), el("b", { class: "state", "data-state": row.state }, `${row.n_finished}/${row.n_expected}`),
    el("span", { class: "dim" }, [row.state, row.version ? `version ${row.version}` : "no summary yet", excludedWords(row)].filter(Boolean).join(", ")));
  $("#counts").replaceChildren(state, ...numbers);
}

function showPicture() {
  viewer.show(view.products, view.row);
  psf.show(view.products).catch((error) => setText($("#psf-note"), error.message));
  showPlots($("#plots"), view.products);
  const table = view.products?.visit_summary;
  $("#visit-summary").hidden = !table;
  if (table) Object.assign($("#visit-summary"), { href: productUrl(table), download: `${camera.name}_${id}_${table.split("/").pop()}` });
}

let timeline = { lanes: [] };
let wholeTimeline = false;

async function showGantt() {
  timeline = await getJSON(`/api/exposures/${id}/timeline`);
  drawGantt();
}

function drawGantt() {
  $("#gantt-panel").hidden = !timeline.lanes.length;
  const colours = gantt.show(timeline, { whole: wholeTimeline });
  const button = $("#gantt-whole");
  button.hidden = !gantt.nLater && !wholeTimeline;
  button.setAttribute("aria-pressed", String(wholeTimeline));
  setText(button, wholeTimeline ? "up to the first summary" : `and ${gantt.nLater} later`);
  setText($("#gantt-note"), timeline.zero ? `0 s: ${timeline.zero_is}, ${clock(Date.parse(timeline.zero))} UTC` : "");
  const kinds = new Set(gantt.lanes.flatMap((lane) => lane.bars.map((bar) => bar.kind)));
  $("#gantt-legend").replaceChildren(...colours.map(([name, colour]) => el("span", {}, el("i", { style: `background:${colour};border:0` }), name)),
    el("span", {}, el("i", { class: "thin" }), "waiting"),
    ...[["gather", "accent"], ["plots", "good"], ["publish", "text"]].filter(([kind]) => kinds.has(kind)).map(([kind, colour]) => el("span", {}, el("i", { style: `background:var(--${colour});border:0` }), kind)));
}

// ---- the table of detectors -----------------------------------------------------------------------

function showTable() {
  const keys = menu.keys;
  const first = menu.key ? [menu.key, ...keys.filter((key) => key !== menu.key)] : keys;
  const shown = first.slice(0, 12).map((key) => quantityOf(key, camera.quantities)).map((quantity, at) => ({ ...quantity, key: first[at] }));
  const valueOf = (cell, key) => (key in cell ? cell[key] : cell.metrics[key]);
  const cells = [...view.detectors].sort((a, b) => {
    const [x, y] = [valueOf(a, sort.key), valueOf(b, sort.key)];
    if (x === null || x === undefined || y === null || y === undefined) return (x === null || x === undefined) - (y === null || y === undefined);
    return (sort.down ? -1 : 1) * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
  });
  const head = (key, title, isNumber) => el("th", { class: isNumber ? "num" : "", "aria-sort": sort.key === key ? (sort.down ? "descending" : "ascending") : null },
    el("button", { onclick: () => {
      sort = { key, down: sort.key === key ? !sort.down : false };
      showTable();
    } }, title));
  $("#detectors thead").replaceChildren(el("tr", {}, head("detector", "No.", true), head("name", "Detector"), head("state", "State"),
    shown.map((quantity) => head(quantity.key, quantity.unit ? `${quantity.title} [${quantity.unit}]` : quantity.title, true)), el("th", {}, "Reason")));
  $("#detectors tbody").replaceChildren(...cells.map((cell) => el("tr", { "data-href": `?detector=${cell.detector}`, "data-detector": cell.detector, "aria-selected": String(cell.detector === opened) },
    el("td", { class: "num" }, String(cell.detector)), el("td", {}, el("a", { href: `?detector=${cell.detector}` }, cell.name)),
    el("td", {}, el("span", { class: "state", "data-state": cell.state }, cell.state)),
    shown.map((quantity) => el("td", { class: "num" }, number(cell.metrics[quantity.key], quantity.decimals))),
    el("td", { title: cell.reason }, cell.reason ?? ""))));
  setText($("#count"), String(cells.length));
}

async function open(detector) {
  opened = detector;
  history.replaceState(null, "", detector === null ? location.pathname : `?detector=${detector}`);
  document.querySelectorAll("#detectors tr[data-detector]").forEach((row) => row.setAttribute("aria-selected", String(Number(row.dataset.detector) === detector)));
  const box = $("#detail");
  if (detector === null) {
    box.hidden = true;
    viewer.stars(null);
    return;
  }
  const found = await showDetector(box, camera, id, detector, () => open(null), viewer);
  if (found) box.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

// ---- failures, versions, facts ---------------------------------------------------------------------

async function showFailures() {
  const { failures } = await getJSON(`/api/exposures/${id}/failures`);
  drawFailures($("#failures"), failures, camera);
}

const facts = (title, entries) => (entries.length ? el("div", {}, el("h2", {}, title), el("table", { class: "facts" }, entries.map(([name, value]) => el("tr", {}, el("td", {}, name), el("td", {}, value))))) : null);

async function showAbout() {
  const versions = await getJSON(`/api/exposures/${id}/versions`);
  const shownFact = ([name, value]) => value !== null && value !== "" && !["detector", "detector_name", "detector_serial", "excluded_amps"].includes(name);
  const word = (value) => (typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(7))) : String(value));
  const fromBegin = taiMs(view.info.begin);
  const versionList = versions.map((summary) => [`${summary.pipeline} v${summary.version}`, el("span", {},
    `${summary.n_finished}/${summary.n_expected}, ${summary.reason}, ${clock(Date.parse(summary.gathered_at))} UTC `,
    ...Object.entries(summary.products).map(([kind, key]) => el("a", { href: productUrl(key) }, `${kind} `)))]);
  const newest = view.summaries.flatMap((summary) => Object.entries(summary.timings).map(([step, seconds]) => [`${summary.pipeline} ${step.replace(/_s$/, "")}`, `${number(seconds, 3)} s`]));
  $("#about").replaceChildren(...[
    facts("Summaries", versionList),
    facts("Gather", newest),
    facts("Exposure", [["begin UTC", clock(fromBegin)], ...Object.entries(view.info).filter(shownFact).map(([name, value]) => [["begin", "end"].includes(name) ? `${name} TAI` : name.replaceAll("_", " "), word(value)])]),
    facts("Dispatched under", dispatched()),
    facts("Excluded", excluded()),
    summaryNumbers(view.row.metrics, camera.quantities),
  ].filter(Boolean));
}

/** The control state that this exposure was dispatched under, as it recorded it. */
function dispatched() {
  const summary = view.summaries.find((one) => one.pipeline === view.row.pipeline) ?? view.summaries[0];
  return Object.entries(summary?.control ?? {}).map(([name, value]) => [name.replaceAll("_", " "), value !== null && typeof value === "object" ? JSON.stringify(value) : number(value, Number.isInteger(value) ? 0 : 2)]);
}

/** What is switched off in this exposure, with the reason: detectors, then amps. */
function excluded() {
  const amps = Object.entries(view.info.excluded_amps ?? {}).flatMap(([detector, reasons]) => Object.entries(reasons).map(([amp, reason]) => [`${detector}/${amp}`, reason]));
  return [...view.row.excluded.map((one) => [one.name, one.reason ?? ""]), ...amps];
}

function showAll() {
  menu.offer(view.detectors);
  plane.quantity = menu.key ? quantityOf(menu.key, camera.quantities) : null;
  plane.setCells(view.detectors);
  drawLegend($("#legend"), view.detectors, menu.key);
  showOverview();
  showPicture();
  showTable();
  showGuiders($("#guiders"), camera, view).catch(() => {});
}

async function refresh() {
  view = await getJSON(`/api/exposures/${id}`);
  showAll();
  await Promise.all([showFailures(), showAbout(), showGantt()]);
}

async function neighbour(by) {
  const night = await getJSON(`/api/nights/${view.row.day_obs}`);
  const at = night.exposures.findIndex((row) => row.exposure_id === id);
  const next = night.exposures[at - by]; // newest first
  if (next) location.assign(`/exposure/${next.exposure_id}`);
}

$("#gantt-whole").addEventListener("click", () => {
  wholeTimeline = !wholeTimeline;
  drawGantt();
});
const loadComments = mountComments($("#comments"), id);
let due = 0;
let shownVersion = view.row.version;
const stream = new LiveStream({
  after: data.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    exposures: (message) => {
      const update = message.exposures.find((one) => one.row.exposure_id === id);
      if (!update) return;
      view.row = update.row;
      const cells = new Map(view.detectors.map((cell) => [cell.detector, cell]));
      const ours = update.cells.filter((cell) => (cells.get(cell.detector)?.pipeline ?? cell.pipeline) === cell.pipeline || cell.pipeline === update.row.pipeline);
      for (const cell of ours) cells.set(cell.detector, cell);
      view.detectors = [...cells.values()].sort((a, b) => a.detector - b.detector);
      menu.offer(view.detectors);
      if (!plane.quantity && menu.key) plane.setMetric(menu.key);
      plane.update(ours);
      drawLegend($("#legend"), view.detectors, menu.key);
      showOverview();
      showTable();
      if (ours.some((cell) => cell.pipeline === "guider")) showGuiders($("#guiders"), camera, view).catch(() => {});
      if (update.products) {
        clearTimeout(due);
        due = setTimeout(() => {
          if (update.row.version !== shownVersion) viewer.forget();
          shownVersion = update.row.version;
          refresh().catch(() => {});
        }, 50);
      }
    },
    log: (message) => message.exposure_id === id && loadComments(),
    sources: (message) => showSources(message.sources),
    reset: async () => {
      loadComments();
      const now = await getJSON("/api/now");
      await refresh();
      stream.resumeAfter(now.as_of);
    },
  },
});

startShell({
  offset: () => stream.offsetMs,
  keys: {
    ArrowLeft: () => neighbour(-1),
    ArrowRight: () => neighbour(1),
    m: (event) => menu.next(event.shiftKey ? -1 : 1),
    d: () => {
      plane.canvas.focus();
      plane.key(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    },
    Escape: () => open(null),
    z: () => (opened === null ? viewer.home() : viewer.look(opened)),
  },
});
$("#detectors tbody").addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-detector]");
  if (!row) return;
  event.preventDefault();
  open(Number(row.dataset.detector));
});
document.title = `${seq(view.row.seq_num)} · ${document.title}`;
showAll();
showFailures().catch(() => {});
showAbout().catch(() => {});
showGantt().catch((error) => setText($("#gantt-note"), error.message));
startReprocess($("#reprocess"), $("#again"), { id, pipeline: () => view.row.pipeline, names: (detector) => camera.detectors.find((place) => place.id === detector)?.name, opened: () => opened });
const asked = new URLSearchParams(location.search).get("detector");
if (asked !== null && /^\d+$/.test(asked)) open(Number(asked));
