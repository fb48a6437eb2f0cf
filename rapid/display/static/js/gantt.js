// The way of an exposure through the system: a line for each detector and gather, time from the shutter's closing on.

import { el, fit, hideTip, paintable, showTip, theme } from "./dom.js";
import { number } from "./format.js";

const [LEFT, RIGHT, FOOT, TOP] = [92, 12, 20, 5];
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
const HUES = ["#2a9d8f", "#e9b44c", "#9b5de5", "#e76f51", "#7cb518", "#4895ef"];

/** When a lane's work begins: waiting is no work. */
const startOf = (lane) => Math.min(...lane.bars.filter((bar) => bar.kind !== "queue").map((bar) => bar.from));

/** When the first summaries were out, drawn and published; Infinity before there is one. */
function lastOfFirst(lanes) {
  const first = lanes.filter((lane) => / v1$/.test(lane.name) && lane.bars.some((bar) => bar.kind === "gather"));
  return first.length ? Math.max(...first.flatMap((lane) => lane.bars.map((bar) => bar.to))) : Infinity;
}

export class Gantt {
  constructor(canvas, { onPick = () => {} } = {}) {
    Object.assign(this, { canvas, onPick, lanes: [] });
    this.paint = paintable(canvas, () => this.draw());
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("click", (event) => {
      const { lane } = this.at(event);
      if (lane?.detector !== undefined && lane?.detector !== null) this.onPick(lane.detector);
    });
  }

  /** @param whole: also what was done long after the first summary: jobs that were left for later, and the summaries they changed. */
  show(timeline, { whole = false } = {}) {
    this.zero = Date.parse(timeline.zero);
    this.zeroIs = timeline.zero_is;
    const all = timeline.lanes.map((lane) => ({ ...lane, bars: lane.bars.map((bar) => ({ ...bar, from: (Date.parse(bar.begin) - this.zero) / 1000, to: (Date.parse(bar.end) - this.zero) / 1000 })) }));
    const until = whole ? Infinity : lastOfFirst(all);
    this.lanes = all.filter((lane) => startOf(lane) <= until);
    this.nLater = all.length - this.lanes.length;
    const bars = this.lanes.flatMap((lane) => lane.bars);
    this.range = bars.reduce(([from, to], bar) => [Math.min(from, bar.from), Math.max(to, bar.to)], [Infinity, -Infinity]);
    this.steps = [...new Set(bars.filter((bar) => bar.kind === "payload").map((bar) => bar.name))];
    this.rowPx = Math.max(2.2, Math.min(18, 400 / Math.max(this.lanes.length, 1)));
    this.canvas.style.height = `${Math.ceil(this.lanes.length * this.rowPx + TOP + FOOT + 4)}px`;
    const last = Number.isFinite(this.range[1]) ? number(this.range[1], 1) : "0";
    this.canvas.setAttribute("aria-label", `${this.lanes.length} lines; the last work ended ${last} s after: ${this.zeroIs}`);
    this.paint();
    return this.steps.map((name, at) => [name, HUES[at % HUES.length]]);
  }

  axis(width) {
    const [from, to] = this.range;
    const scale = (width - LEFT - RIGHT) / Math.max(to - from, 0.001);
    return { scale, x: (t) => LEFT + (t - from) * scale };
  }

  colour(look, bar) {
    if (bar.kind === "payload") return HUES[this.steps.indexOf(bar.name) % HUES.length];
    return { exposing: look.dim, arrival: look.line, queue: look.line, gather: look.accent, plots: look.good, publish: look.text, other: look.dim }[bar.kind] ?? look.dim;
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    if (!this.lanes.length) return;
    const look = theme();
    const { x, scale } = this.axis(width);
    const step = STEPS.find((one) => one * scale >= 70) ?? 7200;
    context.font = `11px ${look.family}`;
    context.textBaseline = "alphabetic";
    context.textAlign = "center";
    for (let t = Math.ceil(this.range[0] / step) * step; t <= this.range[1]; t += step) {
      context.fillStyle = look.line;
      context.fillRect(Math.round(x(t)), 0, 1, height - FOOT);
      context.fillStyle = look.dim;
      context.fillText(`${number(t, step < 0.1 ? 2 : step < 1 ? 1 : 0)} s`, x(t), height - 5);
    }
    context.fillStyle = look.text;
    if (this.range[0] <= 0) context.fillRect(Math.round(x(0)), 0, 1.5, height - FOOT);
    const each = this.rowPx >= 11 ? 1 : Math.ceil(12 / this.rowPx);
    const isNamed = (lane) => lane.detector === null || lane.detector === undefined;
    const named = this.lanes.map((lane, row) => (isNamed(lane) ? row : -1)).filter((row) => row >= 0);
    this.lanes.forEach((lane, row) => {
      const top = TOP + row * this.rowPx;
      // A summary's line is always named; a detector's where there is room.
      if (isNamed(lane) || (row % each === 0 && !named.some((at) => Math.abs(at - row) < each))) {
        context.textAlign = "right";
        context.fillStyle = isNamed(lane) ? look.text : look.dim;
        const name = lane.name.replace(/^gather /, "");
        context.fillText(name.length > 14 ? `${name.slice(0, 13)}…` : name, LEFT - 8, top + Math.min(this.rowPx, 12) - 1);
      }
      for (const bar of lane.bars) {
        context.fillStyle = this.colour(look, bar);
        const thin = bar.kind === "queue" || bar.kind === "arrival";
        const tall = Math.max(this.rowPx - 1.5, Math.min(this.rowPx, 2));
        context.fillRect(x(bar.from), thin ? top + tall * 0.35 : top, Math.max((bar.to - bar.from) * scale, 1), thin ? tall * 0.3 : tall);
      }
    });
  }

  at(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const lane = this.lanes[Math.floor((event.clientY - bounds.top - TOP) / this.rowPx)];
    if (!lane) return {};
    const { x } = this.axis(bounds.width);
    const at = event.clientX - bounds.left;
    return { lane, bar: lane.bars.find((bar) => at >= x(bar.from) - 1 && at <= x(bar.to) + 1) };
  }

  hover(event) {
    const { lane, bar } = this.at(event);
    this.canvas.style.cursor = lane?.detector !== null && lane?.detector !== undefined ? "pointer" : "default";
    if (!lane) return hideTip();
    const shown = bar ? [bar] : lane.bars;
    return showTip(event,
      el("div", {}, el("b", {}, lane.name), el("span", { class: "dim" }, ` ${lane.pipeline ?? ""} ${lane.host ?? ""}`)),
      el("table", {}, shown.map((one) => el("tr", {}, el("td", {}, one.name), el("td", { class: "num" }, `${number(one.to - one.from, 3)} s`), el("td", { class: "num dim" }, `${number(one.from, 2)} to ${number(one.to, 2)} s`)))));
  }
}
