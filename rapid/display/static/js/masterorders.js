// Orders about masters: build, verify anew, certify, reject, withdraw, and doing again what used a bad one. Each is a request.

import { change } from "./access.js";
import { el, getJSON, setText } from "./dom.js";
import { ask } from "./orders.js";

const KINDS = {
  bias: ["bias"], dark: ["dark"], flat: ["flat"], ptc: ["flat"], linearity: ["flat"], defects: ["dark", "flat"], crosstalk: [],
};
const follow = (answer) => location.assign(`/requests?id=${encodeURIComponent(answer.request.request_id)}`);
const items = (text) => text.split(/[,;\s]+/).filter(Boolean).map((item) => (/^\d+$/.test(item) ? Number(item) : item));

/** Show a form in a dialog; `send` gets the fields' texts by name, and whatever it throws is said in the dialog. */
function form(title, fields, verb, send) {
  const complaint = el("p", { class: "error", role: "alert", hidden: true });
  const note = el("div", { role: "status" });
  const go = el("button", { class: "primary", id: "order-send" }, verb);
  const dialog = el("dialog", { class: "form", "aria-label": title }, el("h1", {}, title),
    el("form", { onsubmit: async (event) => {
      event.preventDefault();
      complaint.hidden = true;
      go.disabled = true;
      try {
        await send(Object.fromEntries(fields.map(([name, , input]) => [name, input.value.trim()])), note);
      } catch (error) {
        complaint.hidden = false;
        setText(complaint, error.message);
      }
      go.disabled = false;
    } },
      ...fields.flatMap(([name, text, input]) => {
        input.id = `order-${name}`;
        return [el("label", { for: input.id }, text), input];
      }), note, complaint,
      el("div", { class: "buttons" }, go, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const text = (attributes = {}) => el("input", { autocomplete: "off", spellcheck: "false", ...attributes });

/** Ask which master to build of what; the night's exposures of its type are suggested. */
export function askBuild(subjects, kind = "bias") {
  const select = el("select", {}, Object.keys(KINDS).map((name) => el("option", { value: name, selected: name === kind }, name)));
  const exposures = text({ placeholder: "2026112000001-2026112000020" });
  const suggest = () => {
    const ids = subjects.filter((one) => !one.is_master && KINDS[select.value].includes(one.kind)).map((one) => one.exposure_id).sort((a, b) => a - b);
    const ranges = [];
    for (const id of ids) {
      if (ranges.length && id === ranges.at(-1)[1] + 1) ranges.at(-1)[1] = id;
      else ranges.push([id, id]);
    }
    exposures.value = ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
  };
  select.addEventListener("change", suggest);
  suggest();
  form("Build a master", [
    ["kind", "Kind", select], ["exposures", "Exposures: ids and ranges", exposures], ["group", "or all of a GROUPID", text()],
    ["detectors", "Detectors", text({ placeholder: "a pattern; all science detectors" })],
  ], "Build and verify", async (given) => {
    if (!given.exposures === !given.group) throw new Error("Give either exposures or a GROUPID.");
    const spec = { select: given.group ? { group: { group_id: given.group } } : { exposures: items(given.exposures) }, combine: `build_${given.kind}`, label: `build ${given.kind}` };
    if (given.detectors) spec.detectors = given.detectors;
    follow(await change("POST", "/api/requests", spec));
  });
}

const QUESTION = {
  verify: (what) => `Verify ${what} anew, by the thresholds as they are now?`,
  certify: (what) => `Certify ${what}?`,
  reject: (what) => `Reject ${what}? Look-ups do not choose it any more.`,
  withdraw: (what) => `Withdraw ${what}? No look-up chooses it any more.`,
};

/** Have something done with calibs, all or none; resolves to whether it was, with the reason it was not thrown. */
export async function order(action, ids, what, { override = false } = {}) {
  const reason = await ask(QUESTION[action](what), { needed: action !== "verify" });
  if (reason === null) return false;
  const { request } = await change("POST", "/api/requests", { select: { calibs: { ids, action, reason, override } }, label: `${action} ${what}`.slice(0, 200) });
  const done = request.finished_ms ? request : (await getJSON(`/api/requests/${encodeURIComponent(request.request_id)}?wait_s=15`)).request;
  if (done.error) throw new Error(done.error.message);
  if (!done.finished_ms) throw new Error("Accepted, and not done yet: Requests shows how far it is.");
  return true;
}

/** Tell what used a calib or an exposure, and offer to have it done again. */
export function tellAffected(found, source, { others = [] } = {}) {
  const calibs = found.built.length;
  const isNone = !found.n_results && !calibs;
  const instead = el("select", {}, el("option", { value: "" }, "whatever a look-up chooses then"), ...others.map((one) => el("option", { value: one }, one)));
  form(`${found.n_results} results of ${found.n_exposures} exposures used it`, others.length && !isNone ? [["instead", "In its place", instead]] : [], isNone ? "Close" : `Do ${found.n_results} results again`, async (given) => {
    if (isNone) {
      document.querySelector("dialog[open]")?.close();
      return;
    }
    const affected = given.instead ? { ...source, replacement: given.instead } : source;
    follow(await change("POST", "/api/requests", { select: { affected }, priority: "backlog", label: `redo ${Object.values(source)[0]}`.slice(0, 200) }));
  }).querySelector("h1").after(
    el("p", {}, calibs ? `${calibs} other calib${calibs === 1 ? " was" : "s were"} built with it.` : "No other calib was built with it."),
    el("p", { class: "dim" }, "Done again, they are stored in the place of the old ones, and displays show the new. What is bad has to be withdrawn, or excluded, first."));
}

/** Ask which exposures no calib is to be built from. */
export function askLeaveOut(done) {
  form("Leave exposures out of builds", [
    ["exposures", "Exposures: ids and ranges", text({ required: true, placeholder: "2026112000012-2026112000015" })],
    ["detectors", "Detectors", text({ placeholder: "R22_S11 94; every one if left out" })], ["reason", "Reason", text({ required: true, maxlength: 500 })],
  ], "Leave out", async (given) => {
    const exposures = items(given.exposures).flatMap((item) => {
      if (Number.isInteger(item)) return [item];
      const [, first, last] = /^(\d+)-(\d+)$/.exec(item) ?? [];
      if (!first || Number(last) < Number(first) || last - first > 5000) throw new Error(`${item} is no exposure and no range FIRST-LAST`);
      return Array.from({ length: last - first + 1 }, (_, at) => Number(first) + at);
    });
    await change("POST", "/api/exposure-exclusions", { exposures, detectors: items(given.detectors), reason: given.reason });
    document.querySelector("dialog[open]")?.close();
    await done();
  });
}

/** Ask for a rule on metrics; says what it would find before it is made. */
export function askRule(dayObs, done) {
  let tried = "";
  const dialog = form("Leave out by a rule", [
    ["expression", "Rule", text({ required: true, placeholder: "bias_mean_adu > 5 and detector in R22" })],
    ["first", "From observing day", text({ required: true, inputmode: "numeric", value: dayObs ?? "" })], ["reason", "Reason", text({ required: true, maxlength: 500 })],
  ], "Try it", async (given, note) => {
    const rule = { expression: given.expression, first_day: /^\d+$/.test(given.first) ? Number(given.first) : given.first };
    const key = JSON.stringify(rule);
    if (tried !== key) {
      const { n_found: n, found } = await change("POST", "/api/exclusion-rules/preview", rule);
      note.replaceChildren(el("p", {}, n ? `It finds ${n}:` : "It finds nothing so far; it looks at what comes, too."),
        el("ul", {}, found.slice(0, 8).map((one) => el("li", {}, `${one.exposure} ${one.detector_name} ${one.found}`))));
      tried = key;
      setText(dialog.querySelector("#order-send"), "Make the rule");
      return;
    }
    await change("POST", "/api/exclusion-rules", { ...rule, reason: given.reason });
    dialog.close();
    await done();
  });
  dialog.addEventListener("input", () => {
    if (tried) setText(dialog.querySelector("#order-send"), "Try it");
    tried = "";
  });
}
