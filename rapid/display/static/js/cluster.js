// The cluster: who works on what, what waits, how long it takes, what failed; orders need a token and are in a log.

import { change, showWho } from "./access.js";
import { $, boot, el, getJSON, setText } from "./dom.js";
import { clock, DASH, number, span, utcMs } from "./format.js";
import { gently, startLive } from "./live.js";
import { ask } from "./orders.js";
import { CONDITIONS, WorkPlane } from "./workplane.js";

const data = boot();
const plane = new WorkPlane($("#plane"), data.camera, { onPick: (id) => highlight(id) });
const detectorName = new Map(data.camera.detectors.map((place) => [place.id, place.name]));
let view = null;

const state = (name, word) => el("span", { class: "state", "data-state": name }, word ?? name);

function fill(selector, heads, lines, empty) {
  $(selector).replaceChildren(
    el("thead", {}, el("tr", {}, heads.map(([title, kind]) => (title ? el("th", { scope: "col", class: kind ?? "" }, title) : el("td"))))),
    el("tbody", {}, lines.length ? lines.map(({ cells, ...more }) => el("tr", more, cells.map((value, at) => el("td", { class: heads[at][1] ?? "", title: typeof value === "string" ? value : null }, value ?? DASH)))) : el("tr", {}, el("td", { colspan: heads.length, class: "dim" }, empty))));
}

const row = (...cells) => ({ cells });

// ---- orders -----------------------------------------------------------------------------------

async function order(body, question) {
  const reason = await ask(question);
  if (reason === null) return;
  const box = $("#order-error");
  box.hidden = true;
  try {
    await change("POST", "/api/cluster/orders", { ...body, reason });
    await load();
  } catch (error) {
    box.hidden = false;
    setText(box, error.message);
  }
}

function showOrders() {
  const pools = view.queues.map((queue) => queue.pool);
  const select = $("#pool");
  const known = [...select.options].map((option) => option.value).join();
  if (!select.options.length || known !== ["", ...pools].join()) select.replaceChildren(el("option", { value: "" }, "all pools"), ...pools.map((pool) => el("option", { value: pool }, pool)));
  $("#restart-pool").disabled = !view.workers.length;
  if (!$("#scaling").contains(document.activeElement)) showScaling();
  const words = { waiting: ["waiting", "waits"], done: ["done", "done"], failed: ["failed", "failed"], expired: ["expired", "not done"] };
  const what = { restart_workers: "restart workers", restart_worker: "restart worker", retry: "retry", discard: "discard", scale: "scale" };
  fill("#orders", [["When UTC"], ["Order"], ["State"], ["By"], ["Outcome"]],
    view.orders.map((one) => row(clock(utcMs(one.created_at)), `${what[one.kind]} ${one.target || (one.kind === "restart_workers" ? "of all pools" : "")}${one.value ? ` to ${one.value}` : ""}`, state(...words[one.state]), one.author, [one.outcome, one.reason && `(${one.reason})`].filter(Boolean).join(" "))),
    "Nothing was ordered yet");
}

function showScaling() {
  $("#scaling").replaceChildren(...(view.supervisors.length ? view.supervisors.map((one) => {
    const n = el("input", { type: "number", min: 1, max: one.max_workers, value: one.n_workers, required: true, "aria-label": `Workers of ${one.name}` });
    return el("form", { class: "scale-form", onsubmit: (event) => {
      event.preventDefault();
      order({ kind: "scale", target: one.name, value: Number(n.value) }, `Run ${n.value} instead of ${one.n_workers} workers on ${one.host}?`);
    } }, el("span", {}, `${one.name}: `), n, el("span", { class: "dim" }, `of at most ${one.max_workers} ordinary workers`), el("button", {}, "Scale…"));
  }) : [el("p", { class: "dim" }, "No supervisor here can be told how many workers to run: whoever started them scales them (Kubernetes, or by hand).")]));
}

// ---- what is shown -------------------------------------------------------------------------------

function highlight(detector) {
  const work = view.detectors.find((one) => one.detector === detector);
  for (const line of document.querySelectorAll("#workers tr[data-worker]")) line.setAttribute("aria-selected", String(Boolean(work?.workers.includes(line.dataset.worker))));
  document.querySelector('#workers tr[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
}

function showCounts() {
  const total = (key) => view.queues.reduce((sum, queue) => sum + queue[key], 0);
  const count = (title, value, note, mood) => el("div", { "data-state": mood ?? null }, el("h2", {}, title), el("b", {}, String(value)), el("span", { class: "dim" }, note ?? ""));
  const by = (name) => view.workers.filter((worker) => worker.condition === name).length;
  $("#counts").replaceChildren(
    count("Workers", view.workers.length, CONDITIONS.filter(by).map((name) => `${by(name)} ${name}`).join(", ") || "none is known", by("missing") ? "bad" : null),
    count("Running", view.running, "jobs"), count("Queued", total("current"), "of the newest exposure"), count("Backlog", total("backlog"), "of older ones"),
    count("Delayed", view.delayed, "before another attempt"), count("Gathers", view.gathers_running, `${view.gathers_due} set for later`), count("Dead letters", view.n_dead_letters, "", view.n_dead_letters ? "warn" : null),
    count("Mode", view.mode), count("Head", view.leader ? "leads" : "none", view.leader || "nothing is dispatched", view.leader ? null : "bad"), count("Viewers", view.viewers));
  setText($("#as-of"), `as of ${clock(utcMs(view.as_of))} UTC`);
}

function showPlane() {
  const cells = view.detectors.map((one) => ({ ...one, state: one.condition, metrics: {} }));
  plane.setCells(cells);
  const counts = CONDITIONS.map((name) => [name, cells.filter((cell) => cell.state === name).length]).filter(([, n]) => n);
  $("#legend").replaceChildren(...counts.map(([name, n]) => el("span", {}, el("i", { "data-state": name }), `${name} ${n}`)), el("span", {}, el("i", { class: "nobody" }), "nobody's now"));
  const pinned = view.workers.filter((worker) => worker.pinned.length).length;
  setText($("#plane-note"), pinned ? `${pinned} workers are pinned to detectors` : "no worker is pinned: any takes any detector");
}

function showWorkers() {
  setText($("#n-workers"), String(view.workers.length));
  const busy = (worker) => worker.jobs.map((job) => job.job_id).join(" ") || DASH;
  fill("#workers", [["Worker"], ["State"], ["Job"], ["For", "num"], ["Pinned to"], ["Pools"], ["Host"], ["Memory [MB]", "num"], ["Last heard", "num"], [""]],
    view.workers.map((worker) => ({
      "data-worker": worker.worker_id,
      cells: [worker.worker_id, state(worker.condition, worker.condition === "free" ? "waits for a job" : worker.condition), busy(worker), worker.since_s === null ? DASH : `${number(worker.since_s, 1)} s`,
        worker.pinned.map((id) => detectorName.get(id) ?? id).join(" ") || "any", worker.pools.join(", "), worker.host, number(worker.memory_mb, 0), `${span(worker.heartbeat_age_s * 1000)} ago`,
        el("button", { type: "button", onclick: () => order({ kind: "restart_worker", target: worker.worker_id }, `Restart ${worker.worker_id}?`), "aria-label": `Restart ${worker.worker_id}` }, "Restart…")],
    })), "No worker has introduced itself");
}

function showLetters() {
  setText($("#n-letters"), view.n_dead_letters > view.dead_letters.length ? `${view.dead_letters.length} of ${view.n_dead_letters}` : String(view.n_dead_letters));
  fill("#letters", [["When UTC"], ["Job"], ["Reason", "wrap"], ["Attempts", "num"], [""]],
    view.dead_letters.map((letter) => row(clock(utcMs(letter.at)),
      el("a", { href: `/exposure/${letter.exposure_id}${letter.detector === null ? "" : `?detector=${letter.detector}`}` }, letter.job_id), `${letter.message} (${letter.code})`, String(letter.attempts),
      el("span", {}, el("button", { type: "button", "aria-label": `Retry ${letter.job_id}`, onclick: () => order({ kind: "retry", target: letter.job_id }, `Queue ${letter.job_id} again?`) }, "Retry…"),
        el("button", { type: "button", "aria-label": `Discard ${letter.job_id}`, onclick: () => order({ kind: "discard", target: letter.job_id }, `Drop ${letter.job_id} for good?`) }, "Discard…")))), "No dead letter");
}

function showRest() {
  fill("#queues", [["Pool"], ["Current", "num"], ["Backlog", "num"], ["Free workers", "num"]], view.queues.map((queue) => row(queue.pool, String(queue.current), String(queue.backlog), String(queue.free_workers))), "No queue yet");
  const step = { wait: "post to start", run: "one job", total: "post to summary" };
  fill("#latencies", [["Pipeline"], ["What"], ["n", "num"], ["Median [s]", "num"], ["99 % [s]", "num"], ["Longest [s]", "num"]], view.latencies.map((one) => row(one.name, step[one.step], String(one.n), number(one.p50_s, 2), number(one.p99_s, 2), number(one.max_s, 2))), "No job yet");
}

function showPublish() {
  const told = view.publish;
  const status = told?.status;
  const late = told && told.age_s > 30 ? `, heard ${span(told.age_s * 1000)} ago` : "";
  setText($("#publish-note"), status ? [`${status.name}${late}`, status.behind_s === null ? "" : `a row ${number(status.behind_s, 1)} s after its summary`].filter(Boolean).join(" · ") : "");
  fill("#publish", [["Destination"], ["State"], ["Waiting", "num"], ["Oldest", "num"], ["Sent", "num"], ["Given up", "num"], ["Last sent UTC"], ["Remarks", "wrap"]],
    (status?.destinations ?? []).map((one) => row(one.name, state(one.is_up ? "up" : "down", one.is_up ? "up" : `down since ${clock(utcMs(one.down_since))}`), String(one.n_waiting), one.n_waiting ? span(one.oldest_s * 1000) : DASH,
      String(one.n_sent), String(one.n_dead), clock(utcMs(one.last_sent)), [one.is_up ? "" : one.error, one.is_incomplete ? "some were left out for want of room; they come later" : "", ...one.notes].filter(Boolean).join("; "))),
    status ? "It has no destination" : "Nobody publishes");
  const dead = (status?.destinations ?? []).flatMap((one) => one.dead.map((letter) => [one.name, letter]));
  const troubles = status?.troubles ?? [];
  const lines = [...dead.map(([name, letter]) => el("p", {}, el("span", { class: "state", "data-state": "failed" }, `${name} given up`), ` ${letter.key}: ${letter.error} `, el("span", { class: "dim" }, `${letter.failures} tries, ${clock(utcMs(letter.at))} UTC`))),
    ...troubles.map((text) => el("p", {}, el("span", { class: "state", "data-state": "warn" }, text)))];
  const text = JSON.stringify([dead, troubles]);
  if ($("#publish-dead").dataset.text === text) return;
  $("#publish-dead").dataset.text = text;
  $("#publish-dead").replaceChildren(...(lines.length ? [el("details", {}, el("summary", {}, `${dead.length} given up, ${troubles.length} not understood`), ...lines)] : []));
}

function showSourceTable(sources) {
  fill("#source-table", [["Source"], ["State"], ["Since UTC"], ["Reason"]], sources.map((source) => row(source.name, state(source.is_up ? "up" : "down"), clock(utcMs(source.since)), source.reason)), "Not asked yet");
}

async function load() {
  view = await getJSON("/api/cluster");
  showCounts();
  showPlane();
  showRest();
  showPublish();
  showWorkers();
  showLetters();
  showOrders();
}

async function loadFailures() {
  const { failures } = await getJSON("/api/failures");
  setText($("#n-failures"), String(failures.length));
  $("#failures").replaceChildren(...(failures.length ? failures.map((failure) => el("details", {},
    el("summary", {}, el("span", { class: "state", "data-state": "failed" }, failure.job_id), ` ${failure.message} `, el("span", { class: "dim" }, failure.code)),
    failure.exposure_id ? el("a", { href: `/exposure/${failure.exposure_id}${failure.detector === null ? "" : `?detector=${failure.detector}`}` }, "its exposure") : "",
    el("pre", { tabindex: 0 }, failure.traceback ?? "no traceback was kept"))) : [el("p", { class: "dim" }, "Nothing has failed for good.")]));
}

async function loadQuarantine() {
  const { records } = await getJSON("/api/quarantine");
  setText($("#n-quarantine"), String(records.length));
  fill("#quarantine", [["When UTC"], ["Reason", "wrap"], ["Code"], ["Size", "num"], ["Raw"]],
    records.map((record) => row(clock(utcMs(record.quarantined_at)), record.reason, record.code, record.size_bytes === null ? DASH : `${record.size_bytes} B`, el("span", { class: "mono" }, record.uri))), "Every raw could be read.");
}

$("#restart-pool").addEventListener("click", () => {
  const pool = $("#pool").value;
  order({ kind: "restart_workers", target: pool }, pool ? `Restart every worker of ${pool}?` : "Restart every worker?");
});
const complain = (error) => {
  const box = $("#page-error");
  box.hidden = false;
  setText(box, error.message);
};
const failuresLater = gently(loadFailures, complain);
const quarantineLater = gently(loadQuarantine, complain);
const live = startLive({
  anew: async () => {
    await Promise.all([load(), loadFailures(), loadQuarantine()]);
    const { sources } = await getJSON("/api/status");
    showSourceTable(sources);
  },
  on: {
    exposures: (message) => {
      viewLater();
      if (message.exposures.some((one) => one.cells.some((cell) => cell.state === "failed"))) failuresLater();
    },
    cluster: () => {
      viewLater();
      failuresLater();
    },
    alert: quarantineLater,
  },
  beats: () => viewLater(),
});
const viewLater = gently(async () => {
  await load();
  $("#page-error").hidden = true;
}, complain);
live.stream.handlers.sources = ((shown) => (message) => {
  shown(message);
  showSourceTable(message.sources);
})(live.stream.handlers.sources);
document.addEventListener("themechange", () => view && showPlane());
showWho();
