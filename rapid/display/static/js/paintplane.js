// The focal plane to be painted on: which detectors a pattern has, which are switched off, which are chosen.

import { el, hideTip } from "./dom.js";
import { FocalPlane, hatch } from "./focalplane.js";

export class PaintPlane extends FocalPlane {
  /**
   * @param onPaint called after a stroke in mode "draw"
   * @param onChoose called with a detector's number when it is clicked in another mode
   */
  constructor(canvas, camera, { onPaint, onChoose }) {
    super(canvas, camera, { onPick: (id) => this.click(id) });
    Object.assign(this, { onPaint, onChoose, mode: "preview", byRaft: false, stroke: null });
    this.selected = new Set();
    this.chosen = new Set();
    this.off = new Map(); // detector: exclusion
    this.ampsOff = new Map(); // detector: exclusions
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => this.end());
    this.say();
  }

  setMode(mode) {
    this.mode = mode;
    this.canvas.style.touchAction = mode === "draw" ? "none" : "";
    this.say();
  }

  select(ids) {
    this.selected = new Set(ids);
    this.say();
  }

  choose(ids) {
    this.chosen = new Set(ids);
    this.say();
  }

  setExclusions(exclusions) {
    this.off = new Map();
    this.ampsOff = new Map();
    for (const one of exclusions) {
      if (!one.is_active) continue;
      if (one.amp === null) this.off.set(one.detector, one);
      else this.ampsOff.set(one.detector, [...(this.ampsOff.get(one.detector) ?? []), one]);
    }
    this.say();
  }

  say() {
    const parts = [`${this.selected.size} selected`, `${this.off.size} excluded`];
    if (this.chosen.size) parts.push(`${this.chosen.size} chosen`);
    this.canvas.setAttribute("aria-label", `Focal plane of ${this.camera.name}: ${parts.join(", ")}`);
    this.paint();
  }

  // ---- painting by pointer and by key --------------------------------------------------------------

  /** The detectors that a stroke over one of them means. */
  reach(place, event) {
    if (!this.byRaft && !event.shiftKey) return [place.id];
    return this.camera.detectors.filter((other) => other.raft === place.raft && (other.purpose === "SCIENCE") === (place.purpose === "SCIENCE")).map((other) => other.id);
  }

  begin(event) {
    if (this.mode !== "draw" || event.button !== 0) return;
    const place = this.at(event);
    if (!place) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = { adds: !this.selected.has(place.id), last: [event.clientX, event.clientY] };
    this.touch(place, event);
  }

  drag(event) {
    if (!this.stroke) return;
    // A quick hand skips detectors between two events: look along the way, not only at its end.
    const [x0, y0] = this.stroke.last;
    const steps = Math.max(1, Math.ceil(Math.hypot(event.clientX - x0, event.clientY - y0) / 4));
    for (let step = 1; step <= steps; step += 1) {
      const place = this.at({ clientX: x0 + ((event.clientX - x0) * step) / steps, clientY: y0 + ((event.clientY - y0) * step) / steps });
      if (place) this.touch(place, event);
    }
    this.stroke.last = [event.clientX, event.clientY];
  }

  end() {
    if (!this.stroke) return;
    this.stroke = null;
    this.onPaint();
  }

  touch(place, event) {
    for (const id of this.reach(place, event)) {
      if (this.stroke.adds) this.selected.add(id);
      else this.selected.delete(id);
    }
    this.say();
  }

  /** While a stroke is drawn the card would hide what is painted. */
  hover(event) {
    if (!this.stroke) return super.hover(event);
    hideTip();
    return this.mark((event && this.at(event)) ?? null);
  }

  click(id) {
    if (this.mode !== "draw") this.onChoose(id);
  }

  key(event) {
    const place = this.places.get(this.cursor);
    const paints = event.key === " " || (event.key === "Enter" && this.mode === "draw");
    if (!paints || !place) {
      super.key(event);
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    if (this.mode !== "draw") {
      this.onChoose(place.id);
      return;
    }
    this.stroke = { adds: !this.selected.has(place.id) };
    this.touch(place, event);
    this.end();
  }

  // ---- looks ---------------------------------------------------------------------------------------

  card(place) {
    const off = this.off.get(place.id);
    const lines = [el("div", {}, el("b", {}, place.name), ` ${place.id} `, el("span", { class: "dim" }, `${place.physical_type} ${place.purpose.toLowerCase()}`))];
    if (off) lines.push(el("div", { class: "state", "data-state": "excluded" }, "excluded"), el("div", {}, `${off.reason} (${off.author})`));
    else lines.push(el("div", {}, this.selected.has(place.id) ? "● in the pattern" : "○ not in the pattern"));
    for (const one of this.ampsOff.get(place.id) ?? []) lines.push(el("div", {}, `amp ${one.amp} excluded: ${one.reason} (${one.author})`));
    return lines;
  }

  drawCell(context, look, place, _cell, [x0, y0, w0, h0]) {
    const gap = Math.min(1, w0 * 0.04);
    const [x, y, w, h] = [x0 + gap, y0 + gap, w0 - 2 * gap, h0 - 2 * gap];
    const isIn = this.selected.has(place.id);
    const off = this.off.has(place.id);
    context.lineWidth = 1;
    if (isIn && !off) {
      context.fillStyle = this.mode === "draw" ? look.warn : look.accent;
      context.globalAlpha = 0.82;
      context.fillRect(x, y, w, h);
      context.globalAlpha = 1;
    } else {
      context.strokeStyle = isIn ? look.accent : look.line;
      context.lineWidth = isIn ? 1.5 : 1;
      context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    }
    if (off) hatch(context, look.dim, x, y, w, h);
    if (this.ampsOff.has(place.id)) {
      // A corner cut off: a part of it is missing.
      const cut = Math.min(w, h) * 0.42;
      context.fillStyle = look.panel;
      context.beginPath();
      context.moveTo(x + w - cut, y);
      context.lineTo(x + w, y);
      context.lineTo(x + w, y + cut);
      context.closePath();
      context.fill();
      context.strokeStyle = look.text;
      context.lineWidth = 1;
      context.stroke();
    }
    if (this.chosen.has(place.id)) {
      context.strokeStyle = look.text;
      context.lineWidth = 2.5;
      context.strokeRect(x + 1.5, y + 1.5, w - 3, h - 3);
    }
    if (Math.min(w, h) > 46) {
      context.fillStyle = isIn && !off ? look.ground : look.dim;
      context.font = `11px ${look.family}`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(place.name, x + w / 2, y + h / 2);
    }
  }
}
