// Changes: who makes them, with which token, and how a refusal comes back. Reading needs none of this.

import { $, el, getJSON, RequestError, setText } from "./dom.js";

const TOKEN = "rapid.token";
const NAME = "rapid.name";

function kept(key) {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return ""; // storage may be forbidden; the token is then asked for each time
  }
}

function keep(key, value) {
  try {
    if (value) sessionStorage.setItem(key, value);
    else sessionStorage.removeItem(key);
  } catch {
    // see above
  }
}

function headersWith(token, name) {
  const headers = { Accept: "application/json", "X-Rapid-Door": "display" };
  if (token) headers.Authorization = `Bearer ${token}`;
  // A header holds Latin letters only; the audit log takes the name as it is said.
  const plain = name.replace(/[^\x20-\x7e]/g, "").trim();
  if (plain) headers["X-Rapid-User"] = plain;
  return headers;
}

async function ask(method, url, body, more = {}) {
  const headers = { ...headersWith(kept(TOKEN), kept(NAME)), ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(20_000) });
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new RequestError(response.status, answer);
  return answer;
}

/** Change something; asks for the token if there is none yet, or the one there is was refused. */
export async function change(method, url, body, headers = {}) {
  for (;;) {
    const hadToken = Boolean(kept(TOKEN));
    try {
      const answer = await ask(method, url, body, headers);
      showWho();
      return answer;
    } catch (error) {
      if (error.status !== 401) throw error;
      keep(TOKEN, "");
      if (await askForToken(hadToken ? error.message : "")) continue;
      showWho();
      throw new RequestError(401, { error: { code: "unauthorized", message: "Nothing was changed: a change needs a token." } });
    }
  }
}

/** Ask the person for name and token; resolves to whether there is one now. */
export function askForToken(complaint = "") {
  return new Promise((resolve) => {
    const token = el("input", { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-error" });
    const name = el("input", { id: "token-name", autocomplete: "name", maxlength: 64, value: kept(NAME), placeholder: "as it shall stand in the log" });
    const dialog = el("dialog", { "aria-label": "Token", class: "form" },
      el("h1", {}, "Who are you?"),
      el("p", { class: "dim" }, "Changes need this installation's token. It is kept until this tab is closed."),
      el("form", { method: "dialog", onsubmit: () => { dialog.dataset.given = "yes"; } },
        el("label", { for: "token-name" }, "Name"), name,
        el("label", { for: "token" }, "Token"), token,
        el("p", { class: "error", id: "token-error", role: "alert", hidden: !complaint }, complaint),
        el("div", { class: "buttons" }, el("button", { class: "primary" }, "Go on"), el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
    dialog.addEventListener("close", () => {
      const given = dialog.dataset.given === "yes" && token.value.trim();
      if (given) {
        keep(TOKEN, token.value.trim());
        keep(NAME, name.value.trim());
      }
      dialog.remove();
      resolve(Boolean(given));
    });
    document.body.append(dialog);
    dialog.showModal();
    (name.value ? token : name).focus();
  });
}

/** Say in the page's `#who` for whom changes would be made. */
export async function showWho() {
  const box = $("#who");
  if (!box) return;
  const known = kept(TOKEN);
  let facts;
  try {
    facts = await ask("GET", "/api/access");
  } catch (error) {
    if (error.status !== 401) return;
    keep(TOKEN, "");
    facts = await getJSON("/api/access").catch(() => null);
  }
  if (!facts) return;
  const enter = el("button", { type: "button", id: "enter-token", onclick: async () => { if (await askForToken()) await showWho(); } }, "Enter token");
  if (facts.may_change) {
    const forget = el("button", { type: "button", onclick: () => { keep(TOKEN, ""); showWho(); } }, "Forget");
    box.replaceChildren(el("span", {}, "changes as ", el("b", {}, facts.principal)), known ? forget : "");
  } else if (facts.ways.includes("token")) {
    box.replaceChildren(el("span", { class: "dim" }, "read only"), enter);
  } else {
    box.replaceChildren(el("span", { class: "dim" }, facts.ways.length ? "read only" : "read only: no token is configured here"));
  }
}

/** Show an error at the field it is about, inside `root`; what belongs to no field goes to `rest`. */
export function showError(root, error, rest) {
  clearErrors(root);
  const field = error.field ?? "";
  const parts = field.split(".");
  let box = null;
  // The nearest field there is: an error in patterns.mine.3 is shown at patterns.mine, or at patterns.
  while (parts.length && !box) {
    box = parts[0] ? root.querySelector(`[data-field="${CSS.escape(parts.join("."))}"]`) : null;
    parts.pop();
  }
  const place = box?.querySelector(".error") ?? rest;
  box?.closest("details")?.setAttribute("open", ""); // what has an error inside must not be folded away
  const text = box && field && error.message.startsWith(`${field}: `) ? error.message.slice(field.length + 2) : error.message;
  setText(place, text);
  place.hidden = false;
  const input = box?.querySelector("input, select, textarea, button");
  input?.setAttribute("aria-invalid", "true");
  input?.focus();
}

export function clearErrors(root) {
  for (const place of root.querySelectorAll(".error")) {
    place.hidden = true;
    place.textContent = "";
  }
  for (const input of root.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}
