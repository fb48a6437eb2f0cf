// Comments and flags: the list, the form, taking back. Used by the night log, and by any page with an exposure.

import { change, clearErrors, showError, showWho } from "./access.js";
import { $, el, getJSON, setText } from "./dom.js";
import { clock, seq, utcMs } from "./format.js";

const FLAGS = ["", "questionable", "junk", "none"];
const WORDS = { "": "no flag", none: "take the flag away", questionable: "questionable", junk: "junk" };

/** One entry as it is read; `onGone` after it was taken back. */
export function entryOf(entry, { withExposure = true } = {}) {
  const where = entry.exposure_id ? el("a", { href: `/exposure/${entry.exposure_id}` }, `seq ${seq(entry.seq_num)}`) : el("span", {}, "the night");
  const gone = entry.retracted_at !== null;
  const error = el("p", { class: "error", role: "alert", hidden: true });
  const back = el("button", { type: "button", class: "plain push", "aria-label": `Take back what ${entry.author} wrote`, onclick: async () => {
    try {
      await change("DELETE", `/api/log/${entry.id}`);
    } catch (problem) {
      error.hidden = false;
      setText(error, problem.message);
    }
  } }, "take back");
  return el("article", { class: "entry", "data-id": entry.id, "data-gone": gone },
    el("header", {}, el("b", {}, entry.author), el("span", { class: "dim" }, `${clock(utcMs(entry.created_at))} UTC`), withExposure ? where : null,
      entry.flag ? el("span", { class: "flag", "data-flag": entry.flag }, entry.flag === "none" ? "flag taken away" : entry.flag) : null,
      gone ? el("span", { class: "dim" }, `taken back by ${entry.retracted_by}`) : back),
    entry.text ? el("p", {}, entry.text) : null, error);
}

/** A form that writes an entry; `about` gives {exposure_id} or {day_obs}, or null to ask for the exposure's number. */
export function commentForm({ about, dayObs }) {
  const text = el("textarea", { id: "comment-text", maxlength: 4000, "aria-label": "Comment" });
  const flag = el("select", { id: "comment-flag", "aria-label": "Flag" }, FLAGS.map((name) => el("option", { value: name }, WORDS[name])));
  const number = el("input", { id: "comment-seq", type: "number", min: 0, max: 99999, class: "short", placeholder: "the night", "aria-label": "Sequence number; empty for the night" });
  const rest = el("p", { class: "error", role: "alert", hidden: true });
  const form = el("form", { class: "comment-form", novalidate: true },
    el("div", { "data-field": "text" }, text, el("p", { class: "error", role: "alert", hidden: true })),
    el("div", { class: "row" }, about ? null : el("label", { for: "comment-seq" }, "On exposure"), about ? null : el("span", { "data-field": "exposure_id" }, number, el("p", { class: "error", role: "alert", hidden: true })),
      el("span", { "data-field": "flag" }, flag, el("p", { class: "error", role: "alert", hidden: true })), el("button", { class: "primary" }, "Write")), rest);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearErrors(form);
    const day = dayObs();
    const target = about?.() ?? (number.value === "" ? { day_obs: day } : { exposure_id: day * 100_000 + Number(number.value) });
    try {
      await change("POST", "/api/log", { ...target, text: text.value, flag: flag.value || null });
      form.reset();
    } catch (error) {
      showError(form, error, rest);
    }
  });
  return form;
}

/** Fill a box with an exposure's comments and a form; call the returned function when the log has changed. */
export function mountComments(box, exposureId) {
  const list = el("div");
  const count = el("span", { class: "dim" });
  box.replaceChildren(el("header", {}, el("h2", {}, "Comments"), count, el("span", { class: "push", id: $("#who") ? null : "who" })), list,
    el("details", {}, el("summary", {}, "Comment or flag"), commentForm({ about: () => ({ exposure_id: exposureId }), dayObs: () => Math.floor(exposureId / 100_000) })));
  const load = async () => {
    const { entries, flags } = await getJSON(`/api/exposures/${exposureId}/log`);
    box.dataset.flag = flags[exposureId] ?? "";
    setText(count, entries.length ? String(entries.length) : "none");
    list.replaceChildren(...entries.map((entry) => entryOf(entry, { withExposure: false })));
  };
  load().catch((error) => setText(count, error.message));
  showWho();
  return () => load().catch((error) => setText(count, error.message));
}
