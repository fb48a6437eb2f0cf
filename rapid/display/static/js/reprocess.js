// Have an exposure processed again: a request like any other, watched from here.

import { change } from "./access.js";
import { el, setText } from "./dom.js";

export function startReprocess(button, panel, { id, pipeline, names, opened }) {
  const note = el("p", { role: "status" });
  const what = el("span", {});
  const reuse = el("input", { type: "checkbox" });
  const label = el("input", { type: "text", maxlength: 200, placeholder: "why, for people who read the list", "aria-label": "Why" });
  const go = el("button", { type: "submit", id: "reprocess-go" }, "Reprocess");
  const form = el("form", { class: "inline" }, what, label, el("label", {}, reuse, " reuse results that are there"), go, el("button", { type: "button", onclick: () => { panel.hidden = true; } }, "Cancel"));
  panel.append(el("header", {}, el("h2", {}, "Reprocess")), form, note);

  button.addEventListener("click", () => {
    panel.hidden = !panel.hidden;
    const one = opened();
    setText(what, one === null ? `all detectors, ${pipeline()}` : `${names(one)} alone, ${pipeline()}`);
    if (!panel.hidden) label.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    setText(note, "asking…");
    const one = opened();
    const body = {
      select: { exposures: [id] }, pipeline: pipeline(), reuse: reuse.checked,
      ...(one === null ? {} : { detectors: names(one) }), ...(label.value.trim() ? { label: label.value.trim() } : {}),
    };
    try {
      const answer = await change("POST", "/api/requests", body);
      note.replaceChildren("Accepted: ", el("a", { href: `/requests?id=${encodeURIComponent(answer.id ?? answer.request_id)}` }, `request ${answer.id ?? answer.request_id}`),
        ". Its results are kept beside the night's own.");
    } catch (error) {
      setText(note, error.message);
    } finally {
      go.disabled = false;
    }
  });
}
