// The page that is open all night: the newest exposure, unless the user stepped back.

import { StripCharts, sparkline, whenOf } from "./charts.js";
import { $, boot, el, getJSON, hideTip, paintable, setText, showTip, theme } from "./dom.js";
import { FocalPlane } from "./focalplane.js";
import { DASH, day, excludedWords, firstOf, number, quantityOf, seq, span } from "./format.js";
import { drawLegend, MetricMenu } from "./metrics.js";
import { linkPictureAndPlane, mosaicOf, Picture, productUrl } from "./picture.js";
import { PlaneFrame } from "./planeframe.js";
import { ScaleBar } from "./scale.js";
import { startShell } from "./shell.js";
import { LiveStream, showHeld, showSources } from "./stream.js";
import { Timeline } from "./timeline.js";

const TREND_MS = 30 * 60_000;
const data = boot();
const camera = data.camera;

let rows = new Map(); // by exposure id: the night
let order = []; // the same, oldest first
let shown = data.now.exposure; // what is on the page
let follows = true;
let dayObs = data.now.day_obs;
let cadenceS = data.now.cadence_s;
let kind = "mosaic"; // which mosaic is looked at

const scaleBar = new ScaleBar($("#scale"));
const plane = new FocalPlane($("#plane"), camera, {
  onPick: (detector) => shown && location.assign(`/exposure/${shown.row.exposure_id}?detector=${detector}`),
  onScale: (colours, quantity, marked) => scaleBar.show(colours, quantity, marked),
});
const menu = new MetricMenu($("#metric"), camera, (key) => {
  plane.setMetric(key);
  drawLegend($("#legend"), shown?.detectors ?? [], key);
});
const frame = new PlaneFrame($("#plane-frames"), plane, {
  frame: new URLSearchParams(location.search).get("frame"),
  onChange: () => history.replaceState(null, "", addressOf(follows ? null : shown?.row.exposure_id)),
});
const picture = new Picture($("#mosaic"));
linkPictureAndPlane(picture, plane);
const timeline = new Timeline($("#timeline"), { onPick: hold });
const tilesOf = (row) => camera.tiles[["bias", "dark", "flat"].includes(row?.image_type) ? "calibration" : "sky"];
const charts = new StripCharts($("#charts"), [], { onPick: hold });
let tiles = [];

/** The page's address: of an exposure, or of whatever is newest. */
function addressOf(exposureId) {
  const query = new URLSearchParams();
  if (exposureId) query.set("exposure", exposureId);
  if (frame.frame !== "camera") query.set("frame", frame.frame);
  return `/${query.size ? `?${query}` : ""}`;
}

function sortRows() {
  order = [...rows.values()].sort((a, b) => a.seq_num - b.seq_num || a.exposure_id - b.exposure_id);
}

// ---- painting -----------------------------------------------------------------------------------

function showHeader() {
  const row = shown?.row;
  setText($("#day"), day(row?.day_obs ?? dayObs));
  $("#day").href = `/night/${row?.day_obs ?? dayObs ?? ""}`;
  $("#nav-night").href = $("#day").href;
  setText($("#seq"), row ? seq(row.seq_num) : "——");
  $("#seq").href = row ? `/exposure/${row.exposure_id}` : "/";
  const facts = row ? [el("b", {}, row.image_type.toUpperCase()), row.physical_filter, row.object_name && `“${row.object_name}”`] : [];
  $("#facts").replaceChildren(...facts.filter(Boolean).map((fact) => (fact instanceof Node ? fact : el("span", {}, fact))));
  showHeld(!follows);
}

function showTiles() {
  const wanted = tilesOf(shown?.row);
  const boxes = [...document.querySelectorAll("#tiles [data-tile]")];
  if (wanted !== tiles) {
    tiles = wanted;
    boxes.forEach((box, at) => {
      box.dataset.tile = tiles[at].id;
      setText($("h2", box), tiles[at].title);
    });
  }
  const row = shown?.row;
  boxes.forEach((box, at) => {
    box.hidden = tiles[at].is_optional && !isMeasured(tiles[at]);
    showTile(box, tiles[at], row);
  });
  $("#tiles").style.setProperty("--n-tiles", boxes.filter((box) => !box.hidden).length);
  showPipeline(row);
}

/** Whether any exposure of the night has a tile's number: what nobody measures here has no place on the wall. */
const isMeasured = ({ keys }) => firstOf(shown?.row.metrics, keys) !== null || order.some((row) => firstOf(row.metrics, keys) !== null);

function showTile(box, tile, row) {
  const value = firstOf(row?.metrics, tile.keys);
  const text = number(value, tile.decimals);
  const span_ = $(".value span", box);
  if (span_.textContent !== text) {
    span_.textContent = text;
    box.classList.remove("fresh");
    requestAnimationFrame(() => box.classList.add("fresh"));
  }
  setText($(".value small", box), value === null ? "" : tile.unit);
  const note = $(".note", box);
  const notes = tile.notes.filter((quantity) => typeof row?.metrics?.[quantity.key] === "number")
    .map((quantity) => `${quantity.title} ${number(row.metrics[quantity.key], quantity.decimals)}${quantity.unit && ` ${quantity.unit}`}`);
  delete note.dataset.state;
  if (value !== null && (tile.low !== null || tile.high !== null)) {
    const out = (tile.low !== null && value < tile.low) || (tile.high !== null && value > tile.high);
    note.dataset.state = out ? "bad" : "ok";
    notes.unshift(out ? "✕ out of tolerance" : "● ok");
  }
  if (value !== null && row.is_provisional) notes.push(`of ${row.n_finished} so far`);
  if (tile.id === "seeing" && row?.airmass) notes.push(`airmass ${number(row.airmass, 2)}`);
  setText(note, notes.join(" · "));
}

/** Why a number is good or bad: its band, who set it and since when. */
function explainTile(box, event) {
  const tile = tiles.find((one) => one.id === box.dataset.tile);
  if (!tile) return;
  const value = firstOf(shown?.row.metrics, tile.keys);
  const bound = (limit) => `${number(limit, tile.decimals)}${tile.unit && ` ${tile.unit}`}`;
  const band = [tile.low !== null && `from ${bound(tile.low)}`, tile.high !== null && `up to ${bound(tile.high)}`].filter(Boolean).join(" ");
  const author = [tile.set_by && `set by ${tile.set_by}`, tile.since && `since ${tile.since}`].filter(Boolean).join(", ");
  const key = tile.keys.find((name) => typeof shown?.row.metrics?.[name] === "number") ?? tile.keys[0];
  const bounds = box.getBoundingClientRect();
  const at = event.clientX ? event : { clientX: bounds.left, clientY: bounds.bottom };
  showTip(at, ...[
    el("div", {}, el("b", {}, tile.title), ` ${value === null ? "not measured" : bound(value)}`),
    band ? el("div", {}, `good: ${band}`) : el("div", { class: "dim" }, "no tolerance has been set"),
    tile.why && el("div", {}, tile.why),
    author && el("div", { class: "dim" }, author),
    el("div", { class: "mono dim" }, key),
  ].filter(Boolean));
}

/** What went wrong comes before what only waits. */
const rank = ({ state }) => ["failed", "quarantined", "superseded"].indexOf(state) + 1 || 9;

/** What is switched off is named beside what is missing, and is not mistaken for it. */
function excludedNames(row) {
  const off = row?.excluded ?? [];
  const names = off.slice(0, 6).map((one) => el("a", {
    class: "state", "data-state": "excluded", title: `excluded: ${one.reason ?? "no reason given"}`, href: `/exposure/${row.exposure_id}?detector=${one.detector}`,
  }, one.name));
  const words = row ? excludedWords(row) : "";
  return words ? [el("span", { class: "dim" }, off.length === 1 && !row.n_excluded_amps && !row.n_later ? "excluded" : words), ...names] : [];
}

function showPipeline(row) {
  const box = $("#pipeline");
  setText($(".value span", box), row ? `${row.n_finished}/${row.n_expected}` : DASH);
  const took = row?.first_seen && row.updated !== row.first_seen && row.version ? `${number((Date.parse(row.updated) - Date.parse(row.first_seen)) / 1000, 1)} s` : "";
  const state = row ? el("span", { class: "state", "data-state": row.state }, row.state) : "";
  $(".value small", box).replaceChildren(" ", state, took && ` ${took}`);
  const bar = $(".bar", box);
  bar.replaceChildren(el("i", { style: `width:${row?.n_expected ? (100 * row.n_finished) / row.n_expected : 0}%` }),
    el("i", { class: "failed", style: `width:${row?.n_expected ? (100 * row.n_failed) / row.n_expected : 0}%` }));
  const missing = [...(row?.missing ?? [])].sort((a, b) => rank(a) - rank(b) || a.detector - b.detector);
  const names = missing.slice(0, 24).map((one) => el("a", {
    class: "state", "data-state": one.state, title: `${one.state}: ${one.reason ?? "no reason given"}`,
    href: `/exposure/${row.exposure_id}?detector=${one.detector}`,
  }, one.name));
  const reasons = new Set(missing.map((one) => one.reason));
  // Where all have one reason it stands first: that is what somebody has to mend.
  if (missing.length && reasons.size === 1 && missing[0].reason) names.splice(missing.length === 1 ? 1 : 0, 0, el("span", { class: "dim" }, missing[0].reason));
  if (missing.length > 24) names.push(el("span", {}, `and ${missing.length - 24} more`));
  if (row && !missing.length) {
    const version = row.version ? `summary version ${row.version}` : "no summary yet";
    names.push(el("span", { class: "dim" }, `${row.pipeline} · ${version}`));
  }
  names.push(...excludedNames(row));
  $(".missing", box).replaceChildren(...names);
}

const paintTrends = paintable($("#tiles canvas"), () => {
  const last = shown ? whenOf(shown.row) : NaN;
  const near = order.filter((row) => Math.abs(last - whenOf(row)) <= TREND_MS && whenOf(row) <= last);
  const colour = theme().accent;
  document.querySelectorAll("#tiles [data-tile]").forEach((box, at) => {
    const points = near.map((row) => ({ t: whenOf(row), v: firstOf(row.metrics, tiles[at].keys) })).filter(({ v }) => v !== null);
    sparkline($("canvas", box), points, colour);
  });
});

function showNight() {
  charts.tiles = tiles;
  charts.show(order, shown?.row.exposure_id);
  timeline.show(order, shown?.row.exposure_id);
  setText($("#night-note"), order.length ? `${order.length} exposure${order.length === 1 ? "" : "s"}` : "");
  paintTrends();
}

function showMosaic() {
  const products = shown?.products ?? {};
  const hasBoth = Boolean(products.mosaic_calibrated);
  const name = kind === "mosaic_calibrated" && hasBoth ? kind : mosaicOf(products);
  const row = shown?.row;
  const url = name ? productUrl(products[name]) : null;
  picture.show(url, { empty: row?.version ? "This summary has no mosaic" : row ? "The mosaic comes with the summary" : "Nothing has been taken tonight", alt: name ? `Mosaic of exposure ${row.exposure_id}` : "", keep: true });
  document.querySelectorAll("#kinds button").forEach((button) => {
    button.disabled = button.dataset.kind === "mosaic_calibrated" && !hasBoth;
    button.setAttribute("aria-pressed", String(button.dataset.kind === (name ?? "mosaic")));
  });
  const partial = row && name && row.n_summarised < row.n_expected ? `partial, ${row.n_summarised} of ${row.n_expected} detectors` : "";
  setText($("#mosaic-note"), partial);
  $("#mosaic-open").hidden = !url;
  // Where it can be zoomed into down to its pixels.
  if (url) $("#mosaic-open").href = products[`${name}_tiles`] ? `/exposure/${row.exposure_id}` : url;
}

function showPlane() {
  const cells = shown?.detectors ?? [];
  menu.offer(cells, shown?.row.image_type);
  plane.quantity = menu.key ? quantityOf(menu.key, camera.quantities) : null;
  plane.setCells(cells);
  frame.show(shown?.row ?? null);
  drawLegend($("#legend"), cells, menu.key);
}

/** Everything anew: another exposure is on show. */
function showAll() {
  showHeader();
  showTiles();
  showPlane();
  showMosaic();
  showNight();
}

// ---- what happens -------------------------------------------------------------------------------

function take(updates) {
  let fresh = null;
  for (const update of updates) {
    const { row } = update;
    if (row.day_obs > (dayObs ?? 0)) {
      dayObs = row.day_obs;
      rows = new Map();
    }
    if (row.day_obs !== dayObs) continue;
    rows.set(row.exposure_id, row);
    if (shown && row.exposure_id === shown.row.exposure_id) merge(update);
    else if (follows && (!shown || row.day_obs > shown.row.day_obs || row.seq_num > shown.row.seq_num)) fresh = update;
  }
  sortRows();
  if (fresh) {
    shown = { row: fresh.row, info: fresh.info ?? {}, products: fresh.products ?? {}, detectors: fresh.cells, summaries: [] };
    if (!fresh.is_new) step(fresh.row.exposure_id, { hold: false }); // it began before this page knew of it
    showAll();
  } else showNight();
}

function merge(update) {
  const zenith = shown.row.zenith_deg;
  shown.row = update.row;
  if (update.row.zenith_deg !== zenith) frame.show(update.row);
  if (update.info) shown.info = update.info;
  const cells = new Map(shown.detectors.map((cell) => [cell.detector, cell]));
  for (const cell of update.cells) {
    // A build's or a guider's cells do not hide those of the pipeline on show.
    const known = cells.get(cell.detector);
    if (!known || known.pipeline === cell.pipeline || cell.pipeline === update.row.pipeline) cells.set(cell.detector, cell);
  }
  shown.detectors = [...cells.values()];
  const before = menu.key;
  menu.offer(shown.detectors, shown.row.image_type);
  if (menu.key !== before) plane.quantity = quantityOf(menu.key, camera.quantities);
  plane.update(update.cells.filter((cell) => cells.get(cell.detector) === cell));
  drawLegend($("#legend"), shown.detectors, menu.key);
  if (update.products) {
    shown.products = update.products;
    showMosaic();
  }
  showHeader();
  showTiles();
}

/** Stay at an exposure, whatever comes; the newest one is followed again. */
function hold(exposureId) {
  const newest = order[order.length - 1]?.exposure_id;
  follows = exposureId === newest;
  step(exposureId);
}

let asked = 0;
async function step(exposureId) {
  asked += 1;
  const mine = asked;
  try {
    const view = await getJSON(`/api/exposures/${exposureId}`);
    if (mine !== asked) return;
    shown = view;
    rows.set(view.row.exposure_id, view.row);
    history.replaceState(null, "", addressOf(follows ? null : exposureId));
    showAll();
  } catch (error) {
    setText($("#plane-note"), error.message);
  }
}

function walk(by) {
  const at = order.findIndex((row) => row.exposure_id === shown?.row.exposure_id);
  const next = order[at + by];
  if (next) hold(next.exposure_id);
}

function live() {
  follows = true;
  const newest = order[order.length - 1];
  if (newest && newest.exposure_id !== shown?.row.exposure_id) step(newest.exposure_id);
  else {
    history.replaceState(null, "", addressOf(null));
    showHeader();
  }
}

async function loadNight() {
  if (!dayObs) return;
  const night = await getJSON(`/api/nights/${dayObs}`);
  for (const row of night.exposures) rows.set(row.exposure_id, row);
  if (shown && rows.has(shown.row.exposure_id) && !shown.row.version) rows.set(shown.row.exposure_id, shown.row);
  sortRows();
  showNight();
}

async function reload(stream) {
  try {
    const now = await getJSON("/api/now");
    dayObs = now.day_obs;
    cadenceS = now.cadence_s;
    rows = new Map();
    if (follows || !shown) shown = now.exposure;
    else step(shown.row.exposure_id);
    await loadNight();
    showAll();
    stream.resumeAfter(now.as_of);
  } catch (error) {
    setText($("#plane-note"), error.message);
    setTimeout(() => reload(stream), 2000);
  }
}

// ---- age of the last image -----------------------------------------------------------------------

function showAge() {
  const newest = order.length ? Math.max(...order.map((row) => Date.parse(row.first_seen) || 0)) : Date.parse(shown?.row.first_seen);
  const node = $("#age");
  const age = Date.now() + stream.offsetMs - newest;
  const known = Number.isFinite(age) && newest > 0;
  setText(node, known ? `last image ${span(age)} ago` : "no image yet");
  node.dataset.age = !known ? "none" : age > 5000 * cadenceS ? "stale" : age > 2000 * cadenceS ? "late" : "fresh";
  setTimeout(showAge, 1000);
}

// ---- start ---------------------------------------------------------------------------------------

const stream = new LiveStream({
  after: data.now.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    exposures: (message) => {
      cadenceS = message.cadence_s;
      take(message.exposures);
    },
    sources: (message) => showSources(message.sources),
    reset: () => reload(stream),
  },
});
stream.offsetMs = Date.parse(data.now.server_time) - performance.timeOrigin - performance.now();

startShell({
  offset: () => stream.offsetMs,
  keys: {
    ArrowLeft: () => walk(-1),
    ArrowRight: () => walk(1),
    l: live,
    m: (event) => menu.next(event.shiftKey ? -1 : 1),
    d: () => {
      plane.canvas.focus();
      plane.key(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    },
    e: () => shown && location.assign(`/exposure/${shown.row.exposure_id}`),
    "/": () => location.assign(`${$("#day").href}?focus=filter`),
  },
});
$("#live").addEventListener("click", live);
document.querySelectorAll("#tiles [data-tile]").forEach((box) => {
  box.addEventListener("click", (event) => explainTile(box, event));
  box.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && explainTile(box, event));
  for (const kind of ["pointerleave", "blur"]) box.addEventListener(kind, hideTip);
});
document.querySelectorAll("#kinds button").forEach((button) => button.addEventListener("click", () => {
  kind = button.dataset.kind;
  showMosaic();
}));

if (shown) rows.set(shown.row.exposure_id, shown.row);
sortRows();
const asked_ = Number(new URLSearchParams(location.search).get("exposure"));
if (asked_ && asked_ !== shown?.row.exposure_id) {
  follows = false;
  step(asked_);
}
showAll();
showAge();
loadNight().catch((error) => setText($("#night-note"), error.message));
