// The night log: every comment and flag of a night, live; a form to add one.

import { showWho } from "./access.js";
import { commentForm, entryOf } from "./comments.js";
import { $, boot, el, getJSON, setText } from "./dom.js";
import { day } from "./format.js";
import { startLive } from "./live.js";

const data = boot();
const followsNow = !/\d{8}/.test(location.pathname);
let dayObs = data.day_obs;
let withHistory = false;

async function load() {
  if (followsNow) {
    dayObs = (await getJSON("/api/now")).day_obs;
    setText($("#day"), day(dayObs));
  }
  if (!dayObs) {
    $("#entries").replaceChildren(el("p", { class: "dim" }, "There is no night yet."));
    return;
  }
  for (const [id, url] of [["csv", `/api/log/${dayObs}/csv`], ["json", `/api/log/${dayObs}`], ["report", `/night/${dayObs}/report`]]) $(`#${id}`).href = url;
  const { entries, flags } = await getJSON(`/api/log/${dayObs}?history=${withHistory}`);
  const nFlags = Object.keys(flags).length;
  setText($("#n-entries"), `${entries.length} ${entries.length === 1 ? "entry" : "entries"}${nFlags ? `, ${nFlags} flagged` : ""}`);
  $("#entries").replaceChildren(...(entries.length ? [...entries].reverse().map((entry) => entryOf(entry)) : [el("p", { class: "dim" }, "Nobody has written anything about this night yet.")]));
}

$("#with-history").addEventListener("click", (event) => {
  withHistory = !withHistory;
  event.target.setAttribute("aria-pressed", String(withHistory));
  load();
});
$("#comment-form").append(commentForm({ about: null, dayObs: () => dayObs }));
const live = startLive({ anew: load, on: { log: () => live.later() } });
showWho();
