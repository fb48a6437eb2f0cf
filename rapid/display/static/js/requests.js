// Requests: what scripts and people have asked for, how far it is, what came out of it; and a form to ask.

import { change, showWho } from "./access.js";
import { $, boot, el, getJSON, setText } from "./dom.js";
import { clock, DASH, number, quantityOf, seq, span } from "./format.js";
import { productUrl } from "./picture.js";
import { RequestForm } from "./requestform.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const data = boot();
const { camera } = data;
const FINAL = ["done", "failed", "cancelled", "expired", "refused"];
/** Which sign stands before the word: known from the other pages. */
const SIGN = { posted: "waiting", accepted: "waiting", waiting: "waiting", running: "running", done: "complete", failed: "failed", cancelled: "superseded", expired: "partial", refused: "failed" };

let records = new Map(); // by id
let refused = new Map();
let filter = "all";
let opened = null;
let stream = null;

const nowMs = () => Date.now() + (stream?.offsetMs ?? 0);

// ---- words -----------------------------------------------------------------------------------------

function isRun(ids) {
  return ids.length > 2 && ids.every((id, at) => !at || id === ids[at - 1] + 1);
}

function shortId(id) {
  return seq(id % 100_000);
}

/** What was asked for, in few words. */
function words(spec) {
  if (!spec) return "could not be read";
  const { select } = spec;
  const items = select.exposures ?? [];
  const ids = items.filter((item) => typeof item === "number");
  const parts = [];
  if (select.exposures) {
    const ranges = items.filter((item) => typeof item !== "number").map((item) => `${shortId(item.first)}–${shortId(item.last)}`);
    const singles = isRun(ids) ? [`${shortId(ids[0])}–${shortId(ids.at(-1))}`] : ids.slice(0, 6).map(shortId);
    parts.push([...ranges, ...singles].join(", ") + (ids.length > 6 && !isRun(ids) ? ` and ${ids.length - 6} more` : ""));
  } else if (select.group) parts.push(`group ${select.group.group_id}`);
  else if (select.next) parts.push(`next ${select.next.n} ${select.next.image_type ?? "exposures"}`);
  else if (select.campaign) parts.push(`campaign ${spec.run}: ${select.campaign.nights.map((one) => (one.first === one.last ? one.first : `${one.first}–${one.last}`)).join(", ")}${select.campaign.where ? ` where ${select.campaign.where}` : ""}${select.campaign.holes ? `, holes of ${select.campaign.of}` : ""}`);
  else if (select.sequence) parts.push(`sequence of ${shortId(select.sequence.of)}`);
  if (spec.combine) parts.unshift(spec.combine.replaceAll("_", " "));
  if (spec.pipeline) parts.push(spec.pipeline);
  if (spec.detectors) parts.push(`on ${Array.isArray(spec.detectors) ? spec.detectors.join(" ") : spec.detectors}`);
  if (spec.guaranteed) parts.push("guaranteed");
  if (spec.when_whole) parts.push("when all are there");
  return parts.join(" · ");
}

function age(record) {
  const { created_ms: begin, finished_ms: end } = record;
  if (!begin) return DASH;
  return end ? `took ${span(end - begin)}` : `for ${span(nowMs() - begin)}`;
}

function bar(record) {
  const { progress } = record;
  const isFinal = FINAL.includes(record.state);
  const width = progress.of ? (100 * progress.done) / progress.of : 0;
  const exposures = progress.exposures_of === null ? (progress.exposures_done ? `${progress.exposures_done} exp.` : "") : `${progress.exposures_done}/${progress.exposures_of} exp.`;
  return [
    el("span", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": progress.of, "aria-valuenow": progress.done, "aria-label": "detectors" }, el("i", { style: `width:${width}%`, class: isFinal && record.state !== "done" ? "failed" : null })),
    el("span", {}, progress.of ? `${progress.done}/${progress.of}` : DASH), " ", el("span", { class: "dim" }, exposures),
  ];
}

/** The answer in one line, where the list has it. */
function outcome(record) {
  if (record.error) return el("span", {}, record.error.message);
  const { answer } = record;
  if (!answer && record.progress.lacks) return el("span", {}, `waits for ${record.progress.lacks}`);
  if (!answer) return record.deadline_ms && !FINAL.includes(record.state) ? el("span", { class: "dim" }, `until ${clock(record.deadline_ms)}`) : "";
  return el("span", {}, headline(answer));
}

function headline(answer) {
  const parts = [];
  if (answer.focus) parts.push(`best focus ${number(answer.focus.best_focus_mm, 3)} ± ${number(answer.focus.best_focus_error_mm, 3)} mm`);
  if (answer.donut_pair) parts.push(Object.entries(answer.donut_pair).filter(([, value]) => typeof value === "number").slice(0, 2).map(([key, value]) => quantityText(key, value)).join(", "));
  if (answer.calib) parts.push(answer.calib.passed ? `● ${answer.calib.kind} passed, ${answer.calib.n_amps} amps` : `✕ ${answer.calib.kind} failed: ${Object.keys(answer.calib.failing_amps).length} detectors`);
  if (answer.campaign) parts.push(`${answer.campaign.n_done} of ${answer.campaign.n_exposures} exposures, ${answer.campaign.n_failed} detectors without a result`);
  if (!parts.length) parts.push(`${answer.exposures.length} ${answer.exposures.length === 1 ? "exposure" : "exposures"}, ${answer.is_complete ? "complete" : "partial"}`);
  if (answer.missing.length || answer.lacking?.n_exposures) parts.push(`${answer.missing.length || answer.lacking.n_exposures} missing`);
  return parts.join(", ");
}

function quantityText(key, value) {
  const quantity = quantityOf(key, camera.quantities);
  return `${quantity.title} ${number(value, quantity.decimals)}${quantity.unit && ` ${quantity.unit}`}`;
}

// ---- the list --------------------------------------------------------------------------------------

const HEADS = ["State", "What", "Progress", "Outcome", "Who", "When (UTC)", ""];

function wanted() {
  if (filter === "refused") return [...refused.values()];
  return [...records.values()].filter((record) => filter === "all" || FINAL.includes(record.state) === (filter === "ended"));
}

function row(record) {
  const { request_id: id, spec } = record;
  const isOpen = opened === id;
  const line = el("tr", { "data-id": id, "aria-selected": isOpen ? "true" : null },
    el("td", {}, el("button", { type: "button", class: "plain", "aria-expanded": String(isOpen), onclick: () => open(isOpen ? null : id) }, el("span", { class: "state", "data-state": SIGN[record.state] }, record.state))),
    el("td", { class: "wrap" }, spec?.label ? el("b", {}, spec.label) : null, el("div", { class: spec?.label ? "dim" : "" }, words(spec))),
    el("td", {}, bar(record)),
    el("td", { class: "wrap" }, outcome(record)),
    el("td", {}, record.asked_by || DASH, el("div", { class: "dim" }, record.source)),
    el("td", {}, record.created_ms ? clock(record.created_ms) : DASH, el("div", { class: "dim age" }, age(record))),
    el("td", {}, FINAL.includes(record.state) ? "" : el("button", { type: "button", onclick: () => cancel(id) }, "Cancel")));
  return isOpen ? [line, el("tr", { class: "detail" }, el("td", { colspan: HEADS.length }, details(record)))] : [line];
}

function show() {
  const open_ = [...records.values()].filter((record) => !FINAL.includes(record.state));
  setText($("#summary"), `${open_.length} open${open_.length ? `, ${open_.filter((record) => record.state === "running").length} running` : ""}`);
  const focused = document.activeElement?.closest?.("#requests tr")?.dataset.id;
  const shown = wanted().sort((a, b) => b.created_ms - a.created_ms || (a.request_id < b.request_id ? 1 : -1));
  const empty = { all: "Nobody has asked for anything yet.", open: "No request is open.", ended: "No request has ended yet.", refused: "No request was refused." }[filter];
  $("#requests").replaceChildren(
    el("thead", {}, el("tr", {}, HEADS.map((title) => (title ? el("th", { scope: "col" }, title) : el("td"))))),
    el("tbody", {}, shown.length ? shown.flatMap(row) : el("tr", {}, el("td", { colspan: HEADS.length, class: "dim" }, empty))));
  if (focused) $(`#requests tr[data-id="${CSS.escape(focused)}"] button`)?.focus();
}

// ---- one request -----------------------------------------------------------------------------------

const facts = (title, entries) => (entries.length ? el("div", {}, el("h2", {}, title), el("table", { class: "facts" }, entries.map(([name, value]) => el("tr", {}, el("td", {}, name), el("td", {}, value))))) : null);
const scalar = (value) => (typeof value === "number" && !Number.isInteger(value) ? number(value, 4) : value === null || value === undefined ? DASH : String(value));
const when = (ms) => (ms ? `${new Date(ms).toISOString().slice(0, 10)} ${clock(ms)} UTC` : DASH);

function details(record) {
  const { answer } = record;
  const times = [["posted", record.created_ms], ["accepted", record.accepted_ms], ["started", record.started_ms], ["ended", record.finished_ms], ["deadline", record.deadline_ms]].filter(([, ms]) => ms).map(([name, ms]) => [name, when(ms)]);
  const parts = [
    facts("Request", [["id", el("a", { href: `/api/requests/${record.request_id}` }, record.request_id)], ["run", record.run || DASH], ["client key", record.spec?.client_key ?? DASH], ["priority", record.spec?.priority ?? DASH], ...times]),
    record.error ? facts("Why", [["code", record.error.code], ...(record.error.field ? [["field", record.error.field]] : []), ["reason", record.error.message]]) : null,
  ];
  if (answer) {
    if (answer.focus) parts.push(facts("Focus sweep", Object.entries(answer.focus).map(([key, value]) => [key.replaceAll("_", " "), scalar(value)])));
    if (answer.donut_pair) parts.push(facts("Donut pair", Object.entries(answer.donut_pair).map(([key, value]) => [key.replaceAll("_", " "), scalar(value)])));
    if (answer.calib) parts.push(calib(answer.calib));
    if (answer.missing.length || answer.lacking) parts.push(didNotCome(answer));
    if (answer.campaign) parts.push(facts("Campaign", [["page", el("a", { href: `/campaigns?run=${encodeURIComponent(answer.campaign.run)}` }, answer.campaign.run)], ["nights", answer.campaign.nights.join(", ")], ["results", String(answer.campaign.n_results)], ...Object.entries(answer.campaign.not_done).slice(0, 40)]));
    if (answer.notes.length) parts.push(facts("Notes", answer.notes.map((note) => ["", note])));
    if (answer.exposures.length) parts.push(exposures(answer.exposures));
  } else if (record.members.length) {
    parts.push(facts("Exposures", [["so far", el("span", {}, record.members.slice(0, 40).flatMap((id) => [el("a", { href: `/exposure/${id}` }, shortId(id)), " "]))]]));
  }
  parts.push(el("details", { class: "span" }, el("summary", {}, "As JSON"), el("pre", {}, JSON.stringify(record.spec ?? record.error, null, 2))));
  return el("div", { class: "columns" }, parts.filter(Boolean));
}

function didNotCome({ missing, lacking }) {
  const lines = missing.length ? [["exposures", missing.slice(0, 40).join(", ")]] : [];
  if (lacking?.indices.length) lines.push(["CURINDEX", lacking.indices.join(", ")]);
  if (!missing.length && !lacking?.indices.length && lacking?.n_exposures) lines.push(["exposures", String(lacking.n_exposures)]);
  for (const [id, names] of Object.entries(lacking?.raws ?? {}).slice(0, 20)) lines.push([`raws of ${shortId(Number(id))}`, names.slice(0, 40).join(" ")]);
  return facts("Did not come", lines);
}

function calib(found) {
  const failing = Object.entries(found.failing_amps);
  return facts(`Calib ${found.kind}`, [
    ["verdict", el("span", { class: "state", "data-state": found.passed ? "complete" : "failed" }, found.passed ? "passed" : "failed")],
    ["amps tested", String(found.n_amps)],
    ...failing.slice(0, 30).map(([detector, amps]) => [detector, amps.join(" ")]),
    ...found.failures.slice(0, 12).map((test) => [`${test.detector}/${test.amp}`, test.message]),
    ...Object.entries(found.not_tested).slice(0, 12).map(([detector, why]) => [detector, `not tested: ${why}`]),
    ["inputs", found.inputs.map(shortId).join(", ")],
  ]);
}

function exposures(list) {
  const keys = ["psf_fwhm_arcsec_median", "sky_level_e_median", "n_stars_median", "read_noise_median_electron_median"].filter((key) => list.some((one) => typeof one.metrics[key] === "number"));
  const head = ["Exposure", "Pipeline", "Detectors", ...keys.map((key) => { const { title, unit } = quantityOf(key, camera.quantities); return unit ? `${title} [${unit}]` : title; }), "Not finished", "Products"];
  return el("div", { class: "span scroll" }, el("h2", {}, "Results"), el("table", { class: "grid" },
    el("thead", {}, el("tr", {}, head.map((title) => (title ? el("th", { scope: "col" }, title) : el("td"))))),
    el("tbody", {}, list.map((one) => el("tr", {},
      el("td", {}, el("a", { href: `/exposure/${one.exposure_id}` }, String(one.exposure_id))), el("td", {}, one.pipeline),
      el("td", {}, el("span", { class: "state", "data-state": one.is_complete ? "complete" : "partial" }, `${one.n_finished}/${one.n_expected}`)),
      keys.map((key) => el("td", {}, number(one.metrics[key], quantityOf(key, camera.quantities).decimals))),
      el("td", { class: "wrap" }, unfinished(one)),
      el("td", {}, Object.entries(one.products).flatMap(([kind, key]) => [el("a", { href: productUrl(key) }, kind), " "])))))));
}

/** Detectors without a result: first what is missing, then what is switched off. */
function unfinished(one) {
  const missing = Object.entries(one.not_finished);
  const lines = missing.slice(0, 6).map(([detector, why]) => el("div", {}, `${detector}: ${why}`));
  if (missing.length > 6) lines.push(el("div", {}, `and ${missing.length - 6} more`));
  return [...lines, ...Object.entries(one.excluded ?? {}).slice(0, 6).map(([detector, why]) => el("div", { class: "state", "data-state": "excluded", title: why }, detector))];
}

async function open(id) {
  opened = id;
  history.replaceState(null, "", id ? `?id=${id}` : location.pathname);
  show();
  if (id) await loadOne(id);
}

// ---- what happens ----------------------------------------------------------------------------------

function put(record) {
  const box = record.state === "refused" ? refused : records;
  const known = box.get(record.request_id);
  // A list leaves answers out; an answer once known stays.
  if (!known || known.version <= record.version) box.set(record.request_id, { ...record, answer: record.answer ?? known?.answer ?? null });
}

async function loadOne(id) {
  try {
    put((await getJSON(`/api/requests/${id}`)).request);
    complain("");
  } catch (error) {
    if (id === opened) complain(error.message);
  }
  show();
}

async function load() {
  try {
    const [found, turned] = await Promise.all([getJSON("/api/requests?limit=300"), getJSON("/api/requests?state=refused&limit=100")]);
    for (const { request } of [...found.requests, ...turned.requests]) put(request);
    complain("");
  } catch (error) {
    complain(`Requests cannot be read: ${error.message}`);
  }
  show();
  // Of what has ended lately, the answer in a line.
  const recent = [...records.values()].filter((record) => record.state === "done" && !record.answer).sort((a, b) => b.created_ms - a.created_ms).slice(0, 20);
  await Promise.all(recent.map((record) => getJSON(`/api/requests/${record.request_id}`).then(({ request }) => put(request)).catch(() => {})));
  if (opened) await loadOne(opened);
  else show();
}

function heard(news) {
  const known = records.get(news.request_id);
  if (!known || FINAL.includes(news.state) || news.request_id === opened) {
    loadOne(news.request_id);
    return;
  }
  if (news.version < known.version) return;
  records.set(news.request_id, { ...known, state: news.state, version: news.version, progress: news.progress, error: news.error ?? known.error });
  show();
}

function complain(text) {
  setText($("#list-error"), text);
  $("#list-error").hidden = !text;
}

async function cancel(id) {
  try {
    put((await change("DELETE", `/api/requests/${id}`)).request);
    complain("");
  } catch (error) {
    complain(error.message);
  }
  show();
}

new RequestForm($("#form"), data, {
  onSent: (record) => {
    put(record);
    filter === "refused" ? choose("all") : show();
  },
});

function choose(which) {
  filter = which;
  for (const button of document.querySelectorAll("#filters button")) button.setAttribute("aria-pressed", String(button.dataset.filter === which));
  show();
}
for (const button of document.querySelectorAll("#filters button")) button.addEventListener("click", () => choose(button.dataset.filter));

stream = new LiveStream({
  after: data.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    requests: heard,
    heartbeat: () => {
      for (const line of document.querySelectorAll("#requests tr[data-id]")) {
        const record = records.get(line.dataset.id);
        if (record) setText($(".age", line), age(record));
      }
    },
    sources: (message) => showSources(message.sources),
    reset: async () => {
      const now = await getJSON("/api/now");
      records = new Map();
      await load();
      stream.resumeAfter(now.as_of);
    },
    returned: load,
  },
});
startShell({ offset: () => stream.offsetMs, keys: { Escape: () => open(null) } });
const asked = new URLSearchParams(location.search).get("id");
if (asked && /^\d+-\d+$/.test(asked)) opened = asked;
showWho();
load();
