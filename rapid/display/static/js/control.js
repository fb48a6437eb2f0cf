// The control page: what is done with the next exposure, which detectors that means, and what is switched off.

import { change, clearErrors, showError, showWho } from "./access.js";
import { ControlForm } from "./controlform.js";
import { $, boot, el, getJSON, setText } from "./dom.js";
import { ExclusionPanel } from "./exclusions.js";
import { clock, DASH } from "./format.js";
import { PaintPlane } from "./paintplane.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const data = boot();
const camera = { ...data.camera, amps: data.amps };
let control = null; // the document in force, read back
let preview = { detectors: [], phases: 1, phase: 0 };
let drawn = null; // what is being drawn, or null before the first stroke

const plane = new PaintPlane($("#plane"), camera, { onPaint: painted, onChoose: (id) => { setMode("exclude"); exclusions.toggle(id); } });
const exclusions = new ExclusionPanel(camera, plane, { onChange: () => describe() });
const form = new ControlForm($("#form"), data, { onPattern: (text) => showPattern(text), onApply: apply });

// ---- modes of the focal plane ---------------------------------------------------------------------

function setMode(mode) {
  if (plane.mode === mode) return;
  plane.setMode(mode);
  $(".paint").dataset.mode = mode;
  for (const button of document.querySelectorAll("#modes button")) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  $("#tools-draw").hidden = mode !== "draw";
  $("#tools-preview").hidden = mode !== "preview";
  $("#tools-exclude").hidden = mode !== "exclude";
  if (mode === "draw") {
    drawn ??= new Set(preview.detectors);
    plane.select(drawn);
    painted();
  } else {
    plane.select(preview.detectors);
    setText($("#expression"), preview.expression ?? "");
    describe();
  }
  if (mode !== "exclude") exclusions.clear();
  else exclusions.show();
}

/** Say in words what the focal plane shows. */
function describe() {
  const science = camera.detectors.filter((place) => place.purpose === "SCIENCE");
  const n = science.filter((place) => plane.selected.has(place.id)).length;
  const off = science.filter((place) => plane.selected.has(place.id) && plane.off.has(place.id)).length;
  const others = plane.selected.size - n;
  setText($("#plane-note"), [`${n} of ${science.length} science detectors`, others && `${others} others`, off && `${off} of them excluded`].filter(Boolean).join(", "));
}

// ---- the pattern, as the server understands it ---------------------------------------------------

let asked = 0;
let wait = null;

function showPattern(text, phase = 0) {
  clearTimeout(wait);
  // One question when the typing pauses; an answer that is overtaken is dropped.
  wait = setTimeout(async () => {
    const mine = (asked += 1);
    try {
      const found = await getJSON(`/api/patterns?expression=${encodeURIComponent(text)}&phase=${phase}`);
      if (mine !== asked) return;
      preview = { ...found, text };
      form.patternIsGood(found);
    } catch (error) {
      if (mine !== asked) return;
      preview = { detectors: [], phases: 1, phase: 0, text };
      form.patternIsBad(error.message.replace(/^expression: /, ""));
    }
    if (plane.mode !== "draw") plane.select(preview.detectors);
    showPhases();
    describe();
  }, phase || !text ? 0 : 150);
}

function showPhases() {
  const n = preview.phases ?? 1;
  const buttons = n > 1 ? [...Array(Math.min(n, 12)).keys()].map((phase) => el("button", {
    type: "button", "aria-pressed": String(phase === preview.phase), onclick: () => showPattern(preview.text, phase),
  }, String(phase))) : [];
  const label = n > 1 ? el("span", { class: "dim" }, "phase") : el("span", { class: "dim" }, "the same detectors with every exposure");
  const group = el("div", { class: "segments", role: "group", "aria-label": "Phase", id: "phases" }, buttons);
  const hint = n > 1 && form.value("visit_mode") === "constant" ? el("span", { class: "dim" }, "visit mode constant: always phase 0") : null;
  $("#tools-preview").replaceChildren(label, ...(n > 1 ? [group] : []), ...(hint ? [hint] : []));
  if (plane.mode !== "draw") setText($("#expression"), preview.expression ?? "");
}

// ---- drawing -------------------------------------------------------------------------------------

let inWords = null;

function painted() {
  drawn = plane.selected;
  describe();
  for (const button of [$("#save"), $("#save-use")]) button.disabled = !drawn.size;
  clearTimeout(inWords);
  if (!drawn.size) {
    setText($("#expression"), "nothing is drawn yet: click or drag over detectors");
    return;
  }
  inWords = setTimeout(async () => {
    try {
      const found = await getJSON(`/api/patterns/drawn?detectors=${[...drawn].join(",")}`);
      if (plane.mode === "draw") setText($("#expression"), found.expression);
    } catch (error) {
      setText($("#expression"), error.message);
    }
  }, 120);
}

async function save(use) {
  const box = $("#save-form");
  clearErrors(box);
  const name = $("#save-name").value.trim();
  const complain = (message, field = "name") => showError(box, { message, field }, $("#save-error"));
  if (!name) return complain("a name is needed to find it again");
  try {
    const { expression } = await getJSON(`/api/patterns/drawn?detectors=${[...drawn].join(",")}`);
    // One change, so that what is saved and what is used cannot come apart.
    const patch = { patterns: { [name]: expression }, ...(use ? { pattern: name } : {}) };
    showControl(await change("PATCH", `/api/control?reason=${encodeURIComponent("drawn on the focal plane")}`, patch));
    form.say(use ? `${name} is in force` : `${name} is saved`);
    await showLog();
    if (use) {
      setMode("preview");
      form.reset();
    }
  } catch (error) {
    // Of a name that cannot be, the sentence is enough; a pointer into it would point at the field above.
    complain(error.message.replace(/^patterns(\.[^:]*)?: /, "").replace(/, at column \d+[^]*$/, ""));
  }
}

function paintAll(ids) {
  plane.select(ids);
  painted();
}

// ---- the control state ---------------------------------------------------------------------------

function showControl(document_) {
  control = document_;
  const { version, changed_by: by, changed_ms: ms, reason } = control;
  const when = ms ? `${new Date(ms).toISOString().slice(0, 10)} ${clock(ms)} UTC` : "";
  $("#in-force").replaceChildren(...(version ? [el("b", {}, `version ${version}`), ` by ${by} ${when}`, reason ? ` “${reason}”` : ""] : [el("b", {}, "defaults"), " never changed"]));
  form.show(control);
}

async function apply(patch, reason) {
  const document_ = await change("PATCH", `/api/control?reason=${encodeURIComponent(reason)}`, patch, { "If-Match": `"${control.version}"` });
  form.reset();
  showControl(document_);
  await showLog();
}

async function load() {
  try {
    const [document_, patterns] = await Promise.all([getJSON("/api/control"), getJSON("/api/patterns")]);
    form.offerPatterns(patterns);
    showControl(document_);
    $("#load-error").hidden = true;
  } catch (error) {
    setText($("#load-error"), `The control state cannot be read: ${error.message}`);
    $("#load-error").hidden = false;
  }
  await showLog();
}

async function forget(name) {
  try {
    showControl(await change("DELETE", `/api/control/patterns/${encodeURIComponent(name)}`));
    form.say(`${name} is forgotten`);
    form.offerPatterns(await getJSON("/api/patterns"));
    await showLog();
  } catch (error) {
    form.say(error.message, true);
  }
}
form.onForget = forget;

const word = (value) => (value === null || value === undefined ? DASH : typeof value === "object" ? JSON.stringify(value) : String(value));

async function showLog() {
  let entries;
  try {
    entries = await getJSON("/api/control/history?limit=200");
  } catch {
    return; // the error of the state says it already
  }
  setText($("#n-log"), entries.length ? `${entries.length} ${entries.length === 1 ? "change" : "changes"}` : "");
  $("#log").replaceChildren(
    el("thead", {}, el("tr", {}, ["Version", "When (UTC)", "Who", "Door", "What", "Why"].map((title, at) => el("th", { class: at ? "" : "num" }, title)))),
    el("tbody", {}, entries.length ? entries.map((entry) => el("tr", {},
      el("td", { class: "num" }, String(entry.version)),
      el("td", {}, `${new Date(entry.changed_ms).toISOString().slice(5, 10)} ${clock(entry.changed_ms)}`),
      el("td", {}, entry.changed_by), el("td", {}, entry.door),
      el("td", { class: "changes" }, Object.keys({ ...entry.before, ...entry.after }).map((field) => el("div", {}, el("span", { class: "dim" }, `${field} `), `${word(entry.before[field])} → `, el("b", {}, word(entry.after[field]))))),
      el("td", {}, entry.reason))) : el("tr", {}, el("td", { colspan: 6, class: "dim" }, "Nothing has been changed yet: the defaults are in force."))));
}

// ---- wiring --------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("#modes button")) button.addEventListener("click", () => setMode(button.dataset.mode));
for (const [id, byRaft] of [["#by-detector", false], ["#by-raft", true]]) {
  $(id).addEventListener("click", () => {
    plane.byRaft = byRaft;
    $("#by-detector").setAttribute("aria-pressed", String(!byRaft));
    $("#by-raft").setAttribute("aria-pressed", String(byRaft));
  });
}
const ids = (keep) => camera.detectors.filter((place) => place.purpose === "SCIENCE" && keep(place.id)).map((place) => place.id);
$("#draw-all").addEventListener("click", () => paintAll(ids(() => true)));
$("#draw-none").addEventListener("click", () => paintAll([]));
$("#draw-invert").addEventListener("click", () => paintAll(ids((id) => !plane.selected.has(id))));
$("#save-form").addEventListener("submit", (event) => {
  event.preventDefault();
  save(event.submitter?.value === "use");
});

let stream = null;
async function refresh() {
  await Promise.all([load(), exclusions.load()]);
  describe();
}

stream = new LiveStream({
  after: data.as_of,
  heartbeatS: data.heartbeat_s,
  handlers: {
    control: () => load(),
    exclusions: () => exclusions.load().then(describe),
    exposures: (message) => message.exposures.some((one) => one.is_new) && exclusions.load().then(describe),
    sources: (message) => showSources(message.sources),
    reset: async () => {
      const now = await getJSON("/api/now");
      await refresh();
      stream.resumeAfter(now.as_of);
    },
    returned: refresh,
  },
});
startShell({
  offset: () => stream.offsetMs,
  keys: {
    p: () => setMode("preview"),
    d: () => { setMode("draw"); plane.canvas.focus(); },
    x: () => { setMode("exclude"); plane.canvas.focus(); },
  },
  help: [["P  D  X", "preview, draw, exclude"], ["arrows", "move over the focal plane; Space paints or chooses (Shift: the whole raft)"]],
});
showWho();
refresh();
