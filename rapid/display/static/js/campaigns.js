// Campaigns: which there are, how far each is, what came of it; go on with one, cancel it, begin another.

import { change, showWho } from "./access.js";
import { CampaignForm } from "./campaignform.js";
import { Reports } from "./campaignreports.js";
import { $, boot, el, getJSON, setText } from "./dom.js";
import { clock, DASH, day, span } from "./format.js";
import { startLive } from "./live.js";

const data = boot();
const FINAL = ["done", "failed", "cancelled", "expired", "refused"];
/** Which sign stands before the word: known from the other pages. */
const SIGN = { posted: "waiting", accepted: "waiting", waiting: "waiting", running: "running", done: "complete", failed: "failed", cancelled: "superseded", expired: "partial" };

let campaigns = [];
let chosen = new URLSearchParams(location.search).get("run");
let detail = null; // the chosen one, with what is missing of its exposures
const reports = new Reports(data);
const counted = (n) => `${n} ${n === 1 ? "detector" : "detectors"}`;
const isOver = (one) => FINAL.includes(one.state);
const range = ({ first, last }, shown = String) => (first === last ? shown(first) : `${shown(first)} – ${shown(last)}`);

/** What a campaign is of, in words. */
function words({ selection: select, pipeline, detectors }) {
  const parts = [select.nights.slice(0, 6).map((one) => range(one, day)).join(", ") + (select.nights.length > 6 ? ` and ${select.nights.length - 6} more` : "")];
  if (select.exposures.length) parts.push(`only ${select.exposures.slice(0, 3).map((one) => range(one)).join(", ")}${select.exposures.length > 3 ? " …" : ""}`);
  if (select.image_types.length) parts.push(select.image_types.join(", "));
  if (select.where) parts.push(`where ${select.where}`);
  if (select.exclude.length) parts.push(`${select.exclude.length} left out`);
  if (select.holes) parts.push(`holes of ${select.of}`);
  if (pipeline) parts.push(pipeline);
  if (detectors) parts.push(`on ${Array.isArray(detectors) ? detectors.join(" ") : detectors}`);
  return parts.join(" · ");
}

function bar({ progress, state }) {
  const { exposures_done: done, exposures_of: of } = progress;
  const width = of ? (100 * done) / of : 0;
  return [
    el("span", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": of ?? 0, "aria-valuenow": done, "aria-label": "exposures" }, el("i", { style: `width:${width}%`, class: FINAL.includes(state) && state !== "done" ? "failed" : null })),
    el("span", {}, of === null ? DASH : `${done}/${of}`), " ", el("span", { class: "dim" }, `${progress.done}/${progress.of} CCDs`),
  ];
}

function outcome({ error, answer }) {
  if (error) return error.message;
  if (!answer) return "";
  return `${answer.n_done} of ${answer.n_exposures} exposures whole, ${answer.n_results} results${answer.n_failed ? `, ${counted(answer.n_failed)} without one` : ""}`;
}

const HEADS = ["State", "Campaign", "Exposures", "Outcome", "Who", "Begun (UTC)"];

function show() {
  const open = campaigns.filter((one) => !isOver(one));
  setText($("#summary"), `${campaigns.length} campaigns, ${open.length} under way`);
  const focused = document.activeElement?.closest?.("#campaigns tr")?.dataset.run;
  $("#campaigns").replaceChildren(
    el("thead", {}, el("tr", {}, HEADS.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, campaigns.length ? campaigns.map((one) => el("tr", { "data-run": one.run, "aria-selected": String(one.run === chosen) },
      el("td", {}, el("button", { type: "button", class: "plain", "aria-label": `Show ${one.run}`, onclick: () => choose(one.run === chosen ? null : one.run) }, el("span", { class: "state", "data-state": SIGN[one.state] }, one.state))),
      el("td", { class: "wrap" }, el("b", {}, one.run), one.label && one.label !== `campaign ${one.run}` ? ` ${one.label}` : "", el("div", { class: "dim" }, words(one))),
      el("td", {}, bar(one)), el("td", { class: "wrap" }, outcome(one)),
      el("td", {}, one.asked_by || DASH), el("td", {}, begun(one)))) : el("tr", {}, el("td", { colspan: HEADS.length, class: "dim" }, "No campaign yet"))));
  if (focused) $(`#campaigns tr[data-run="${CSS.escape(focused)}"] button`)?.focus();
  reports.offer(campaigns.map((one) => one.run));
  showChosen();
}

function begun({ created_ms: at, finished_ms: end }) {
  return [at ? `${new Date(at).toISOString().slice(5, 10)} ${clock(at)}` : DASH, end ? el("div", { class: "dim" }, `took ${span(end - at)}`) : ""];
}

// ---- the chosen one --------------------------------------------------------------------------------

function showChosen() {
  const box = $("#chosen");
  const one = campaigns.find(({ run }) => run === chosen);
  box.hidden = !one;
  if (!one) return;
  const missing = Object.entries((detail?.request_id === one.request_id ? detail.answer?.not_done : null) ?? {});
  const line = (name, value) => el("tr", {}, el("td", {}, name), el("td", {}, value));
  box.replaceChildren(
    el("header", {}, el("h2", { class: "subhead" }, one.run), el("span", { class: "state", "data-state": SIGN[one.state] }, one.state), el("span", { class: "dim" }, words(one)),
      el("span", { class: "push buttons" },
        isOver(one) ? el("button", { type: "button", id: "resume", title: "What is stored stays; what failed is tried once more", onclick: () => act("POST", `/api/campaigns/${one.run}/resume`) }, "Resume")
          : el("button", { type: "button", id: "cancel", title: "What has not started is not done; resume goes on", onclick: () => act("DELETE", `/api/campaigns/${one.run}`) }, "Cancel"),
        el("button", { type: "button", id: "show-holes", onclick: () => reports.holesOf(one.run) }, "Holes"),
        el("button", { type: "button", id: "show-compare", onclick: () => reports.compareWith(one.selection.of, one.run) }, "Compare"))),
    el("div", { class: "columns" },
      el("table", { class: "facts" },
        line("exposures", `${one.progress.exposures_done} of ${one.progress.exposures_of ?? "?"} ended`), line("detectors", `${one.progress.done} of ${one.progress.of} so far`),
        one.answer ? line("results", `${one.answer.n_results}${one.answer.n_before ? ` (${one.answer.n_before} batches were done before)` : ""}`) : "",
        one.answer ? line("without a result", counted(one.answer.n_failed)) : "",
        one.deadline_ms && !isOver(one) ? line("until", `${new Date(one.deadline_ms).toISOString().slice(0, 16).replace("T", " ")} UTC`) : "",
        Object.keys(one.config).length ? line("settings", JSON.stringify(one.config)) : "",
        line("request", el("a", { href: `/requests?id=${one.request_id}` }, one.request_id))),
      missing.length ? el("div", { class: "span" }, el("h2", {}, "Not done"), el("div", { class: "scroll short", tabindex: 0 }, el("table", { class: "facts", id: "not-done" }, missing.map(([where, why]) => line(placed(where), why))))) : ""));
}

/** "2026112000012 quicklook", with a link to the exposure's page. */
function placed(where) {
  const [id, ...rest] = where.split(" ");
  return el("span", {}, el("a", { href: `/exposure/${id}` }, id), ` ${rest.join(" ")}`);
}

async function choose(run) {
  chosen = run;
  detail = null;
  history.replaceState(null, "", run ? `?run=${encodeURIComponent(run)}` : location.pathname);
  show();
  if (run) reports.choose(run);
  await loadDetail();
}

async function loadDetail() {
  const run = chosen;
  const one = campaigns.find((each) => each.run === run);
  if (!one?.answer || detail?.request_id === one.request_id) return;
  const found = await getJSON(`/api/campaigns/${encodeURIComponent(run)}`);
  if (run !== chosen) return;
  detail = found;
  showChosen();
}

async function act(method, url) {
  const box = $("#page-error");
  try {
    const answer = await change(method, url);
    box.hidden = true;
    put(answer);
  } catch (error) {
    box.hidden = false;
    setText(box, error.message);
  }
}

function put(one) {
  campaigns = [one, ...campaigns.filter(({ run }) => run !== one.run)];
  show();
}

async function load() {
  campaigns = (await getJSON("/api/campaigns")).campaigns;
  show();
  await loadDetail();
}

new CampaignForm($("#form"), data, {
  onSent: (one) => {
    put(one);
    choose(one.run);
  },
});
const live = startLive({ anew: load, on: { requests: () => live.later() }, keys: { Escape: () => choose(null) } });
if (chosen) reports.choose(chosen);
showWho();
