// The focal plane coloured by verification: a cell a detector, its amps inside where there is room; zooms to a raft.

import { el, theme } from "./dom.js";
import { FocalPlane, hatch } from "./focalplane.js";

export const OUTCOMES = ["pass", "warn", "fail", "not_measured", "excluded", "missing"];
export const SIGNS = { pass: "●", warn: "▲", fail: "✕", not_measured: "–", excluded: "▨", missing: "○" };

export const wordOf = (outcome) => (outcome ?? "not verified").replace("_", " ");

const AMP_ROOM = 44; // px: from here on a cell shows its amps

export class VerdictPlane extends FocalPlane {
  constructor(canvas, camera, options) {
    super(canvas, camera, options);
    this.test = "";
    this.whole = this.bounds;
    this.picked = null;
  }

  show(detectors) {
    this.cells = new Map(detectors.map((one) => [one.detector, { ...one, metrics: {} }]));
    this.rescale();
  }

  setTest(test) {
    this.test = test;
    this.rescale();
  }

  /** Show one raft, or everything again with null. */
  zoomTo(raft) {
    const places = raft ? this.camera.detectors.filter((place) => place.raft === raft) : [];
    this.bounds = places.length ? {
      x0: Math.min(...places.map((p) => p.x_mm - p.width_mm / 2)), x1: Math.max(...places.map((p) => p.x_mm + p.width_mm / 2)),
      y0: Math.min(...places.map((p) => p.y_mm - p.height_mm / 2)), y1: Math.max(...places.map((p) => p.y_mm + p.height_mm / 2)),
    } : this.whole;
    this.paint();
  }

  outcomeOf(cell) {
    if (!cell) return null;
    if (cell.state !== "finished") return cell.state === "excluded" ? "excluded" : "missing";
    return this.test ? cell.tests[this.test] ?? null : cell.outcome;
  }

  describe() {
    const counts = {};
    for (const cell of this.cells.values()) {
      const word = wordOf(this.outcomeOf(cell));
      counts[word] = (counts[word] ?? 0) + 1;
    }
    const words = Object.entries(counts).map(([word, n]) => `${n} ${word}`).join(", ") || "nothing to show";
    this.canvas.setAttribute("aria-label", `Verification of ${this.camera.name}: ${words}`);
  }

  card(place) {
    const cell = this.cells.get(place.id);
    const outcome = this.outcomeOf(cell);
    const lines = [el("div", {}, el("b", {}, place.name), ` ${place.id}`), el("div", {}, cell ? `${SIGNS[outcome] ?? "○"} ${cell.state === "finished" ? wordOf(outcome) : cell.state}` : "not asked for")];
    if (cell?.failures?.length) lines.push(...cell.failures.slice(0, 12).map((text) => el("div", {}, text)), ...(cell.failures.length > 12 ? [el("div", { class: "dim" }, `and ${cell.failures.length - 12} more`)] : []));
    return lines;
  }

  drawCell(context, look, place, cell, box) {
    const outcome = this.outcomeOf(cell);
    const [x0, y0, w0, h0] = box;
    const gap = Math.min(1, w0 * 0.03);
    const [x, y, w, h] = [x0 + gap, y0 + gap, w0 - 2 * gap, h0 - 2 * gap];
    if (!cell) {
      context.strokeStyle = look.line;
      context.setLineDash([2, 3]);
      context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      context.setLineDash([]);
      return;
    }
    const amps = Object.entries(cell.amps ?? {});
    if (amps.length && !this.test && Math.min(w, h) > AMP_ROOM) this.drawAmps(context, look, amps, x, y, w, h);
    else paintOutcome(context, look, outcome, x, y, w, h);
    if (cell.detector === this.picked) {
      context.strokeStyle = look.text;
      context.lineWidth = 2;
      context.strokeRect(x, y, w, h);
    }
    if (Math.min(w, h) > 90) {
      context.fillStyle = look.text;
      context.font = `12px ${look.family}`;
      context.textAlign = "left";
      context.textBaseline = "top";
      const text = `${place.name} ${SIGNS[outcome] ?? "○"}`;
      context.fillStyle = look.panel;
      context.globalAlpha = 0.8;
      context.fillRect(x + 2, y + 2, context.measureText(text).width + 8, 17);
      context.globalAlpha = 1;
      context.fillStyle = look.text;
      context.fillText(text, x + 6, y + 4);
    }
  }

  /** Amps as they lie: rows by the name's first digit (C00-C07 below C10-C17), else in one row. */
  drawAmps(context, look, amps, x, y, w, h) {
    const rows = new Map();
    for (const [name, outcome] of amps) {
      const row = /^C[01]\d$/.test(name) ? name[1] : "0";
      rows.set(row, [...(rows.get(row) ?? []), [name, outcome]]);
    }
    const sorted = [...rows].sort(([a], [b]) => b.localeCompare(a));
    sorted.forEach(([, row], at) => {
      row.sort(([a], [b]) => a.localeCompare(b));
      const [height, width] = [h / sorted.length, w / row.length];
      row.forEach(([, outcome], k) => paintOutcome(context, look, outcome, x + k * width, y + at * height, width, height, true));
    });
  }
}

/** A cell by its outcome: told by colour and by sign; what was not measured looks like nothing that passed. */
function paintOutcome(context, look, outcome, x, y, w, h, isAmp = false) {
  const inset = isAmp ? 0.5 : 0;
  [x, y, w, h] = [x + inset, y + inset, w - 2 * inset, h - 2 * inset];
  const light = document.documentElement.dataset.theme === "light";
  const grounds = light ? { pass: "#cfe9d8", warn: "#f0d9a6", fail: "#c23a44" } : { pass: "#1f4a31", warn: "#7a5a10", fail: "#c23a44" };
  context.fillStyle = grounds[outcome] ?? look.panel;
  context.fillRect(x, y, w, h);
  context.lineWidth = 1;
  if (outcome === "excluded") hatch(context, look.dim, x, y, w, h);
  if (!(outcome in grounds)) {
    context.strokeStyle = look.dim;
    context.setLineDash(outcome === "not_measured" ? [3, 3] : []);
    context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    context.setLineDash([]);
  }
  const size = Math.min(w, h);
  const sign = { fail: "✕", warn: "▲", not_measured: "–", missing: "○" }[outcome];
  if (!sign || size < 7) return;
  context.fillStyle = outcome === "fail" ? "#ffffff" : outcome === "warn" ? (light ? "#4a3300" : "#ffe2a0") : look.dim;
  context.font = `700 ${Math.min(size * 0.7, 22)}px ${theme().family}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(sign, x + w / 2, y + h / 2 + 1);
}
