// Strip charts of a night: one per tile, one shared axis of time, a dot for every exposure.

import { el, fit, hideTip, paintable, showTip, theme } from "./dom.js";
import { clock, firstOf, number, seq, taiMs } from "./format.js";

const BANDS = { u: "#7b6cff", g: "#2fa8a0", r: "#d8a21b", i: "#d9692b", z: "#b8434e", y: "#7f4f62" };
const [LEFT, RIGHT, FOOT, GAP] = [46, 10, 18, 6];

/** The stretches of a night with one band of filter: from half-way after the exposure before to half-way before the one after. */
function filterRuns(points) {
  const runs = [];
  points.forEach(({ row, t }, at) => {
    const band = row.physical_filter?.[0];
    const before = points[at - 1]?.t ?? t;
    const after = points[at + 1]?.t ?? t;
    const [from, to] = [t - Math.min((t - before) / 2, 120_000), t + Math.min((after - t) / 2, 120_000)];
    const last = runs[runs.length - 1];
    if (last && last.band === band && from - last.to < 600_000) last.to = to;
    else runs.push({ band, from, to });
  });
  return runs;
}

/** When an exposure began, in ms; the board's time where the header had none. */
export function whenOf(row) {
  const begin = taiMs(row.begin);
  return Number.isFinite(begin) ? begin : Date.parse(row.first_seen);
}

export class StripCharts {
  constructor(canvas, tiles, { onPick = () => {} } = {}) {
    Object.assign(this, { canvas, tiles, onPick, rows: [], picked: null, under: null });
    this.paint = paintable(canvas, () => this.draw());
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Strip charts of the night");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("click", () => this.under && this.onPick(this.under.exposure_id));
  }

  /** @param rows the night, in order of time; picked: the exposure on show. */
  show(rows, picked) {
    this.rows = rows;
    this.picked = picked;
    this.points = rows.map((row) => ({ row, t: whenOf(row) })).filter(({ t }) => Number.isFinite(t)).sort((a, b) => a.t - b.t);
    this.charts = this.tiles.map((tile) => ({
      tile,
      points: this.points.map(({ row, t }) => ({ row, t, v: firstOf(row.metrics, tile.keys) })).filter(({ v }) => v !== null),
    })).filter(({ points }) => points.length);
    this.filters = filterRuns(this.points);
    this.calibs = this.points.filter(({ row }) => row.pipelines?.some((name) => name.startsWith("build_"))).map(({ t }) => t);
    // Hours without anything measured, as between afternoon and night, would squeeze what there is.
    const times = this.charts.flatMap(({ points }) => points.map(({ t }) => t));
    this.range = times.reduce(([from, to], t) => [Math.min(from, t), Math.max(to, t)], [Infinity, -Infinity]);
    this.paint();
  }

  axis(width) {
    const [t0, last] = this.range;
    const t1 = Math.max(last, t0 + 60_000);
    return { t0, t1, x: (t) => LEFT + ((t - t0) / (t1 - t0)) * (width - LEFT - RIGHT) };
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    const look = theme();
    context.font = `12px ${look.family}`;
    if (!this.charts?.length) {
      context.fillStyle = look.dim;
      context.textAlign = "center";
      context.fillText("Nothing measured yet tonight", width / 2, height / 2);
      return;
    }
    const { t0, t1, x } = this.axis(width);
    const tall = (height - FOOT) / this.charts.length;
    this.charts.forEach((chart, at) => this.drawChart(context, look, chart, at * tall, tall - GAP, width, x));
    this.drawCalibs(context, look, x, height);
    this.drawTime(context, look, t0, t1, x, height);
    if (this.under) {
      context.fillStyle = look.dim;
      context.fillRect(x(whenOf(this.under)), 0, 1, height - FOOT);
    }
  }

  drawChart(context, look, { tile, points }, top, tall, width, x) {
    const sorted = points.map(({ v }) => v).sort((a, b) => a - b);
    let [low, high] = [sorted[Math.floor(sorted.length * 0.01)], sorted[Math.ceil(sorted.length * 0.99) - 1]];
    for (const { row, v } of points) if (row.exposure_id === this.picked) [low, high] = [Math.min(low, v), Math.max(high, v)];
    const pad = (high - low) * 0.12 || Math.abs(high) * 0.05 || 1;
    [low, high] = [low - pad, high + pad];
    const head = 16;
    const y = (v) => top + tall - (Math.min(Math.max((v - low) / (high - low), 0), 1)) * (tall - head);
    context.fillStyle = look.raised;
    context.fillRect(LEFT, top + head, width - LEFT - RIGHT, tall - head);
    this.drawFilters(context, top + head, tall - head, x);
    if (tile.low !== null || tile.high !== null) {
      const [a, b] = [y(tile.high ?? high), y(tile.low ?? low)];
      context.globalAlpha = 0.16;
      context.fillStyle = look.good;
      context.fillRect(LEFT, a, width - LEFT - RIGHT, b - a);
      context.globalAlpha = 1;
    }
    context.textBaseline = "top";
    context.textAlign = "left";
    context.fillStyle = look.dim;
    context.fillText(tile.title + (tile.unit ? ` [${tile.unit}]` : ""), LEFT, top);
    context.textAlign = "right";
    const [highest, lowest] = ends(low, high, tile.decimals);
    context.fillText(highest, LEFT - 6, top + head);
    context.textBaseline = "bottom";
    context.fillText(lowest, LEFT - 6, top + tall);
    const r = points.length > 300 ? 1.5 : 2.5;
    for (const { row, t, v } of points) {
      context.fillStyle = BANDS[row.physical_filter?.[0]] ?? look.accent;
      const [px, py] = [x(t), y(v)];
      if (row.is_provisional || row.state === "partial") {
        context.strokeStyle = context.fillStyle;
        context.lineWidth = 1.25;
        context.beginPath();
        context.arc(px, py, r, 0, 7);
        context.stroke();
      } else {
        context.beginPath();
        context.arc(px, py, r, 0, 7);
        context.fill();
      }
      if (row.exposure_id === this.picked) {
        context.strokeStyle = look.text;
        context.lineWidth = 1.5;
        context.beginPath();
        context.arc(px, py, r + 3, 0, 7);
        context.stroke();
        context.textAlign = px > width - 70 ? "right" : "left";
        context.textBaseline = "top";
      }
    }
  }

  /** A tint behind the dots, and a stronger line at the foot, for as long as a filter was in. */
  drawFilters(context, top, tall, x) {
    for (const { band, from, to } of this.filters) {
      const [left, right] = [Math.max(x(from), LEFT), Math.min(x(to), this.canvas.clientWidth - RIGHT)];
      if (right <= left || !BANDS[band]) continue;
      context.fillStyle = BANDS[band];
      context.globalAlpha = 0.1;
      context.fillRect(left, top, right - left, tall);
      context.globalAlpha = 0.8;
      context.fillRect(left, top + tall - 2, right - left, 2);
      context.globalAlpha = 1;
    }
  }

  /** Where new calibs came into use: a jump there is not the sky's. */
  drawCalibs(context, look, x, height) {
    context.strokeStyle = look.dim;
    context.setLineDash([2, 3]);
    context.lineWidth = 1;
    for (const t of this.calibs) {
      if (t < this.range[0] || t > this.range[1]) continue;
      context.beginPath();
      context.moveTo(Math.round(x(t)) + 0.5, 0);
      context.lineTo(Math.round(x(t)) + 0.5, height - FOOT);
      context.stroke();
    }
    context.setLineDash([]);
  }

  drawTime(context, look, t0, t1, x, height) {
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240].map((minutes) => minutes * 60_000);
    const step = steps.find((candidate) => (t1 - t0) / candidate <= 6) ?? 360 * 60_000;
    context.fillStyle = look.dim;
    context.textAlign = "center";
    context.textBaseline = "bottom";
    for (let t = Math.ceil(t0 / step) * step; t <= t1; t += step) {
      context.fillText(clock(t).slice(0, 5), Math.min(Math.max(x(t), LEFT + 14), this.canvas.clientWidth - 16), height);
      context.fillRect(x(t), height - FOOT, 1, 3);
    }
    context.textAlign = "left";
    context.fillText("UTC", 4, height);
  }

  hover(event) {
    const near = event && this.charts?.length ? this.nearest(event) : null;
    if (near !== this.under) {
      this.under = near;
      this.paint();
    }
    this.canvas.style.cursor = near ? "pointer" : "default";
    if (!near) return hideTip();
    const lines = this.tiles.map((tile) => ({ tile, value: firstOf(near.metrics, tile.keys) })).filter(({ value }) => value !== null);
    return showTip(event,
      el("div", {}, el("b", {}, seq(near.seq_num)), ` ${near.image_type} ${near.physical_filter ?? ""} ${clock(whenOf(near))}`),
      el("table", {}, lines.map(({ tile, value }) => el("tr", {}, el("td", { class: "dim" }, tile.title), el("td", { class: "num" }, `${number(value, tile.decimals)} ${tile.unit}`)))));
  }

  nearest(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const { x } = this.axis(bounds.width);
    const at = event.clientX - bounds.left;
    let best = null;
    let least = 24;
    for (const { row, t } of this.points) {
      if (t < this.range[0]) continue;
      const far = Math.abs(x(t) - at);
      if (far < least) [best, least] = [row, far];
    }
    return best;
  }
}

/** The ends of an axis as text, with as many decimals as it takes to tell them apart. */
function ends(low, high, decimals) {
  for (let extra = 0; extra < 3; extra += 1) {
    const [a, b] = [number(high, decimals + extra), number(low, decimals + extra)];
    if (a !== b) return [a, b];
  }
  return [number(high, decimals), ""];
}

/** The trend in a tile: the last half hour, no axes. */
export function sparkline(canvas, points, colour) {
  const { context, width, height } = fit(canvas);
  if (points.length < 2) return;
  const values = points.map(({ v }) => v);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [t0, t1] = [points[0].t, points[points.length - 1].t];
  const x = (t) => 2 + ((t - t0) / (t1 - t0 || 1)) * (width - 6);
  const y = (v) => height - 4 - ((v - low) / (high - low || 1)) * (height - 8);
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  points.forEach(({ t, v }, at) => (at ? context.lineTo(x(t), y(v)) : context.moveTo(x(t), y(v))));
  context.stroke();
  context.fillStyle = colour;
  context.beginPath();
  const last = points[points.length - 1];
  context.arc(x(last.t), y(last.v), 2.5, 0, 7);
  context.fill();
}
