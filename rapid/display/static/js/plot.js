// A chart of points with errors, curves and marks, on a canvas: focus sweeps, Zernikes, histories, trends.

import { el, fit, hideTip, paintable, showTip, theme } from "./dom.js";
import { clock, number } from "./format.js";

const [RIGHT, TOP, FOOT] = [12, 20, 34];
const REACH_PX = 14;

/** Colours that stay apart for the colour-blind, by name; the same in every chart. */
export function colours() {
  const light = document.documentElement.dataset.theme === "light";
  return light
    ? { blue: "#0a5bb0", orange: "#a34a00", green: "#0f6f55", pink: "#9c3e78", grey: "#53606d" }
    : { blue: "#6cb6ff", orange: "#ffb86b", green: "#4fd0a5", pink: "#f29ac8", grey: "#9ba8b5" };
}

export class Plot {
  /**
   * @param x,y {title, unit, decimals, time}: how an axis is named; time: x is ms since the epoch, shown as UTC
   * @param onPick called with a point's `pick` on click or Enter
   */
  constructor(canvas, { x, y, name, onPick = null, zeroLine = false } = {}) {
    Object.assign(this, { canvas, x, y, name, onPick, zeroLine, series: [], marks: [], bands: [], under: null, cursor: -1 });
    this.paint = paintable(canvas, () => this.draw());
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("blur", () => this.hover(null));
    canvas.addEventListener("click", () => this.pick());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /**
   * @param series [{name, colour, shape: dot|ring|square|diamond|line|steps, points: [{x, y, e, hollow, pick, tip: [nodes]}]}]
   * @param marks [{x, label, colour, dashed}] upright lines; bands [{low, high}] of y; range [x0, x1] to show
   */
  show({ series, marks = [], bands = [], range = null, empty = "Nothing measured" }) {
    this.series = series.map((one) => ({ ...one, points: one.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)) }));
    Object.assign(this, { marks: marks.filter(({ x }) => Number.isFinite(x)), bands, range, empty, under: null, cursor: -1 });
    this.spots = this.series.filter((one) => !["line", "steps"].includes(one.shape)).flatMap((one) => one.points.map((point) => ({ ...point, name: one.name })));
    this.spots.sort((a, b) => a.x - b.x);
    const counts = this.series.map((one) => `${one.name} ${one.points.length} points`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.name}: ${this.spots.length || counts ? counts : empty}`);
    this.canvas.dataset.points = this.spots.length;
    this.paint();
  }

  limits() {
    const all = this.series.flatMap((one) => one.points);
    const xs = [...all.map(({ x }) => x), ...this.marks.filter((mark) => mark.inside).map(({ x }) => x)];
    const ys = all.flatMap(({ y, e }) => (Number.isFinite(e) ? [y - e, y + e] : [y]));
    if (this.zeroLine) ys.push(0);
    const pad = ([low, high], part) => {
      const by = (high - low) * part || Math.abs(high) * 0.05 || 1;
      return [low - by, high + by];
    };
    return { xs: this.range ?? (this.x.time ? widened(ends(xs)) : pad(ends(xs), 0.06)), ys: pad(ends(ys), 0.08) };
  }

  frame(width, height) {
    const { xs, ys } = this.limits();
    const yTicks = ticks(ys, Math.max(2, Math.floor((height - TOP - FOOT) / 34)));
    const left = 14 + 7.2 * Math.max(...yTicks.map((tick) => tick.text.length), 2);
    return {
      xs, ys, yTicks, left,
      px: (x) => left + ((x - xs[0]) / (xs[1] - xs[0])) * (width - left - RIGHT),
      py: (y) => height - FOOT - ((y - ys[0]) / (ys[1] - ys[0])) * (height - FOOT - TOP),
    };
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    const look = theme();
    context.font = `12px ${look.family}`;
    if (!this.series.some((one) => one.points.length)) {
      context.fillStyle = look.dim;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(this.empty ?? "", width / 2, height / 2);
      return;
    }
    const frame = this.frame(width, height);
    this.drawAxes(context, look, frame, width, height);
    context.save();
    context.beginPath();
    context.rect(frame.left, TOP - 6, width - frame.left - RIGHT + 4, height - FOOT - TOP + 10);
    context.clip();
    for (const { low, high } of this.bands) {
      context.fillStyle = look.good;
      context.globalAlpha = 0.12;
      const [a, b] = [frame.py(high ?? frame.ys[1]), frame.py(low ?? frame.ys[0])];
      context.fillRect(frame.left, a, width - frame.left - RIGHT, b - a);
      context.globalAlpha = 1;
    }
    for (const mark of this.marks) this.drawMark(context, look, frame, mark, height);
    for (const one of this.series) this.drawSeries(context, look, frame, one);
    context.restore();
  }

  drawAxes(context, look, frame, width, height) {
    context.strokeStyle = look.line;
    context.fillStyle = look.dim;
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const { at, text } of frame.yTicks) {
      const y = Math.round(frame.py(at)) + 0.5;
      context.globalAlpha = 0.5;
      line(context, frame.left, y, width - RIGHT, y);
      context.globalAlpha = 1;
      context.fillText(text, frame.left - 6, y);
    }
    context.textAlign = "center";
    context.textBaseline = "top";
    const room = Math.max(2, Math.floor((width - frame.left) / 70));
    for (const { at, text } of this.x.time ? timeTicks(frame.xs, room) : this.x.ticks?.(frame.xs) ?? ticks(frame.xs, room)) {
      const x = frame.px(at);
      line(context, x, height - FOOT, x, height - FOOT + 4);
      context.fillText(text, x, height - FOOT + 5);
    }
    context.fillText(unitOf(this.x), frame.left + (width - frame.left - RIGHT) / 2, height - 14);
    context.textAlign = "left";
    context.fillText(unitOf(this.y), 4, 2);
    if (this.zeroLine && frame.ys[0] < 0 && frame.ys[1] > 0) {
      context.strokeStyle = look.dim;
      line(context, frame.left, frame.py(0), width - RIGHT, frame.py(0));
    }
  }

  drawMark(context, look, frame, mark, height) {
    context.strokeStyle = context.fillStyle = mark.colour ?? look.dim;
    context.setLineDash(mark.dashed ? [4, 4] : []);
    const x = frame.px(mark.x);
    line(context, x, TOP - 4, x, height - FOOT);
    context.setLineDash([]);
    if (mark.wide) {
      context.globalAlpha = 0.15;
      const half = Math.max(Math.abs(frame.px(mark.x + mark.wide) - x), 1);
      context.fillRect(x - half, TOP - 4, 2 * half, height - FOOT - TOP + 4);
      context.globalAlpha = 1;
    }
    if (!mark.label) return;
    context.textBaseline = "top";
    context.textAlign = x > this.canvas.clientWidth * 0.7 ? "right" : "left";
    context.fillText(mark.label, x + (context.textAlign === "left" ? 4 : -4), TOP - 4);
  }

  drawSeries(context, look, frame, one) {
    context.strokeStyle = context.fillStyle = one.colour ?? look.accent;
    context.lineWidth = 1.5;
    if (one.shape === "line" || one.joined) {
      context.globalAlpha = one.joined ? 0.5 : 1;
      context.beginPath();
      one.points.forEach(({ x, y }, at) => (at ? context.lineTo(frame.px(x), frame.py(y)) : context.moveTo(frame.px(x), frame.py(y))));
      context.stroke();
      context.globalAlpha = 1;
      if (one.shape === "line") return;
    }
    const many = one.points.length > 400;
    for (const point of one.points) {
      const [x, y] = [frame.px(point.x), frame.py(point.y)];
      if (Number.isFinite(point.e) && point.e > 0) line(context, x, frame.py(point.y - point.e), x, frame.py(point.y + point.e));
      const picked = this.under && this.under.x === point.x && this.under.y === point.y;
      shape(context, one.shape, x, y, (many ? 2 : 4) + (picked ? 2 : 0), point.hollow, look.panel);
    }
  }

  hover(event) {
    let near = null;
    if (event && this.spots?.length) {
      const bounds = this.canvas.getBoundingClientRect();
      const frame = this.frame(bounds.width, bounds.height);
      let least = REACH_PX ** 2;
      for (const spot of this.spots) {
        const far = (frame.px(spot.x) - (event.clientX - bounds.left)) ** 2 + (frame.py(spot.y) - (event.clientY - bounds.top)) ** 2;
        if (far < least) [near, least] = [spot, far];
      }
    }
    this.canvas.style.cursor = near?.pick !== undefined && this.onPick ? "pointer" : "default";
    if (near !== this.under) {
      this.under = near;
      this.paint();
    }
    if (near && event) showTip(event, ...this.card(near));
    else hideTip();
  }

  card(spot) {
    const error = Number.isFinite(spot.e) && spot.e > 0 ? ` ± ${number(spot.e, this.y.decimals)}` : "";
    const at = this.x.time ? `${clock(spot.x)} UTC` : `${number(spot.x, this.x.decimals)} ${this.x.unit ?? ""}`;
    return [el("div", {}, el("b", {}, spot.title ?? spot.name)), el("div", {}, `${number(spot.y, this.y.decimals)}${error} ${this.y.unit ?? ""}`), el("div", { class: "dim" }, at), ...(spot.tip ?? []).map((text) => el("div", {}, text))];
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Enter") this.pick();
    if (!by || !this.spots?.length) return;
    event.preventDefault();
    event.stopPropagation();
    this.cursor = Math.min(Math.max(this.cursor + by, 0), this.spots.length - 1);
    this.under = this.spots[this.cursor];
    const bounds = this.canvas.getBoundingClientRect();
    const frame = this.frame(bounds.width, bounds.height);
    showTip({ clientX: bounds.left + frame.px(this.under.x), clientY: bounds.top + frame.py(this.under.y) }, ...this.card(this.under));
    this.paint();
  }

  pick() {
    if (this.under?.pick !== undefined) this.onPick?.(this.under.pick);
  }
}

function unitOf({ title, unit, time }) {
  return time ? "UTC" : unit ? `${title} [${unit}]` : title;
}

function ends(values) {
  return values.length ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : [0, 1];
}

/** A span of time with some room, and never so short that its ends cannot be told apart. */
function widened([low, high]) {
  const by = Math.max((high - low) * 0.03, (20 * MINUTE - (high - low)) / 2);
  return [low - by, high + by];
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function shape(context, kind, x, y, r, hollow, ground) {
  context.beginPath();
  if (kind === "square") context.rect(x - r + 0.5, y - r + 0.5, 2 * r - 1, 2 * r - 1);
  else if (kind === "diamond") {
    context.moveTo(x, y - r - 1);
    context.lineTo(x + r + 1, y);
    context.lineTo(x, y + r + 1);
    context.lineTo(x - r - 1, y);
    context.closePath();
  } else context.arc(x, y, r, 0, 7);
  if (hollow || kind === "ring") {
    const colour = context.fillStyle;
    context.fillStyle = ground;
    context.fill();
    context.fillStyle = colour;
    context.stroke();
  } else context.fill();
}

/** Round numbers along an axis. */
export function ticks([low, high], room) {
  const rough = (high - low) / room;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push({ at, text: number(Math.abs(at) < step / 1e6 ? 0 : at, Math.min(decimals, 8)) });
  return found;
}

const MINUTE = 60_000;

function timeTicks([low, high], room) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440, 2880, 7200, 14_400, 43_200, 129_600].map((minutes) => minutes * MINUTE);
  const step = steps.find((candidate) => (high - low) / candidate <= room) ?? steps.at(-1);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
    const text = new Date(at).toISOString();
    found.push({ at, text: step >= 1440 * MINUTE ? text.slice(0, 10) : text.slice(11, 16) });
  }
  return found;
}
