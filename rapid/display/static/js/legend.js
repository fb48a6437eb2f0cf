// What the marks on a focal plane mean, and how many detectors are in each state.

import { el } from "./dom.js";

export const STATES = ["finished", "running", "queued", "waiting", "failed", "superseded", "quarantined", "excluded"];

/** Show every state with its mark; those that occur with their count. */
export function showLegend(box, cells) {
  const counts = {};
  for (const cell of cells) counts[cell.state] = (counts[cell.state] ?? 0) + 1;
  box.replaceChildren(
    ...STATES.map((state) => el("span", {}, el("i", { "data-state": state }), counts[state] ? `${state} ${counts[state]}` : state)),
  );
}
