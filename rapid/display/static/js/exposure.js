// One exposure's own page: picture, focal plane, every detector, the versions of its summary, and what failed.

import { $, boot, el, getJSON, setText } from "./dom.js";
import { detectorNodes, facts, failureNode, measures, productLinks } from "./detector.js";
import { FocalPlane } from "./focalplane.js";
import { DASH, clock, number, quantityOf, seq, taiMs, utcMs } from "./format.js";
import { showLegend } from "./legend.js";
import { MetricMenu, measured } from "./metricmenu.js";
import { Picture, mosaicOf, productUrl } from "./picture.js";
import { ScaleBar } from "./scale.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const { camera, view, as_of: asOf, heartbeat_s: heartbeatS } = boot();
const id = view.row.exposure_id;
const places = new Map(camera.detectors.map((place) => [place.id, place]));
const byName = new Map(camera.detectors.map((place) => [place.name, place]));
const cells = new Map(view.detectors.map((cell) => [cell.detector, cell]));
let sort = { key: "detector", up: true };

const bar = new ScaleBar($("#scale"));
const plane = new FocalPlane($("#plane"), camera, {
  onPick: (detector) => { location.hash = places.get(detector).name; },
  onScale: (colours, quantity, marked) => quantity && bar.show(colours, quantity, marked),
});
const menu = new MetricMenu($("#metric"), camera, (key) => plane.setMetric(key));
const picture = new Picture($("#mosaic"));

function showOverview() {
  const { row } = view;
  const tiles = camera.tiles[["bias", "dark", "flat"].includes(row.image_type) ? "calibration" : "sky"];
  const counts = tiles.map((tile) => [tile.title, row.metrics[tile.keys.find((key) => typeof row.metrics[key] === "number")], tile]);
  $("#counts").replaceChildren(
    el("div", {}, el("h2", {}, "State"), el("b", {}, `${row.n_finished}/${row.n_expected}`),
      el("span", { class: "state", "data-state": row.state }, row.version ? `${row.state}, version ${row.version}` : row.state)),
    ...counts.map(([title, value, tile]) => el("div", {}, el("h2", {}, title), el("b", {}, number(value ?? null, tile.decimals)),
      el("span", { class: "dim" }, [tile.unit, row.is_provisional && value !== undefined ? "so far" : ""].filter(Boolean).join(" ") || " "))),
    el("div", { class: "missing" }, el("h2", {}, "Missing"), row.missing.length
      ? row.missing.map((lost) => el("div", {}, el("a", { href: `#${lost.name}`, class: "state", "data-state": lost.state }, lost.name), ` ${lost.reason ?? lost.state}`))
      : el("span", { class: "dim" }, row.state === "complete" ? "none" : "none yet")));
}

function showPicture() {
  const name = mosaicOf(view.products);
  picture.show(name && productUrl(view.products[name]), { alt: `mosaic of ${id}`, keep: true, empty: view.row.version ? "No mosaic was made" : "No mosaic yet" });
  const open = $("#mosaic-open");
  open.hidden = !name;
  if (name) open.href = productUrl(view.products[name]);
  setText($("#mosaic-note"), name ? `version ${/\.v(\d+)\./.exec(view.products[name])?.[1] ?? view.row.version}` : "");
}

function valueOf(cell, key) {
  if (key === "detector") return cell.detector;
  if (key === "name" || key === "state") return cell[key];
  if (key === "reason") return cell.reason ?? "";
  return cell.metrics[key] ?? null;
}

function showDetectors() {
  const keys = measured(cells.values(), camera.quantities);
  const columns = [{ key: "detector", title: "number", num: true }, { key: "name", title: "name" }, { key: "state", title: "state" },
    ...keys.map((key) => ({ ...quantityOf(key, camera.quantities), key, num: true })), { key: "reason", title: "reason" }];
  const sign = sort.up ? 1 : -1;
  const rows = [...cells.values()].sort((a, b) => {
    const [x, y] = [valueOf(a, sort.key), valueOf(b, sort.key)];
    if (x === null || y === null) return (x === null) - (y === null); // the unmeasured last, either way
    return (typeof x === "number" ? x - y : String(x).localeCompare(String(y))) * sign || a.detector - b.detector;
  });
  const table = $("#detectors");
  table.tHead.replaceChildren(el("tr", {}, columns.map((column) => el("th", {
    class: column.num ? "num" : null, "aria-sort": column.key === sort.key ? (sort.up ? "ascending" : "descending") : null,
  }, el("button", { onclick: () => { sort = { key: column.key, up: column.key === sort.key ? !sort.up : !column.num || column.key === "detector" }; showDetectors(); } },
    column.unit ? `${column.title} [${column.unit}]` : column.title)))));
  table.tBodies[0].replaceChildren(...rows.map((cell) => el("tr", { "data-href": `#${cell.name}`, onclick: () => { location.hash = cell.name; } },
    columns.map((column) => {
      if (column.key === "name") return el("td", {}, el("a", { href: `#${cell.name}` }, cell.name));
      if (column.key === "state") return el("td", {}, el("span", { class: "state", "data-state": cell.state }, cell.state));
      if (column.key === "reason") return el("td", { title: cell.reason }, cell.reason ?? "");
      return el("td", { class: "num" }, column.key === "detector" ? String(cell.detector) : number(valueOf(cell, column.key), column.decimals));
    }))));
  setText($("#count"), `${rows.length} asked for`);
}

function showAbout(versions) {
  const { row, info } = view;
  const time = (iso, ms) => (iso ? `${iso.slice(0, 10)} ${clock(ms(iso))} UTC` : DASH);
  const told = Object.entries(info).filter(([key, value]) => value !== null && !["begin", "end"].includes(key));
  $("#about").replaceChildren(
    el("div", {}, el("h2", {}, "Exposure"), facts([
      ["id", String(id)], ["begin", time(row.begin, taiMs)], ["end", time(row.end, taiMs)], ["heard of", time(row.first_seen, utcMs)],
      ...told.map(([key, value]) => [key.replaceAll("_", " "), typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(8))) : String(value)]),
    ])),
    el("div", {}, el("h2", {}, "Versions of the summary"), versions.length
      ? el("table", { class: "grid" },
        el("thead", {}, el("tr", {}, ["pipeline", "version", "why", "finished", "gathered [UTC]"].map((title) => el("th", {}, title)))),
        el("tbody", {}, versions.map((one) => el("tr", {}, el("td", {}, one.pipeline), el("td", {}, String(one.version)), el("td", {}, one.reason),
          el("td", {}, `${one.n_finished}/${one.n_expected}`), el("td", {}, clock(utcMs(one.gathered_at)))))))
      : el("p", { class: "dim" }, "No summary yet.")),
    el("div", {}, el("h2", {}, "Products"), ...productLinks(view.products)),
    el("div", {}, el("h2", {}, "Timings of the gather"), Object.keys(row.timings).length ? measures(row.timings) : el("p", { class: "dim" }, DASH)),
    el("div", {}, el("h2", {}, "Numbers of the focal plane"), facts(Object.entries(row.metrics).map(([key, value]) => {
      const quantity = quantityOf(key, camera.quantities);
      const kind = /_(median|mean|scatter|total|min|max)$/.exec(key)?.[1];
      return [kind && !quantity.title.includes(kind) ? `${quantity.title}, ${kind}` : quantity.title, `${number(value, quantity.decimals)} ${quantity.unit}`.trim()];
    }))));
}

function showFailures(failures) {
  const box = $("#failures");
  box.hidden = !failures.length;
  box.replaceChildren(el("header", {}, el("h2", {}, "Failures")),
    ...failures.map((failure) => failureNode(failure, places.get(failure.detector)?.name ?? (failure.detector === null ? "gather" : `detector ${failure.detector}`))));
}

let extras = 0;
async function loadExtras() {
  const mine = (extras += 1);
  const [versions, failures] = await Promise.allSettled([getJSON(`/api/exposures/${id}/versions`), getJSON(`/api/exposures/${id}/failures`)]);
  if (mine !== extras) return; // a later question is already on its way
  showAbout(versions.value ?? []);
  showFailures(failures.value?.failures ?? []);
}

async function showDetail() {
  const box = $("#detail");
  const place = byName.get(decodeURIComponent(location.hash.slice(1)));
  box.hidden = !place;
  if (!place) return;
  const close = el("button", { class: "push", "aria-label": "Close", onclick: () => { history.replaceState(null, "", location.pathname + location.search); box.hidden = true; } }, "✕");
  const body = el("div", {}, "loading…");
  box.replaceChildren(el("header", {}, el("h1", {}, place.name, el("span", { class: "dim" }, ` ${place.id} ${place.physical_type}`)), close), body);
  body.replaceChildren(...(await detectorNodes(id, place.id, camera)));
  box.scrollIntoView({ block: "nearest" });
}

function showAll() {
  plane.setCells([...cells.values()]);
  menu.offer([...cells.values()]);
  showLegend($("#legend"), cells.values());
  showOverview();
  showPicture();
  showDetectors();
}

function apply(update) {
  view.row = update.row;
  for (const cell of update.cells) cells.set(cell.detector, cell);
  if (update.info) view.info = update.info;
  if (update.products) view.products = update.products;
  plane.update(update.cells);
  menu.offer([...cells.values()]);
  showLegend($("#legend"), cells.values());
  showOverview();
  showPicture();
  showDetectors();
  if (update.products || update.cells.some((cell) => cell.state === "failed")) loadExtras();
}

async function reload() {
  const fresh = await getJSON(`/api/exposures/${id}`).catch(() => null);
  if (!fresh) return;
  Object.assign(view, fresh);
  cells.clear();
  for (const cell of fresh.detectors) cells.set(cell.detector, cell);
  showAll();
  loadExtras();
}

async function step(by) {
  const night = await getJSON(`/api/nights/${view.row.day_obs}`);
  const ids = night.exposures.map((row) => row.exposure_id); // newest first
  const next = ids[ids.indexOf(id) - by];
  if (next) location.assign(`/exposure/${next}${location.search}${location.hash}`);
}

let offset = 0;
startShell({
  offset: () => offset,
  keys: {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), m: (event) => menu.step(event.shiftKey ? -1 : 1), d: () => $("#plane").focus(),
    Escape: () => $("#detail button")?.click(),
  },
});
const stream = new LiveStream({
  after: asOf,
  heartbeatS,
  handlers: {
    exposures: ({ exposures }) => exposures.filter((update) => update.row.exposure_id === id).forEach(apply),
    sources: ({ sources }) => showSources(sources),
    reset: reload,
    heartbeat: () => { offset = stream.offsetMs; },
  },
});
addEventListener("hashchange", showDetail);
document.title = `${seq(view.row.seq_num)} · ${document.title}`;
showAll();
loadExtras();
showDetail();
