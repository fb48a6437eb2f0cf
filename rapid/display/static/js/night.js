// The night's table: newest first, live, sorted, filtered and coloured as the user likes, a thousand rows without a stutter.

import { $, boot, el, getJSON, setText } from "./dom.js";
import { drawCalendar } from "./calendar.js";
import { ColourScale } from "./colours.js";
import { CHOSEN_AT_FIRST, columnsOf } from "./columns.js";
import { matcher } from "./filters.js";
import { DASH, quantityOf } from "./format.js";
import { MoviePlayer } from "./movie.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const ROW_PX = 29;
const MARGIN = 12;
const data = boot();
const query = new URLSearchParams(location.search);
const memory = `rapid.columns.${data.camera.name}`;

let rows = new Map();
let flags = {}; // by exposure id: what observers said of it in the night log
let columns = [];
let shown = []; // rows after filters, in order
let sort = { key: query.get("sort")?.replace(/^-/, "") ?? "seq_num", down: !query.has("sort") || query.get("sort").startsWith("-") };
let filters = new Map([...query].filter(([name]) => name.startsWith("f.")).map(([name, text]) => [name.slice(2), text]));
let coloured = new Set(query.get("colour")?.split(",").filter(Boolean) ?? []);
let scales = new Map(); // colour scales of the coloured columns, over the rows that are shown
let chosen = query.get("columns")?.split(",") ?? remembered() ?? CHOSEN_AT_FIRST;
let cursor = Number(query.get("exposure")) || null;

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(memory));
  } catch {
    return null;
  }
}

// ---- address and memory ---------------------------------------------------------------------------

function remember() {
  const next = new URLSearchParams();
  if (sort.key !== "seq_num" || !sort.down) next.set("sort", (sort.down ? "-" : "") + sort.key);
  if (chosen.join() !== CHOSEN_AT_FIRST.join()) next.set("columns", chosen.join(","));
  if (coloured.size) next.set("colour", [...coloured].join(","));
  for (const [key, text] of filters) if (text) next.set(`f.${key}`, text);
  if (cursor) next.set("exposure", cursor);
  history.replaceState(null, "", `${location.pathname}${next.size ? `?${next}` : ""}`);
}

// ---- table ----------------------------------------------------------------------------------------

function visible() {
  return chosen.map((key) => columns.find((column) => column.key === key)).filter(Boolean);
}

function drawHead() {
  const cells = visible();
  const heads = cells.map((column) => el("th", {
    class: column.isNumber ? "num" : "", scope: "col", title: column.key,
    "aria-sort": sort.key === column.key ? (sort.down ? "descending" : "ascending") : null,
  }, el("button", { onclick: () => sortBy(column) }, column.unit ? `${column.title} [${column.unit}]` : column.title),
    !column.isNumber ? null : el("button", { class: "tint", "aria-pressed": String(coloured.has(column.key)), title: "Colour by value", "aria-label": `Colour ${column.title} by value`, onclick: () => tint(column) }, "◧")));
  const inputs = cells.map((column) => {
    const input = el("input", {
      type: "search", "aria-label": `Filter ${column.title}`, placeholder: column.isNumber ? "a..b" : "", value: filters.get(column.key) ?? "",
      title: column.isNumber ? "A range 0.5..0.9, a bound >0.8 or <=1, a number, or - for missing" : "Part of the text; several with |; ! for not",
    });
    input.addEventListener("input", () => {
      filters.set(column.key, input.value);
      if (!input.value) filters.delete(column.key);
      input.setAttribute("aria-invalid", String(matcher(column, input.value) === null));
      arrange();
    });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Escape" || event.key === "Enter" || event.key === "ArrowDown") {
        event.preventDefault();
        input.blur();
        $("#scroll").focus();
      }
    });
    return el("th", {}, input);
  });
  $("#table thead").replaceChildren(el("tr", {}, heads), el("tr", { class: "filters" }, inputs));
}

function sortBy(column) {
  sort = { key: column.key, down: sort.key === column.key ? !sort.down : column.isNumber };
  drawHead();
  arrange();
}

function tint(column) {
  if (!coloured.delete(column.key)) coloured.add(column.key);
  drawHead();
  arrange();
}

/** Filter and sort anew, then paint; lines of exposures that are as they were may stay where no colour depends on others. */
function arrange({ keep = false } = {}) {
  const tests = [...filters].map(([key, text]) => [columns.find((column) => column.key === key), text]).filter(([column]) => column)
    .map(([column, text]) => [column, matcher(column, text)]).filter(([, test]) => test);
  const by = columns.find((column) => column.key === sort.key) ?? columns[0];
  shown = [...rows.values()].filter((row) => tests.every(([column, test]) => test(column.value(row))));
  scales = new Map([...coloured].map((key) => {
    const column = columns.find((one) => one.key === key);
    const values = column ? shown.map((row) => column.value(row)).filter((value) => typeof value === "number") : [];
    return [key, values.length ? new ColourScale(values, quantityOf(key, data.camera.quantities)) : null];
  }));
  const sign = sort.down ? -1 : 1;
  shown.sort((a, b) => compare(by.value(a), by.value(b), sign) || b.seq_num - a.seq_num);
  setText($("#count"), shown.length === rows.size ? `${rows.size}` : `${shown.length} of ${rows.size}`);
  $("#clear").hidden = !filters.size;
  const empty = $("#empty");
  empty.hidden = shown.length > 0;
  setText(empty, rows.size ? "No exposure passes the filters" : "Nothing has been taken this night");
  remember();
  if (!keep || coloured.size) drawn = new Map();
  paint();
}

/** Missing values go last whichever way the column is sorted. */
function compare(a, b, sign) {
  const [noA, noB] = [a === null || a === undefined, b === null || b === undefined];
  if (noA || noB) return noA - noB;
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

let painting = false;
let drawn = new Map(); // lines in the document and beside it, by exposure id; those that still hold are used again

function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    const box = $("#scroll");
    const first = Math.max(0, Math.floor(box.scrollTop / ROW_PX) - MARGIN);
    const last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW_PX) + MARGIN);
    const cells = visible();
    const kept = new Map();
    for (const row of shown.slice(first, last)) {
      const line = drawn.get(row.exposure_id) ?? el("tr", { "data-href": `/exposure/${row.exposure_id}`, "data-id": row.exposure_id }, cells.map((column) => cellOf(column, row)));
      line.setAttribute("aria-selected", String(row.exposure_id === cursor));
      kept.set(row.exposure_id, line);
    }
    drawn = kept;
    put($("#table tbody"), [...gap(above, first, cells.length), ...kept.values(), ...gap(below, shown.length - last, cells.length)]);
    $("#table").setAttribute("aria-rowcount", String(shown.length));
  });
}

const [above, below] = [0, 1].map(() => el("tr", { "aria-hidden": "true" }, el("td", { style: "border:0" })));

/** The line that stands for so many that are out of sight. */
function gap(line, count, nColumns) {
  if (count <= 0) return [];
  line.firstChild.colSpan = nColumns;
  line.firstChild.style.height = `${count * ROW_PX}px`;
  return [line];
}

/** Have a body hold these lines, touching only those that come or go: what stays costs no layout. */
function put(body, lines) {
  const wanted = new Set(lines);
  for (const line of [...body.children]) if (!wanted.has(line)) line.remove();
  let next = body.firstChild;
  for (const line of lines) {
    if (line === next) next = next.nextSibling;
    else body.insertBefore(line, next);
  }
}

function cellOf(column, row) {
  const value = column.value(row);
  const text = column.text(value, row);
  if (column.key === "state") {
    const why = row.missing.map((one) => `${one.name}: ${one.state}${one.reason ? `, ${one.reason}` : ""}`).join("\n");
    return el("td", { title: why }, el("span", { class: "state", "data-state": row.state }, text));
  }
  if (column.key === "flag" && value) return el("td", {}, el("span", { class: "flag", "data-flag": value }, text));
  if (column.key === "seq_num") return el("td", { class: "num" }, el("a", { href: `/exposure/${row.exposure_id}` }, text));
  const scale = scales.get(column.key);
  const style = scale && typeof value === "number" ? `background:${scale.colour(value)};color:${scale.ink(value)}` : null;
  const dim = text === DASH || (row.is_provisional && column.isMetric);
  return el("td", { class: `${column.isNumber ? "num" : ""} ${dim ? "dim" : ""}`, style, title: typeof value === "number" ? String(value) : text }, text);
}

// ---- columns --------------------------------------------------------------------------------------

function drawChooser() {
  const box = $("#chooser");
  box.replaceChildren(...columns.map((column) => {
    const input = el("input", { type: "checkbox", checked: chosen.includes(column.key) });
    input.addEventListener("change", () => {
      chosen = input.checked ? [...chosen, column.key] : chosen.filter((key) => key !== column.key);
      try {
        localStorage.setItem(memory, JSON.stringify(chosen));
      } catch {
        // storage may be forbidden: the address still has the columns
      }
      drawHead();
      arrange();
    });
    return el("label", { title: column.key }, input, ` ${column.title}${column.unit ? ` [${column.unit}]` : ""}`);
  }));
}

function download() {
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const plain = (value) => {
    if (value === null || value === undefined) return "";
    return typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value); // no formula from a header
  };
  const cells = visible();
  const lines = [["exposure_id", ...cells.map((column) => column.key)], ...shown.map((row) => [row.exposure_id, ...cells.map((column) => plain(column.value(row)))])];
  const file = new Blob([lines.map((line) => line.map((text) => quote(String(text))).join(",")).join("\n"), "\n"], { type: "text/csv" });
  const link = el("a", { href: URL.createObjectURL(file), download: `${data.camera.name}_${data.day_obs}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- keyboard -------------------------------------------------------------------------------------

function move(by) {
  if (!shown.length) return;
  const at = shown.findIndex((row) => row.exposure_id === cursor);
  const next = at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1);
  cursor = shown[next].exposure_id;
  const box = $("#scroll");
  const [top, head] = [next * ROW_PX, $("#table thead").offsetHeight];
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW_PX + head > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_PX + head - box.clientHeight;
  remember();
  paint();
}

const page = () => Math.max(1, Math.floor($("#scroll").clientHeight / ROW_PX) - 3);

// ---- data -----------------------------------------------------------------------------------------

function learn(list) {
  for (const row of list) {
    rows.set(row.exposure_id, { ...row, flag: flags[row.exposure_id] ?? null });
    drawn.delete(row.exposure_id);
  }
  const found = columnsOf(rows.values(), (key) => quantityOf(key, data.camera.quantities));
  const keep = found.map((column) => column.key).join() === columns.map((column) => column.key).join();
  if (!keep) {
    columns = found;
    drawChooser();
    if (!$("#table thead").contains(document.activeElement)) drawHead();
  }
  arrange({ keep });
}

let asked = 0;
/** Flags anew; an answer that a later question has overtaken is not taken. */
async function loadFlags() {
  asked += 1;
  const mine = asked;
  const log = await getJSON(`/api/log/${data.day_obs}`);
  if (mine !== asked) return;
  flags = log.flags;
  learn([...rows.values()]);
}

async function load() {
  const night = await getJSON(`/api/nights/${data.day_obs}`);
  rows = new Map();
  learn(night.exposures);
  if (stream) stream.resumeAfter(night.as_of);
  loadFlags().catch(failFlags);
  drawCalendar($("#calendar"), await getJSON("/api/nights"), data.day_obs);
}

let stream = null;
const failFlags = (error) => setText($("#flags-note"), `no flags: ${error.message}`);
const fail = (error) => setText($("#count"), error.message);

startShell({
  offset: () => stream?.offsetMs ?? 0,
  keys: {
    ArrowDown: () => move(1), j: () => move(1), ArrowUp: () => move(-1), k: () => move(-1),
    PageDown: () => move(page()), PageUp: () => move(-page()), Home: () => move(-1e9), End: () => move(1e9),
    Enter: () => cursor && location.assign(`/exposure/${cursor}`),
    "/": () => $("#table thead input")?.focus(),
  },
});
$("#scroll").addEventListener("scroll", paint, { passive: true });
new ResizeObserver(paint).observe($("#scroll"));
$("#table tbody").addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-href]");
  if (row && !event.target.closest("a") && !getSelection().toString()) location.assign(row.dataset.href);
});
$("#csv").addEventListener("click", download);
$("#clear").addEventListener("click", () => {
  filters = new Map();
  drawHead();
  arrange();
});
$("#columns").addEventListener("click", (event) => {
  $("#chooser").hidden = !$("#chooser").hidden;
  event.target.setAttribute("aria-expanded", String(!$("#chooser").hidden));
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") $("#chooser").hidden = true;
});

const movie = new MoviePlayer($("#movie"), $("#movie-open"), data.day_obs);

load().then(() => {
  if (query.get("focus") === "filter") $("#table thead input")?.focus();
}, fail);
stream = new LiveStream({
  after: data.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    exposures: (message) => {
      const ours = message.exposures.map((update) => update.row).filter((row) => row.day_obs === data.day_obs);
      if (ours.length) learn(ours);
    },
    sources: (message) => showSources(message.sources),
    log: (message) => message.day_obs === data.day_obs && loadFlags().then(() => setText($("#flags-note"), ""), failFlags),
    night: (message) => message.day_obs === data.day_obs && movie.look(),
    reset: () => load().catch(fail),
  },
});
