// Ask before something is done, and for the reason that the log will show.

import { el } from "./dom.js";

/** Ask for confirmation and a reason; resolves to the reason, or null if the person thought better of it. */
export function ask(question, { needed = false } = {}) {
  return new Promise((resolve) => {
    const reason = el("input", { id: "order-reason", maxlength: 500, autocomplete: "off", required: needed });
    const dialog = el("dialog", { class: "form", "aria-label": "Order" },
      el("h1", {}, question),
      el("form", { method: "dialog", onsubmit: () => { dialog.dataset.given = "yes"; } },
        el("label", { for: "order-reason" }, "Reason, for the log"), reason,
        el("div", { class: "buttons" }, el("button", { class: "primary", id: "order-go" }, "Do it"), el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
    dialog.addEventListener("close", () => {
      resolve(dialog.dataset.given === "yes" ? reason.value.trim() : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
    reason.focus();
  });
}
