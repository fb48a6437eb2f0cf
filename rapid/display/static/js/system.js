// The system: board, workers, queues, what failed, what was set aside.

import { $, boot, el, getJSON, setText } from "./dom.js";
import { clock, DASH, span, utcMs } from "./format.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const data = boot();

function fill(selector, heads, lines, empty) {
  const table = $(selector);
  table.replaceChildren(
    el("thead", {}, el("tr", {}, heads.map(([title, kind]) => el("th", { class: kind ?? "" }, title)))),
    el("tbody", {}, lines.length ? lines.map((line) => el("tr", {}, line.map((value, at) => el("td", { class: heads[at][1] ?? "", title: typeof value === "string" ? value : null }, value ?? DASH))))
      : el("tr", {}, el("td", { colspan: heads.length, class: "dim" }, empty))));
}

const state = (name, word) => el("span", { class: "state", "data-state": name }, word);

async function showStatus() {
  const status = await getJSON("/api/status");
  const { board } = status;
  const total = (key) => board.queues.reduce((sum, queue) => sum + queue[key], 0);
  const count = (title, value, note) => el("div", {}, el("h2", {}, title), el("b", {}, String(value)), el("span", { class: "dim" }, note ?? ""));
  $("#counts").replaceChildren(
    count("Mode", board.mode), count("Running", board.running, "jobs"), count("Queued", total("current"), "of the newest exposure"), count("Backlog", total("backlog"), "of older ones"),
    count("Delayed", board.delayed, "before another attempt"), count("Gathers", board.gathers_running, `${board.gathers_due} set for later`), count("Dead letters", board.dead_letters),
    count("Head", board.leader ? "leads" : "none", board.leader), count("Viewers", status.viewers));
  setText($("#as-of"), `as of ${clock(utcMs(status.server_time))} UTC`);
  fill("#queues", [["Pool"], ["Current", "num"], ["Backlog", "num"], ["Waiting workers", "num"]],
    board.queues.map((queue) => [queue.pool, String(queue.current), String(queue.backlog), String(queue.parked)]), "No queue yet");
  showSourceTable(status.sources);
  setText($("#n-workers"), String(status.workers.length));
  const worked = { busy: "running", silent: "failed", parked: "waiting", idle: "waiting" };
  fill("#workers", [["Worker"], ["State"], ["Job"], ["Pools"], ["Host"], ["Last heard", "num"]],
    status.workers.map((worker) => [worker.worker_id, state(worked[worker.state] ?? "waiting", worker.state === "parked" ? "waits for a job" : worker.state), worker.job_id || DASH, worker.pools, worker.host, `${span(board.now_ms - worker.seen_ms)} ago`]),
    "No worker has joined");
}

function showSourceTable(sources) {
  fill("#source-table", [["Source"], ["State"], ["Since"], ["Reason"]],
    sources.map((source) => [source.name, state(source.is_up ? "up" : "down", source.is_up ? "up" : "down"), `${clock(utcMs(source.since))} UTC`, source.reason ?? ""]), "—");
}

async function showFailures() {
  const { failures } = await getJSON("/api/failures");
  setText($("#n-failures"), String(failures.length));
  $("#failures").replaceChildren(...(failures.length ? failures.map((failure) => el("details", {},
    el("summary", {}, el("span", { class: "state", "data-state": "failed" }, failure.job_id), ` ${failure.message} `, el("span", { class: "dim" }, failure.code), " ",
      failure.exposure_id ? el("a", { href: `/exposure/${failure.exposure_id}${failure.detector === null ? "" : `?detector=${failure.detector}`}` }, "exposure") : ""),
    el("pre", {}, failure.traceback ?? "no traceback was kept"))) : [el("p", { class: "dim" }, "Nothing has failed for good.")]));
}

async function showQuarantine() {
  const { records } = await getJSON("/api/quarantine");
  setText($("#n-quarantine"), String(records.length));
  fill("#quarantine", [["When"], ["Reason"], ["Code"], ["Size", "num"], ["Raw"]],
    records.map((record) => [clock(utcMs(record.quarantined_at)), record.reason, record.code, record.size_bytes === null ? DASH : `${record.size_bytes} B`, el("span", { class: "mono" }, record.uri)]), "Every raw could be read.");
}

let due = null;
const parts = new Set();
/** Load anew what an event may have changed, once for a burst of them. */
function later(...which) {
  which.forEach((part) => parts.add(part));
  due ??= setTimeout(async () => {
    due = null;
    const now = [...parts];
    parts.clear();
    await Promise.all(now.map((part) => part().catch((error) => setText($("#as-of"), error.message))));
  }, 700);
}

const stream = new LiveStream({
  after: data.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    exposures: (message) => later(showStatus, ...(message.exposures.some((one) => one.cells.some((cell) => cell.state === "failed")) ? [showFailures] : [])),
    alert: () => later(showQuarantine),
    heartbeat: () => later(showStatus),
    sources: (message) => {
      showSources(message.sources);
      showSourceTable(message.sources);
    },
    reset: () => later(showStatus, showFailures, showQuarantine),
  },
});
startShell({ offset: () => stream.offsetMs });
for (const show of [showStatus, showFailures, showQuarantine]) show().catch((error) => setText($("#as-of"), error.message));
