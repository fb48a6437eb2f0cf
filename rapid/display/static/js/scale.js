// The colour scale under a focal plane: always drawn, with the histogram of the values on it.

import { fit, paintable, theme } from "./dom.js";
import { number } from "./format.js";

export class ScaleBar {
  constructor(canvas) {
    this.canvas = canvas;
    this.paint = paintable(canvas, () => this.draw());
  }

  show(colours, quantity, marked = null) {
    [this.colours, this.quantity, this.marked] = [colours, quantity, marked];
    this.paint();
  }

  draw() {
    const { context, width, height } = fit(this.canvas);
    const { colours, quantity } = this;
    if (!colours || !colours.values.length) return;
    const look = theme();
    const [bar, top] = [8, height - 14 - 8];
    const n = Math.max(8, Math.min(48, Math.floor(width / 10)));
    const bins = new Array(n).fill(0);
    for (const value of colours.values) bins[Math.min(n - 1, Math.max(0, Math.floor(colours.fraction(value) * n)))] += 1;
    const most = Math.max(...bins);
    context.fillStyle = colours.gradient(context, 0, width);
    bins.forEach((count, at) => {
      const tall = count ? Math.max(2, (count / most) * (top - 2)) : 0;
      context.fillRect((at * width) / n + 0.5, top - tall, width / n - 1, tall);
    });
    context.fillRect(0, top, width, bar);
    context.font = `12px ${look.family}`;
    context.fillStyle = look.dim;
    context.textBaseline = "bottom";
    const words = [colours.low, (colours.low + colours.high) / 2, colours.high].map((value) => `${number(value, quantity.decimals)} ${quantity.unit}`.trim());
    ["left", "center", "right"].forEach((align, at) => {
      context.textAlign = align;
      context.fillText(words[at], (at * width) / 2, height);
    });
    if (Number.isFinite(this.marked)) {
      const x = Math.min(Math.max(colours.fraction(this.marked), 0), 1) * width;
      context.fillStyle = look.text;
      context.fillRect(x - 1, 0, 2, top + bar);
    }
  }
}
