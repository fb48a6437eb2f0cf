// The focal plane coloured by what the workers do: one cell a detector that somebody is pinned to or works on.

import { el } from "./dom.js";
import { FocalPlane } from "./focalplane.js";

export const CONDITIONS = ["busy", "queued", "free", "restarting", "missing"];

export class WorkPlane extends FocalPlane {
  card(place) {
    const work = this.cells.get(place.id);
    const head = el("div", {}, el("b", {}, place.name), ` ${place.id}`);
    if (!work) return [head, el("div", { class: "dim" }, "nobody is pinned to it, nobody works on it")];
    return [head, el("div", { class: "state", "data-state": work.state }, work.state), ...(work.workers.length ? work.workers.map((name) => el("div", { class: "mono" }, name)) : [el("div", {}, "no worker is pinned to it")]), ...(work.job_id ? [el("div", { class: "dim" }, work.job_id)] : [])];
  }

  drawCell(context, look, place, cell, box) {
    if (!cell) {
      super.drawCell(context, look, place, cell, box);
      return;
    }
    const [x0, y0, w0, h0] = box;
    const gap = Math.min(1, w0 * 0.03);
    const [x, y, w, h] = [x0 + gap, y0 + gap, w0 - 2 * gap, h0 - 2 * gap];
    const busy = cell.state === "busy";
    context.fillStyle = busy ? look.accent : look.raised;
    context.fillRect(x, y, w, h);
    context.lineWidth = cell.state === "queued" ? 2 : 1;
    context.strokeStyle = { queued: look.accent, restarting: look.warn, missing: look.bad }[cell.state] ?? look.dim;
    context.strokeRect(x + 1, y + 1, w - 2, h - 2);
    const sign = { restarting: "↻", missing: "✕" }[cell.state];
    const size = Math.min(w, h);
    context.textAlign = "center";
    context.textBaseline = "middle";
    if (sign) {
      context.fillStyle = cell.state === "missing" ? look.bad : look.warn;
      context.font = `700 ${Math.max(10, size * 0.45)}px ${look.family}`;
      context.fillText(sign, x + w / 2, y + h / 2);
    }
    if (size > 60) {
      context.fillStyle = busy ? "#0b0e12" : look.text;
      context.font = `12px ${look.family}`;
      context.textBaseline = "top";
      context.fillText(place.name, x + w / 2, y + 6);
      context.textBaseline = "bottom";
      context.fillText(cell.state, x + w / 2, y + h - 6);
    }
  }
}
