// Calibrations: what passed verification, amp by amp; masters; trends with alarms; what is left out, and doing again what it spoilt.

import { change, showWho } from "./access.js";
import { $, boot, el, getJSON, setText } from "./dom.js";
import { clock, DASH, day, number, quantityOf, seq, taiMs, utcMs } from "./format.js";
import { startLive } from "./live.js";
import { askBuild, askLeaveOut, askRule, order, tellAffected } from "./masterorders.js";
import { ask } from "./orders.js";
import { showTrend, startTrends } from "./trends.js";
import { SIGNS, VerdictPlane, wordOf } from "./verdictplane.js";

const data = boot();
const query = new URLSearchParams(location.search);
let dayObs = Number(query.get("day")) || data.day_obs;
const followsNow = !query.get("day");
let night = { subjects: [] };
let chosen = query.get("of"); // "exposure:pipeline"
let matrix = null;
let detector = query.has("detector") ? Number(query.get("detector")) : null;

const plane = new VerdictPlane($("#plane"), data.camera, { onPick: (id) => pickDetector(id) });
const keyOf = (subject) => `${subject.exposure_id}:${subject.pipeline}`;
const word = (outcome) => el("span", { class: "outcome", "data-outcome": outcome ?? "none" }, wordOf(outcome));
const title = (subject) => `${subject.is_master ? "master " : ""}${subject.kind}${subject.physical_filter && subject.kind === "flat" ? ` ${subject.physical_filter}` : ""}`;

function remember() {
  const now = new URLSearchParams();
  if (!followsNow) now.set("day", dayObs);
  if (chosen) now.set("of", chosen);
  if (detector !== null) now.set("detector", detector);
  history.replaceState(null, "", `${location.pathname}${now.size ? `?${now}` : ""}`);
}

// ---- what was verified -----------------------------------------------------------------------------

function showSubjects() {
  const { subjects } = night;
  setText($("#n-subjects"), String(subjects.length));
  for (const [id, other] of [["before", night.previous], ["after", night.next]]) {
    $(`#${id}`).hidden = !other;
    if (other) $(`#${id}`).href = `/calibrations?day=${other}`;
  }
  $("#subjects").replaceChildren(
    el("thead", {}, el("tr", {}, ["Seq", "What", "UTC", "Done", "Outcome", "Failing"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, subjects.length ? subjects.map((subject) => el("tr", { "data-key": keyOf(subject), "aria-selected": String(keyOf(subject) === chosen) },
      el("td", {}, el("button", { type: "button", class: "plain", "aria-label": `Show ${title(subject)} ${subject.seq_num}`, onclick: () => choose(keyOf(subject)) }, seq(subject.seq_num))),
      el("td", {}, title(subject)), el("td", {}, clock(taiMs(subject.begin))), el("td", {}, `${subject.n_finished}/${subject.n_expected}`), el("td", {}, word(subject.outcome)),
      el("td", { title: subject.failures.join(", ") }, subject.n_failed_amps ? `${subject.n_failed_amps} amp${subject.n_failed_amps === 1 ? "" : "s"}: ${subject.failures.slice(0, 3).join(", ")}${subject.failures.length > 3 ? " …" : ""}` : ""))) : el("tr", {}, el("td", { colspan: 6, class: "dim" }, "No calibration exposure in this night"))));
}

async function choose(key) {
  chosen = key;
  remember();
  showSubjects();
  await showMatrix();
}

async function showMatrix() {
  const subject = night.subjects.find((one) => keyOf(one) === chosen) ?? night.subjects[0];
  if (!subject) {
    matrix = null;
    plane.show([]);
    setText($("#plane-note"), "nothing to show");
    setText($("#failing"), "");
    $("#legend").replaceChildren();
    $("#detail").hidden = true;
    return;
  }
  chosen = keyOf(subject);
  setText($("#plane-note"), `${title(subject)} ${seq(subject.seq_num)}: reading…`);
  matrix = await getJSON(`/api/calibrations/matrix/${subject.exposure_id}/${subject.pipeline}`);
  const select = $("#test");
  const before = select.value;
  select.replaceChildren(el("option", { value: "" }, "all tests"), ...matrix.tests.map((test) => el("option", { value: test }, test)));
  select.value = matrix.tests.includes(before) ? before : "";
  plane.test = select.value;
  plane.show(matrix.detectors);
  setText($("#plane-note"), `${title(matrix.subject)} ${seq(subject.seq_num)}`);
  showLegend();
  if (detector !== null) await pickDetector(detector);
}

function showLegend() {
  const counts = new Map();
  for (const cell of plane.cells.values()) {
    const outcome = plane.outcomeOf(cell) ?? "none";
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  }
  $("#legend").replaceChildren(...[...counts].map(([outcome, n]) => el("span", { class: "outcome", "data-outcome": outcome }, `${outcome === "none" ? "not verified" : wordOf(outcome)} ${n}`)));
  const failing = matrix.detectors.flatMap((one) => one.failures.map((text) => `${one.name} ${text}`)).filter((text) => !plane.test || text.endsWith(` ${plane.test}`));
  setText($("#failing"), failing.length ? `✕ ${failing.slice(0, 14).join(", ")}${failing.length > 14 ? ` and ${failing.length - 14} more` : ""}` : matrix.tests.length ? "No amp fails." : "This one was not verified.");
}

async function pickDetector(id) {
  detector = id;
  plane.picked = id;
  plane.paint();
  remember();
  showTrend({ detector: id });
  const box = $("#detail");
  const place = data.camera.detectors.find((one) => one.id === id);
  box.hidden = false;
  if (!matrix) return;
  const { exposure_id: exposure, pipeline } = matrix.subject;
  const close = el("button", { type: "button", class: "push", "aria-label": "Close (Esc)", onclick: () => closeDetail() }, "✕");
  let found;
  try {
    found = await getJSON(`/api/calibrations/matrix/${exposure}/${pipeline}/${id}`);
  } catch (error) {
    box.replaceChildren(el("header", {}, el("h2", {}, place?.name ?? `detector ${id}`), close), el("p", { class: "dim" }, error.status === 404 ? "This detector has no result here." : error.message));
    return;
  }
  if (id !== detector) return;
  const amps = [...new Set(found.tests.filter((test) => test.amp).map((test) => test.amp))];
  const names = [...new Set(found.tests.map((test) => test.test))];
  const at = new Map(found.tests.map((test) => [`${test.amp ?? ""} ${test.test}`, test]));
  const cell = (test) => (test ? el("td", { class: "num cell", "data-outcome": test.outcome, title: [wordOf(test.outcome), test.uncertainty && `${significant(test.value)} ± ${significant(test.uncertainty)}`, test.error && `error outside ${test.error}`, test.warn && `warning outside ${test.warn}`, test.reason, test.note].filter(Boolean).join("; ") },
    `${test.outcome === "pass" ? "" : `${SIGNS[test.outcome]} `}${test.value === null ? DASH : significant(test.value)}${test.value !== null && test.note ? ` ± ${significant(test.uncertainty)}` : ""}`) : el("td", { class: "num" }, ""));
  box.replaceChildren(
    el("header", {}, el("h2", {}, `${found.name} ${title(found.subject)} ${seq(found.subject.seq_num)}`), word(found.outcome), el("a", { href: `/exposure/${exposure}?detector=${id}` }, "the exposure's page"), close),
    found.tests.length ? el("div", { class: "scroll", tabindex: 0 }, el("table", { class: "grid tests" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Test"), el("th", { scope: "col" }, "Limit"), el("th", { scope: "col", class: "num" }, "CCD"), amps.map((amp) => el("th", { scope: "col", class: "num" }, amp)))),
      el("tbody", {}, names.map((test) => {
        const any = found.tests.find((one) => one.test === test);
        return el("tr", {}, el("th", { scope: "row" }, any.unit ? `${test} [${any.unit}]` : test), el("td", { class: "dim", title: any.reason }, any.error && any.warn && any.error !== any.warn ? `${any.error}; warns outside ${any.warn}` : any.error ?? any.warn ?? ""), cell(at.get(` ${test}`)), amps.map((amp) => cell(at.get(`${amp} ${test}`))));
      })))) : el("p", { class: "dim" }, "This detector was not verified."),
    ...Object.entries(found.excluded).map(([amp, reason]) => el("p", { class: "dim" }, `${amp} is switched off: ${reason}`)));
}

const significant = (value) => {
  const size = Math.abs(value);
  return number(value, size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : size >= 0.01 || size === 0 ? 3 : 5);
};

function closeDetail() {
  detector = null;
  plane.picked = null;
  plane.paint();
  $("#detail").hidden = true;
  remember();
}

// ---- masters ---------------------------------------------------------------------------------------

let masters = [];
const opened = new Set();

function showMasters() {
  const kinds = [...new Set(masters.map((one) => one.kind))].sort();
  const select = $("#kind");
  if ([...select.options].map((option) => option.value).join() !== ["", ...kinds].join() || !select.options.length) select.replaceChildren(el("option", { value: "" }, "all kinds"), ...kinds.map((kind) => el("option", { value: kind }, kind)));
  const shown = masters.filter((one) => !select.value || one.kind === select.value);
  setText($("#n-masters"), String(shown.length));
  const counts = (table) => Object.entries(table).map(([name, n]) => `${n} ${name.replace("_", " ")}`).join(", ");
  $("#masters").replaceChildren(
    el("thead", {}, el("tr", {}, ["Kind", "Filter", "Valid from UTC", "until", "Version", "Built", "Inputs", "State", "Verification", ""].map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))),
    el("tbody", {}, shown.length ? shown.flatMap((one) => {
      const key = `${one.kind} ${one.physical_filter} ${one.valid_from} ${one.version}`;
      const open = opened.has(key);
      const line = el("tr", { "aria-selected": String(open) }, el("td", {}, one.kind), el("td", {}, one.physical_filter ?? DASH), el("td", {}, shownTai(one.valid_from)), el("td", {}, one.valid_to ? shownTai(one.valid_to) : "open"), el("td", {}, String(one.version)),
        el("td", {}, shownTime(one.created_at)), el("td", {}, String(one.n_inputs)), el("td", {}, one.is_in_force ? el("b", {}, `${counts(one.states)}, in force`) : counts(one.states)), el("td", {}, counts(one.outcomes)),
        el("td", {}, el("button", { type: "button", "aria-expanded": String(open), "aria-label": `Detectors of ${key}`, onclick: () => { if (open) opened.delete(key); else opened.add(key); showMasters(); } }, open ? "close" : "detectors")));
      return open ? [line, el("tr", { class: "detail" }, el("td", { colspan: 10 }, mastersOf(one)))] : [line];
    }) : el("tr", {}, el("td", { colspan: 10, class: "dim" }, "No master has been built yet"))));
}

/** Validity is in the exposures' own time, TAI. */
const shownTai = (iso) => new Date(taiMs(iso)).toISOString().slice(0, 16).replace("T", " ");
const shownTime = (iso) => new Date(utcMs(iso)).toISOString().slice(0, 16).replace("T", " ");

function mastersOf(group) {
  const all = (action, title, which) => (which.length ? el("button", { type: "button", "aria-label": `${title} these ${group.kind} masters`, onclick: () => orderAll(action, group, which) }, `${title} ${which.length === 1 ? "it" : `all ${which.length}`}…`) : null);
  const inForce = group.detectors.filter((one) => one.state === "certified");
  const others = group.detectors.filter((one) => one.state !== "certified");
  return el("div", { class: "scroll", tabindex: 0 },
    el("p", { class: "buttons" }, all("verify", "Verify", group.detectors), all("certify", "Certify", others), all("reject", "Reject", inForce), all("withdraw", "Withdraw", inForce)),
    el("table", { class: "grid" }, el("thead", {}, el("tr", {}, ["Detector", "State", "Verification", "Fails", "Calib", ""].map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))),
    el("tbody", {}, group.detectors.map((one) => el("tr", {}, el("td", {}, one.name), el("td", {}, one.is_overridden ? `${one.state}, overridden` : one.state), el("td", {}, word(one.outcome)), el("td", { title: one.failures.join(", ") }, one.failures.slice(0, 6).join(", ")), el("td", { class: "mono" }, one.calib_id),
      el("td", {}, el("button", { type: "button", "aria-label": `Verify ${one.calib_id}`, onclick: () => orderAll("verify", group, [one]) }, "Verify…"), el("button", { type: "button", "aria-label": `What used ${one.calib_id}`, onclick: () => showAffected(one) }, "Used by…"),
        one.state === "certified" ? el("button", { type: "button", "aria-label": `Withdraw ${one.calib_id}`, onclick: () => setState(one, "withdrawn", `Withdraw ${one.calib_id}? No look-up chooses it any more.`) }, "Withdraw…")
          : el("button", { type: "button", "aria-label": `Certify ${one.calib_id}`, onclick: () => setState(one, "certified", `Certify ${one.calib_id} all the same?`) }, "Certify…")))))));
}

async function setState(master, state, question) {
  const reason = await ask(question, { needed: true });
  if (reason === null) return;
  await orComplain($("#master-error"), async () => {
    await change("POST", `/api/calibs/${encodeURIComponent(master.calib_id)}/state`, { state, reason, override: state === "certified" });
    await loadMasters();
  });
}

const orderAll = (action, group, which) => orComplain($("#master-error"), async () => {
  const ids = which.map((one) => one.calib_id);
  const what = ids.length === 1 ? ids[0] : `${ids.length} ${group.kind} masters`;
  if (await order(action, ids, what, { override: action === "certify" && which.some((one) => !["pass", "warn"].includes(one.outcome)) })) await loadMasters();
});

async function showAffected(master) {
  await orComplain($("#master-error"), async () => {
    const found = await getJSON(`/api/calibs/${encodeURIComponent(master.calib_id)}/affected`);
    const others = masters.filter((one) => one.kind === kindOf(master)).flatMap((one) => one.detectors)
      .filter((one) => one.detector === master.detector && one.calib_id !== master.calib_id && one.state === "certified").map((one) => one.calib_id);
    tellAffected(found, { calib: master.calib_id }, { others });
  });
}

const kindOf = (master) => masters.find((one) => one.detectors.includes(master))?.kind;

async function orComplain(box, act) {
  box.hidden = true;
  try {
    await act();
  } catch (error) {
    box.hidden = false;
    setText(box, error.message);
  }
}

async function loadMasters() {
  masters = await getJSON("/api/calibrations/masters");
  showMasters();
}

// ---- left out --------------------------------------------------------------------------------------

async function loadLeftOut() {
  const [exposures, rules] = await Promise.all([getJSON("/api/exposure-exclusions").catch(() => []), getJSON("/api/exclusion-rules").catch(() => [])]);
  const lines = [...listOf(exposures).map((one) => ["exposure", el("a", { href: `/exposure/${one.exposure}` }, `${one.exposure}${one.detector_name ? ` ${one.detector_name}` : ""}`), one]), ...listOf(rules).map((one) => ["rule", el("span", { class: "mono" }, (one.rule ?? one).expression), one.rule ?? one])];
  $("#left-out").replaceChildren(
    el("thead", {}, el("tr", {}, ["What", "Which", "Reason", "By", "Since UTC", ""].map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))),
    el("tbody", {}, lines.length ? lines.map(([what, which, one]) => el("tr", {}, el("td", {}, what), el("td", {}, which), el("td", { class: "wrap" }, one.reason), el("td", {}, one.author), el("td", {}, one.created_at ? shownTime(one.created_at) : DASH),
      el("td", {}, what === "exposure" ? el("button", { type: "button", "aria-label": `What was built from ${one.exposure}`, onclick: () => orComplain($("#out-error"), async () => tellAffected(await getJSON(`/api/exposures/${one.exposure}/affected`), { exposure: one.exposure })) }, "Used by…") : null,
        el("button", { type: "button", "aria-label": `End ${what} ${one.id}`, onclick: async () => {
        const reason = await ask(what === "rule" ? "End this rule?" : "Let builds use it again?");
        if (reason === null) return;
        await orComplain($("#out-error"), async () => {
          await change("DELETE", `/api/${what === "rule" ? "exclusion-rules" : "exposure-exclusions"}/${one.id}?reason=${encodeURIComponent(reason)}`);
          await loadLeftOut();
        });
      } }, "End…")))) : el("tr", {}, el("td", { colspan: 6, class: "dim" }, "Nothing is left out"))));
}

/** The list in an answer, whatever it is called. */
const listOf = (answer) => (Array.isArray(answer) ? answer : Object.values(answer).find(Array.isArray) ?? []);

// ---- together ----------------------------------------------------------------------------------------

async function load() {
  if (followsNow) {
    dayObs = (await getJSON("/api/now")).day_obs;
    setText($("#day"), day(dayObs));
  }
  night = dayObs ? await getJSON(`/api/calibrations/nights/${dayObs}`) : { subjects: [] };
  if (!night.subjects.some((one) => keyOf(one) === chosen)) chosen = night.subjects.length ? keyOf(night.subjects[0]) : null;
  showSubjects();
  await Promise.all([showMatrix(), loadMasters(), loadLeftOut()]);
}

$("#test").addEventListener("change", (event) => {
  plane.setTest(event.target.value);
  showLegend();
});
const zoom = () => {
  const on = $("#zoom").getAttribute("aria-pressed") !== "true";
  const place = data.camera.detectors.find((one) => one.id === (plane.cursor ?? detector ?? data.camera.witness_detector));
  $("#zoom").setAttribute("aria-pressed", String(on));
  plane.zoomTo(on ? place?.raft : null);
};
$("#zoom").addEventListener("click", zoom);
$("#kind").addEventListener("change", showMasters);
$("#build").addEventListener("click", () => askBuild(night.subjects, $("#kind").value || "bias"));
$("#leave-out").addEventListener("click", () => askLeaveOut(loadLeftOut));
$("#add-rule").addEventListener("click", () => askRule(dayObs, loadLeftOut));
document.addEventListener("themechange", () => plane.paint());
startTrends(data.camera, { detector: detector ?? data.camera.witness_detector });
const live = startLive({
  anew: load,
  on: {
    exposures: (message) => {
      if (message.exposures.some((one) => one.products && (["bias", "dark", "flat"].includes(one.row.image_type) || one.row.pipelines.some((name) => name.startsWith("build_"))))) live.later();
    },
    exclusions: () => live.later(),
    calibs: () => live.later(),
  },
  keys: { z: zoom, Escape: closeDetail },
  help: [["Z", "zoom to a raft, and back"]],
});
showWho();
