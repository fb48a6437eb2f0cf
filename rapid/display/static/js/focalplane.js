// The focal plane of any camera on a canvas: every detector a cell, its state by shape, its number by colour.
// One component for the newest exposure, for an exposure's page, and for whatever else is laid out like the camera.

import { ColourScale } from "./colours.js";
import { el, fit, hideTip, paintable, showTip, theme } from "./dom.js";
import { number, quantityOf } from "./format.js";

const FADE_MS = 280;

export class FocalPlane {
  /** @param onPick called with a detector's number on click or Enter; onScale with each new colour scale. */
  constructor(canvas, camera, { onPick = () => {}, onScale = () => {} } = {}) {
    Object.assign(this, { canvas, camera, onPick, onScale });
    this.places = new Map(camera.detectors.map((place) => [place.id, place]));
    this.cells = new Map();
    this.quantity = null;
    this.cursor = null;
    this.zenith = null; // [rad] its direction, clockwise from +y, while the plane is shown as on the sky
    this.born = new Map();
    this.onHover = () => {};
    this.bounds = boundsOf(camera.detectors);
    this.rafts = raftsOf(camera.detectors);
    this.paint = paintable(canvas, () => this.draw());
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("click", (event) => {
      const place = this.at(event);
      if (place) this.onPick(place.id);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Replace every cell: another exposure. */
  setCells(cells) {
    this.cells = new Map(cells.map((cell) => [cell.detector, cell]));
    this.born.clear();
    this.rescale();
  }

  /** Change some cells; the new ones fade in. */
  update(cells) {
    for (const cell of cells) {
      const known = this.cells.get(cell.detector);
      if (known?.state !== cell.state) this.born.set(cell.detector, performance.now());
      this.cells.set(cell.detector, cell);
    }
    this.rescale();
  }

  setMetric(key) {
    this.quantity = key ? quantityOf(key, this.camera.quantities) : null;
    this.rescale();
  }

  /** Turn the whole plane, azimuth to the right and altitude up; null for the camera's own frame. */
  setZenith(zenithDeg) {
    this.zenith = zenithDeg === null ? null : (zenithDeg * Math.PI) / 180;
    this.describe();
    this.paint();
  }

  valueOf(cell) {
    const value = this.quantity ? cell?.metrics?.[this.quantity.key] : null;
    return typeof value === "number" ? value : null;
  }

  rescale() {
    const values = [...this.cells.values()].map((cell) => this.valueOf(cell)).filter((value) => value !== null);
    this.colours = new ColourScale(values, this.quantity ?? {});
    this.onScale(this.colours, this.quantity, null);
    this.describe();
    this.paint();
  }

  describe() {
    const values = this.colours?.values ?? [];
    const counts = {};
    for (const cell of this.cells.values()) counts[cell.state] = (counts[cell.state] ?? 0) + 1;
    const states = Object.entries(counts).map(([state, count]) => `${count} ${state}`).join(", ") || "no detectors";
    const what = this.quantity && values.length ? `; ${this.quantity.title} of ${values.length}` : "";
    const turned = this.zenith === null ? "" : ", azimuth to the right and altitude up";
    this.canvas.setAttribute("aria-label", `Focal plane of ${this.camera.name}${turned}: ${states}${what}`);
  }

  /** Scale and offset from focal-plane millimetres (y up) to CSS pixels (y down). */
  frame(width, height) {
    const { x0, x1, y0, y1 } = this.zenith === null ? this.bounds : boundsOf(this.camera.detectors, (x, y) => this.turned(x, y));
    const scale = Math.min((width - 8) / (x1 - x0), (height - 8) / (y1 - y0));
    return { scale, left: width / 2 - (scale * (x0 + x1)) / 2, top: height / 2 + (scale * (y0 + y1)) / 2 };
  }

  /** From the camera's axes to those on show or back: a mirror, seen from the other side, so it is its own inverse. */
  turned(x, y) {
    if (this.zenith === null) return [x, y];
    const [s, c] = [Math.sin(this.zenith), Math.cos(this.zenith)];
    return [y * s - x * c, x * s + y * c];
  }

  /** The same for pixels of the canvas, about the focal plane's middle. */
  across(x, y, { left, top }) {
    const [u, v] = this.turned(x - left, top - y);
    return [left + u, top - v];
  }

  /** Draw upright in a cell that is turned: its middle stays, and it is as small as fits. */
  upright([x, y, w, h], frame) {
    if (this.zenith === null) return [x, y, w, h];
    const [cx, cy] = this.across(x + w / 2, y + h / 2, frame);
    const side = Math.min(w, h) / (Math.abs(Math.sin(this.zenith)) + Math.abs(Math.cos(this.zenith)));
    return [cx - side / 2, cy - side / 2, side, side];
  }

  /** Draw with the plane's own axes: shapes that turn with it. */
  along(context, { left, top }, paint) {
    context.save();
    if (this.zenith !== null) {
      const [s, c] = [Math.sin(this.zenith), Math.cos(this.zenith)];
      context.translate(left, top);
      context.transform(-c, -s, -s, c, 0, 0);
      context.translate(-left, -top);
    }
    paint();
    context.restore();
  }

  box(place, { scale, left, top }) {
    const [w, h] = [place.width_mm * scale, place.height_mm * scale];
    return [left + place.x_mm * scale - w / 2, top - place.y_mm * scale - h / 2, w, h];
  }

  at(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const frame = this.frame(bounds.width, bounds.height);
    const [x, y] = this.across(event.clientX - bounds.left, event.clientY - bounds.top, frame);
    return this.camera.detectors.find((place) => {
      const [left, top, w, h] = this.box(place, frame);
      return x >= left && x < left + w && y >= top && y < top + h;
    });
  }

  /** The detector at a place in the focal plane [mm], if there is one. */
  placeAt(x, y) {
    return this.camera.detectors.find((place) => Math.abs(x - place.x_mm) < place.width_mm / 2 && Math.abs(y - place.y_mm) < place.height_mm / 2) ?? null;
  }

  /** Mark a detector, and its value on the scale; null for none. */
  mark(place) {
    if (this.cursor === (place?.id ?? null)) return;
    this.cursor = place?.id ?? null;
    this.canvas.dataset.detector = place?.name ?? "";
    this.onScale(this.colours, this.quantity, place ? this.valueOf(this.cells.get(place.id)) : null);
    this.onHover(place);
    this.paint();
  }

  hover(event) {
    const place = event ? this.at(event) : null;
    this.canvas.style.cursor = place ? "pointer" : "default";
    this.mark(place ?? null);
    if (place) showTip(event, ...this.card(place));
    else hideTip();
  }

  card(place) {
    const cell = this.cells.get(place.id);
    const head = el("div", {}, el("b", {}, place.name), ` ${place.id} `, el("span", { class: "dim" }, place.physical_type));
    const state = cell
      ? el("div", { class: "state", "data-state": cell.state }, cell.state)
      : el("div", { class: "dim" }, "not asked for in this exposure");
    const lines = [head, state];
    if (cell?.reason) lines.push(el("div", {}, cell.reason));
    const shown = Object.entries(cell?.metrics ?? {}).filter(([, value]) => value !== null);
    const first = shown.findIndex(([key]) => key === this.quantity?.key);
    if (first > 0) shown.unshift(...shown.splice(first, 1));
    if (shown.length) {
      lines.push(
        el("table", {}, shown.slice(0, 9).map(([key, value]) => {
          const quantity = quantityOf(key, this.camera.quantities);
          return el("tr", {}, el("td", { class: "dim" }, quantity.title), el("td", { class: "num" }, `${number(value, quantity.decimals)} ${quantity.unit}`));
        })),
      );
    }
    return lines;
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Enter" && this.cursor !== null) this.onPick(this.cursor);
    if (event.key === "Escape") {
      hideTip();
      this.canvas.blur();
    }
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.places.get(this.cursor) ?? this.places.get(this.camera.witness_detector);
    const next = this.cursor === null ? from : nearest(this.camera.detectors, from, this.turned(...step));
    this.mark(next);
    const bounds = this.canvas.getBoundingClientRect();
    const frame = this.frame(bounds.width, bounds.height);
    const [x, y, w] = this.upright(this.box(next, frame), frame);
    showTip({ clientX: bounds.left + x + w, clientY: bounds.top + y }, ...this.card(next));
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    const look = theme();
    const frame = this.frame(width, height);
    const now = performance.now();
    let fading = false;
    for (const place of this.camera.detectors) {
      const cell = this.cells.get(place.id);
      const age = cell ? now - (this.born.get(place.id) ?? -Infinity) : Infinity;
      context.globalAlpha = age < FADE_MS ? 0.25 + (0.75 * age) / FADE_MS : 1;
      fading ||= age < FADE_MS;
      this.drawCell(context, look, place, cell, this.box(place, frame), frame);
    }
    context.globalAlpha = 1;
    this.along(context, frame, () => this.drawOutlines(context, look, frame));
    if (this.zenith !== null) axes(context, look, width, height);
    if (fading) this.paint();
  }

  drawOutlines(context, look, frame) {
    context.strokeStyle = look.dim;
    context.lineWidth = 0.75;
    for (const raft of this.rafts) {
      const pad = 0.6;
      const [x, y] = [frame.left + (raft.x0 - pad) * frame.scale, frame.top - (raft.y1 + pad) * frame.scale];
      context.strokeRect(x, y, (raft.x1 - raft.x0 + 2 * pad) * frame.scale, (raft.y1 - raft.y0 + 2 * pad) * frame.scale);
    }
    if (this.cursor !== null) {
      const [x, y, w, h] = this.box(this.places.get(this.cursor), frame);
      context.strokeStyle = look.text;
      context.lineWidth = 2;
      context.strokeRect(x - 0.5, y - 0.5, w + 1, h + 1);
    }
  }

  drawCell(context, look, place, cell, [x0, y0, w0, h0], frame = { left: 0, top: 0 }) {
    const gap = Math.min(1, w0 * 0.03);
    const [x, y, w, h] = [x0 + gap, y0 + gap, w0 - 2 * gap, h0 - 2 * gap];
    const inner = this.upright([x, y, w, h], frame);
    const size = Math.min(inner[2], inner[3]);
    context.lineWidth = 1;
    if (!cell) {
      this.along(context, frame, () => {
        context.strokeStyle = look.line;
        context.setLineDash([2, 3]);
        context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      });
      if (size > 60) label(context, look, look.dim, place, null, ...inner);
      return;
    }
    const value = this.valueOf(cell);
    let ink = look.dim;
    if (cell.state === "finished") {
      context.fillStyle = value === null ? look.line : this.colours.colour(value);
      this.along(context, frame, () => context.fillRect(x, y, w, h));
      ink = value === null ? look.text : this.colours.ink(value);
    } else {
      this.along(context, frame, () => {
        if (cell.state !== "waiting") {
          context.fillStyle = look.raised;
          context.fillRect(x, y, w, h);
        }
        context.strokeStyle = cell.state === "running" ? look.accent : look.dim;
        context.lineWidth = cell.state === "running" ? 2 : 1;
        context.strokeRect(x + 1, y + 1, w - 2, h - 2);
        if (cell.state === "excluded") hatch(context, look.dim, x, y, w, h);
      });
      mark(context, look, cell.state, ...inner);
    }
    if (size > 60) {
      const unit = this.quantity?.unit ? ` ${this.quantity.unit}` : "";
      const word = cell.state === "finished" ? (this.quantity ? number(value, this.quantity.decimals) + unit : "") : cell.state;
      label(context, look, ink, place, word, ...inner);
    }
  }
}

/** Draw what a state is told by besides its colour. */
function mark(context, look, state, x, y, w, h) {
  const [cx, cy, r] = [x + w / 2, y + h / 2, Math.min(w, h) * (Math.min(w, h) > 60 ? 0.14 : 0.26)];
  context.lineWidth = Math.max(1.5, r / 4);
  context.beginPath();
  if (state === "failed") {
    context.strokeStyle = look.bad;
    context.moveTo(cx - r, cy - r);
    context.lineTo(cx + r, cy + r);
    context.moveTo(cx + r, cy - r);
    context.lineTo(cx - r, cy + r);
  } else if (state === "running") {
    context.fillStyle = look.accent;
    context.arc(cx, cy, r * 0.55, 0, 7);
    context.fill();
    return;
  } else if (state === "superseded") {
    context.strokeStyle = look.dim;
    for (const shift of [-r * 0.5, r * 0.4]) {
      context.moveTo(cx + shift - r / 3, cy - r * 0.7);
      context.lineTo(cx + shift + r / 3, cy);
      context.lineTo(cx + shift - r / 3, cy + r * 0.7);
    }
  } else if (state === "quarantined") {
    context.strokeStyle = look.warn;
    context.moveTo(cx, cy - r);
    context.lineTo(cx + r, cy + r * 0.8);
    context.lineTo(cx - r, cy + r * 0.8);
    context.closePath();
  } else return;
  context.stroke();
}

/** The hatch that says: switched off on purpose. */
export function hatch(context, colour, x, y, w, h) {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  const step = Math.max(4, Math.min(9, w / 5));
  for (let at = -h; at < w; at += step) {
    context.moveTo(x + at, y + h);
    context.lineTo(x + at + h, y);
  }
  context.stroke();
  context.restore();
}

function label(context, look, ink, place, word, x, y, w, h) {
  const big = Math.min(w, h) > 110;
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "top";
  context.font = `${big ? 13 : 11}px ${look.family}`;
  context.fillText(place.name, x + w / 2, y + 6);
  if (!word) return;
  context.textBaseline = "bottom";
  context.font = `600 ${big ? 18 : 12}px ${look.family}`;
  context.fillText(word, x + w / 2, y + h - 6);
}

/** Say which way is which, once it is not the camera's. */
function axes(context, look, width, height) {
  context.font = `12px ${look.family}`;
  context.fillStyle = look.dim;
  context.textAlign = "right";
  context.textBaseline = "bottom";
  context.fillText("azimuth →  altitude ↑", width - 4, height - 2);
}

function boundsOf(places, turned = (x, y) => [x, y]) {
  const b = { x0: Infinity, x1: -Infinity, y0: Infinity, y1: -Infinity };
  for (const { x_mm: x, y_mm: y, width_mm: w, height_mm: h } of places) {
    for (const [dx, dy] of [[1, 1], [1, -1], [-1, 1], [-1, -1]]) {
      const [u, v] = turned(x + (dx * w) / 2, y + (dy * h) / 2);
      b.x0 = Math.min(b.x0, u);
      b.x1 = Math.max(b.x1, u);
      b.y0 = Math.min(b.y0, v);
      b.y1 = Math.max(b.y1, v);
    }
  }
  return b;
}

function raftsOf(places) {
  const groups = new Map();
  for (const place of places) {
    if (place.purpose !== "SCIENCE") continue; // corner rafts are no square of nine
    groups.set(place.raft, [...(groups.get(place.raft) ?? []), place]);
  }
  return groups.size > 1 ? [...groups.values()].map((raft) => boundsOf(raft)) : [];
}

/** The next detector in a direction: near, and not far to the side. */
function nearest(places, from, [dx, dy]) {
  let best = from;
  let least = Infinity;
  for (const place of places) {
    const [x, y] = [place.x_mm - from.x_mm, place.y_mm - from.y_mm];
    const ahead = x * dx + y * dy;
    if (ahead <= 1) continue;
    const cost = ahead + 3 * Math.abs(x * dy - y * dx);
    if (cost < least) [best, least] = [place, cost];
  }
  return best;
}
