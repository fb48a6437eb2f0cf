// The night as a row of marks, oldest left: state by shape, image type by letter under it. Click goes there.

import { el, fit, hideTip, paintable, showTip, theme } from "./dom.js";
import { clock, seq } from "./format.js";
import { whenOf } from "./charts.js";

const LETTERS = { bias: "B", dark: "D", flat: "F", science: "S", acq: "A", focus: "O", cwfs: "W", engtest: "E", stuttered: "T", spot: "P", unknown: "?" };
const STEP = 18;

export class Timeline {
  constructor(canvas, { onPick = () => {} } = {}) {
    Object.assign(this, { canvas, onPick, rows: [], picked: null, shift: 0 });
    this.paint = paintable(canvas, () => this.draw());
    canvas.setAttribute("role", "img");
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.shift = this.clamp(this.shift - (event.deltaX || event.deltaY));
      this.paint();
    }, { passive: false });
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("click", (event) => {
      const row = this.at(event);
      if (row) this.onPick(row.exposure_id);
    });
  }

  show(rows, picked) {
    this.rows = rows;
    this.picked = picked;
    const at = rows.findIndex((row) => row.exposure_id === picked);
    const room = this.canvas.clientWidth;
    // Keep the exposure on show in sight; 0 shows the newest at the right edge.
    const fromRight = (rows.length - 1 - at) * STEP;
    if (at >= 0 && (fromRight < this.shift || fromRight > this.shift + room - 2 * STEP)) this.shift = this.clamp(fromRight - room / 2);
    this.canvas.setAttribute("aria-label", `Timeline of ${rows.length} exposures`);
    this.paint();
  }

  clamp(shift) {
    return Math.max(0, Math.min(shift, this.rows.length * STEP - this.canvas.clientWidth));
  }

  origin(width) {
    const whole = this.rows.length * STEP;
    return whole <= width ? 0 : width - whole + this.shift;
  }

  at(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return this.rows[Math.floor((event.clientX - bounds.left - this.origin(bounds.width)) / STEP)];
  }

  hover(event) {
    const row = this.at(event);
    this.canvas.style.cursor = row ? "pointer" : "default";
    if (!row) return hideTip();
    return showTip(event,
      el("div", {}, el("b", {}, seq(row.seq_num)), ` ${row.image_type} ${row.physical_filter ?? ""} ${row.object_name ?? ""}`),
      el("div", { class: "state", "data-state": row.state }, `${row.state} ${row.n_finished}/${row.n_expected}`),
      el("div", { class: "dim" }, `${clock(whenOf(row))} UTC`));
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    const look = theme();
    const left = this.origin(width);
    const [first, last] = [Math.max(0, Math.floor(-left / STEP)), Math.min(this.rows.length, Math.ceil((width - left) / STEP))];
    context.textAlign = "center";
    for (let at = first; at < last; at += 1) {
      const row = this.rows[at];
      const x = left + at * STEP + STEP / 2;
      if (row.exposure_id === this.picked) {
        context.fillStyle = look.raised;
        context.fillRect(x - STEP / 2, 0, STEP, height);
        context.fillStyle = look.accent;
        context.fillRect(x - STEP / 2, height - 2, STEP, 2);
      }
      shape(context, look, row, x, 13);
      context.fillStyle = look.dim;
      context.textBaseline = "middle";
      context.font = `11px ${look.family}`;
      context.fillText(LETTERS[row.image_type] ?? "?", x, 29);
      const before = this.rows[at - 1];
      if (row.seq_num % 10 === 0 || !before) {
        context.textAlign = at === 0 ? "left" : "center";
        context.fillText(String(row.seq_num), at === 0 ? x - STEP / 2 + 2 : x, 44);
        context.textAlign = "center";
      }
      if (before && (before.image_type !== row.image_type || before.physical_filter !== row.physical_filter)) {
        context.fillStyle = look.line;
        context.fillRect(x - STEP / 2, 2, 1, height - 4);
      }
    }
  }
}

function shape(context, look, row, x, y) {
  const r = 5;
  context.lineWidth = 1.75;
  context.beginPath();
  if (row.state === "complete") {
    context.fillStyle = look.good;
    context.arc(x, y, r, 0, 7);
    context.fill();
  } else if (row.state === "partial") {
    context.fillStyle = look.warn;
    context.moveTo(x, y - r);
    context.lineTo(x + r, y + r);
    context.lineTo(x - r, y + r);
    context.fill();
  } else if (row.state === "failed") {
    context.strokeStyle = look.bad;
    context.moveTo(x - r, y - r);
    context.lineTo(x + r, y + r);
    context.moveTo(x + r, y - r);
    context.lineTo(x - r, y + r);
    context.stroke();
  } else {
    const share = row.n_expected ? row.n_finished / row.n_expected : 0;
    context.strokeStyle = row.state === "running" ? look.accent : look.dim;
    context.arc(x, y, r - 0.5, 0, 7);
    context.stroke();
    if (row.state === "running") {
      context.fillStyle = look.accent;
      context.beginPath();
      context.moveTo(x, y);
      context.arc(x, y, r - 0.5, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * share);
      context.fill();
    }
  }
}
