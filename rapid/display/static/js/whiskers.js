// The PSF over the focal plane: a whisker for direction and size of the ellipticity, coloured by the FWHM.
// In the camera's frame or as on the sky, azimuth to the right and altitude up.

import { ColourScale } from "./colours.js";
import { el, fit, hideTip, paintable, showTip, theme } from "./dom.js";
import { number } from "./format.js";

const REFERENCES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]; // ellipticities that the reference whisker may stand for
const PART = 0.05; // its length, as a part of the focal plane's width

export class WhiskerPlot {
  constructor(canvas, camera, { onScale = () => {} } = {}) {
    Object.assign(this, { canvas, camera, onScale, map: null, isAltaz: false });
    this.names = new Map(camera.detectors.map((place) => [place.id, place.name]));
    this.paint = paintable(canvas, () => this.draw());
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", hideTip);
  }

  /** @param map the product psf_map; null for none. */
  show(map, isAltaz) {
    this.map = map;
    this.isAltaz = isAltaz && map !== null && map.zenith_deg !== null;
    // The longest but a few outliers fit: a whisker is then as long as the reference at most, and can be seen.
    const lengths = (map?.whiskers ?? []).map(({ e1, e2 }) => Math.hypot(e1, e2)).sort((a, b) => a - b);
    const long = lengths[Math.floor(0.9 * lengths.length)] ?? 0;
    this.reference = REFERENCES.find((one) => one >= long) ?? REFERENCES[REFERENCES.length - 1];
    const sizes = (map?.whiskers ?? []).map((whisker) => whisker.fwhm_arcsec);
    this.colours = new ColourScale(sizes, {});
    this.onScale(this.colours, { title: "FWHM", unit: "″", decimals: 2 }, null);
    this.canvas.setAttribute("aria-label", `Whiskers of the PSF in the ${this.isAltaz ? "alt-az" : "camera"} frame, ${sizes.length} places`);
    this.paint();
  }

  /** From millimetres of the focal plane to the plot's axes, y up. */
  turned(x, y) {
    if (!this.isAltaz) return [x, y];
    const psi = (this.map.zenith_deg * Math.PI) / 180;
    return [-x * Math.cos(psi) + y * Math.sin(psi), x * Math.sin(psi) + y * Math.cos(psi)];
  }

  frame(width, height) {
    let reach = 0;
    for (const { x_mm: x, y_mm: y, width_mm: w, height_mm: h } of this.camera.detectors) {
      for (const [dx, dy] of [[1, 1], [1, -1], [-1, 1], [-1, -1]]) {
        const [u, v] = this.turned(x + (dx * w) / 2, y + (dy * h) / 2);
        reach = Math.max(reach, Math.abs(u), Math.abs(v));
      }
    }
    const scale = (Math.min(width, height) / 2 - 14) / reach;
    return { scale, reach, to: (x, y) => { const [u, v] = this.turned(x, y); return [width / 2 + u * scale, height / 2 - v * scale]; } };
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    if (!this.map) return;
    const look = theme();
    const { scale, reach, to } = this.frame(width, height);
    context.strokeStyle = look.line;
    context.lineWidth = 0.75;
    for (const { x_mm: x, y_mm: y, width_mm: w, height_mm: h } of this.camera.detectors) {
      context.beginPath();
      for (const [dx, dy] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) context.lineTo(...to(x + (dx * w) / 2, y + (dy * h) / 2));
      context.closePath();
      context.stroke();
    }
    const longest = PART * 2 * reach * scale;
    this.spots = [];
    context.lineCap = "round";
    for (const whisker of this.map.whiskers) {
      const [e1, e2] = this.isAltaz ? [whisker.e1_altaz, whisker.e2_altaz] : [whisker.e1, whisker.e2];
      const [x, y] = to(whisker.x_mm, whisker.y_mm);
      const half = (0.5 * longest * Math.hypot(e1, e2)) / this.reference;
      const angle = 0.5 * Math.atan2(e2, e1);
      context.strokeStyle = this.colours.colour(whisker.fwhm_arcsec);
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(x - half * Math.cos(angle), y + half * Math.sin(angle));
      context.lineTo(x + half * Math.cos(angle), y - half * Math.sin(angle));
      context.stroke();
      this.spots.push({ x, y, whisker });
    }
    this.drawKey(context, look, longest, width, height);
  }

  drawKey(context, look, longest, width, height) {
    context.strokeStyle = look.text;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(10, height - 12);
    context.lineTo(10 + longest, height - 12);
    context.stroke();
    context.fillStyle = look.dim;
    context.font = `12px ${look.family}`;
    context.textBaseline = "bottom";
    context.textAlign = "left";
    context.fillText(`e = ${this.reference}`, 10, height - 16);
    context.textAlign = "right";
    context.fillText(this.isAltaz ? "azimuth →  altitude ↑" : "x →  y ↑", width - 8, height - 6);
  }

  hover(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    let best = null;
    for (const spot of this.spots ?? []) {
      const far = Math.hypot(spot.x - x, spot.y - y);
      if (far < 24 && (!best || far < best.far)) best = { ...spot, far };
    }
    if (!best) return hideTip();
    const { whisker } = best;
    const [e1, e2] = this.isAltaz ? [whisker.e1_altaz, whisker.e2_altaz] : [whisker.e1, whisker.e2];
    return showTip(event,
      el("div", {}, el("b", {}, this.names.get(whisker.detector) ?? String(whisker.detector)), el("span", { class: "dim" }, ` ${whisker.n_stars} stars`)),
      el("div", {}, `FWHM ${number(whisker.fwhm_arcsec, 2)}″`),
      el("div", {}, `e1 ${number(e1, 3)}  e2 ${number(e2, 3)}`));
  }
}
