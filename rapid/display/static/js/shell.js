// What every page has: theme, clock, help, and the keys that lead from page to page.

import { $, el, setText } from "./dom.js";
import { clock } from "./format.js";

const KEYS = [
  ["←  →", "older, newer exposure"],
  ["L", "live: follow the newest exposure"],
  ["M", "next metric on the focal plane (Shift: previous)"],
  ["D", "step through detectors on the focal plane: arrows, Enter opens"],
  ["E", "this exposure's own page"],
  ["N", "the night's table"],
  ["F", "focus and wavefront"],
  ["V", "calibrations: verification, trends, exclusions"],
  ["S", "the cluster: workers, queues, failures"],
  ["C", "control: pattern, modes, what is excluded"],
  ["R", "requests: what scripts and people have asked for"],
  ["T", "dark or light"],
  ["/", "search or filter"],
  ["?", "this help; Esc closes it"],
];

export function startShell({ keys = {}, offset = () => 0, help: more = [] } = {}) {
  const help = () => showHelp([...more, ...KEYS]);
  $("#theme")?.addEventListener("click", toggleTheme);
  $("#help")?.addEventListener("click", help);
  const all = {
    n: () => follow("#nav-night"),
    f: () => follow("#nav-focus"),
    v: () => follow("#nav-calibrations"),
    s: () => follow("#nav-cluster"),
    c: () => follow("#nav-control"),
    r: () => follow("#nav-requests"),
    l: () => follow("#nav-now"),
    t: toggleTheme,
    "?": help,
    ...keys,
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || $("dialog[open]")) return;
    const act = all[event.key] ?? all[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
  const tick = () => {
    const now = Date.now() + offset();
    setText($("#utc"), clock(now));
    // Wake at the turn of the second, so that the clock does not stutter.
    setTimeout(tick, 1000 - (now % 1000));
  };
  tick();
}

function follow(selector) {
  const link = $(selector);
  if (link) location.assign(link.href);
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
  try {
    localStorage.setItem("rapid.theme", root.dataset.theme);
  } catch {
    // storage may be forbidden; the theme then lasts as long as the page
  }
  document.dispatchEvent(new Event("themechange"));
}

function showHelp(keys) {
  const dialog = el("dialog", { "aria-label": "Keys" },
    el("h1", {}, "Keys"),
    el("table", {}, keys.map(([key, what]) => el("tr", {}, el("td", {}, el("kbd", {}, key)), el("td", {}, what)))),
    el("p", { class: "dim" }, "States: ● complete, ▲ partial, ✕ failed, ◐ running, ○ waiting. Every view has its own address: copy it from the browser."),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
