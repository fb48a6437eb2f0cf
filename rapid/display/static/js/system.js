// The system page: what waits, who works, what failed. Asked again when something happened, never by the clock alone.

import { $, boot, el, getJSON, setText } from "./dom.js";
import { DASH, clock, span, utcMs } from "./format.js";
import { failureNode } from "./detector.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const data = boot();
const LEAST_MS = 1000; // however much happens, the board is asked once a second
let asked = 0;
let planned = null;
let offset = 0;

function table(node, heads, rows, empty) {
  node.replaceChildren(
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { class: head.num ? "num" : null }, head.title ?? head)))),
    el("tbody", {}, rows.length ? rows.map((cells) => el("tr", {}, cells.map((cell, at) => el("td", { class: heads[at].num ? "num" : null }, cell)))) : el("tr", {}, el("td", { colspan: heads.length, class: "dim" }, empty))),
  );
}

const num = (title) => ({ title, num: true });
const state = (name, kind) => el("span", { class: "state", "data-state": kind }, name);
const exposureLink = (id) => (id ? el("a", { href: `/exposure/${id}` }, String(id)) : DASH);

function showBoard({ board, workers, sources, viewers, server_time: now }) {
  offset = utcMs(now) - Date.now();
  const waiting = board.queues.reduce((sum, queue) => sum + queue.current + queue.backlog, 0);
  const leads = board.leader && board.leader_until_ms > board.now_ms;
  const counts = [
    ["mode", board.mode], ["waiting", waiting], ["running", board.running], ["delayed", board.delayed],
    ["gathers due", board.gathers_due], ["gathering", board.gathers_running], ["dead letters", board.dead_letters], ["viewers", viewers],
    ["leading head", leads ? board.leader : "none"],
  ];
  $("#counts").replaceChildren(...counts.map(([title, value]) => el("div", { "data-count": title }, el("h2", {}, title), el("b", {}, String(value)))));
  table($("#queues"), ["pool", num("current"), num("backlog"), num("workers waiting"), num("queued longest")],
    board.queues.map((queue) => [queue.pool, queue.current, queue.backlog, queue.parked, queue.oldest ?? DASH].map(String)), "no queue yet");
  const marks = { busy: "running", parked: "waiting", idle: "waiting", silent: "down" };
  table($("#workers"), ["worker", "state", "job", num("seen"), "pools", "pinned to", "host"],
    workers.map((worker) => [worker.worker_id, state(worker.state, marks[worker.state] ?? "waiting"), jobLink(worker.job_id),
      `${span(board.now_ms - worker.seen_ms)} ago`, worker.pools || DASH, worker.pinned || DASH, worker.host || DASH]), "no worker gives a sign of life");
  setText($("#n-workers"), `${workers.length} alive, ${workers.filter((worker) => worker.state === "busy").length} busy`);
  showSourceTable(sources);
  setText($("#as-of"), `as of ${clock(utcMs(now))} UTC`);
}

function jobLink(jobId) {
  const exposure = /^[^.]+\.(\d+)\./.exec(jobId)?.[1];
  return exposure ? el("a", { href: `/exposure/${exposure}` }, jobId) : jobId || DASH;
}

function showSourceTable(sources) {
  showSources(sources);
  table($("#source-table"), ["source", "state", "since [UTC]", "reason"],
    sources.map((source) => [source.name, state(source.is_up ? "up" : "down", source.is_up ? "up" : "down"), clock(utcMs(source.since)), source.reason ?? DASH]), "nothing asked yet");
}

function showFailures(failures) {
  setText($("#n-failures"), failures.length ? String(failures.length) : "");
  const names = (failure) => el("span", {}, exposureLink(failure.exposure_id), failure.detector === null ? " gather" : ` detector ${failure.detector}`);
  $("#failures").replaceChildren(...(failures.length
    ? failures.map((failure) => el("div", { class: "entry" }, names(failure), failureNode(failure)))
    : [el("p", { class: "dim" }, "nothing has failed for good")]));
}

function showQuarantine(records) {
  setText($("#n-quarantine"), records.length ? String(records.length) : "");
  table($("#quarantine"), ["when [UTC]", "raw", "code", "reason", num("size [kB]"), "exposure", "detector"],
    records.map((record) => [`${record.quarantined_at.slice(0, 10)} ${clock(utcMs(record.quarantined_at))}`, el("span", { title: record.uri }, record.uri.split("/").pop()), record.code, el("span", { title: record.reason }, record.reason),
      record.size_bytes === null ? DASH : (record.size_bytes / 1000).toFixed(1), exposureLink(record.exposure), String(record.detector ?? DASH)]), "no raw is in quarantine");
}

async function load() {
  asked = performance.now();
  const [status, failures, quarantine] = await Promise.allSettled([getJSON("/api/status"), getJSON("/api/failures"), getJSON("/api/quarantine")]);
  if (status.status === "fulfilled") showBoard(status.value);
  else setText($("#as-of"), `the board does not answer: ${status.reason.message}`);
  if (failures.status === "fulfilled") showFailures(failures.value.failures);
  if (quarantine.status === "fulfilled") showQuarantine(quarantine.value.records);
}

function loadSoon() {
  if (planned) return;
  planned = setTimeout(() => {
    planned = null;
    load();
  }, Math.max(0, LEAST_MS - (performance.now() - asked)));
}

startShell({ offset: () => offset });
new LiveStream({
  after: data.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    exposures: loadSoon, alert: loadSoon, reset: loadSoon, heartbeat: loadSoon, returned: loadSoon,
    sources: ({ sources }) => { showSourceTable(sources); loadSoon(); },
  },
});
load();
