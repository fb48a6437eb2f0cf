// Perceptually uniform colours, readable without red and green: viridis for magnitudes, blue-white-red around a nominal.

const MAPS = {
  viridis:
    "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e 26828e 23898e 21918c " +
    "1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725",
  cividis:
    "00224e 00285b 002e6a 053371 1a386f 273e6e 32436d 3b496c 434e6c 4b546c 535a6d 5a5f6e 61656f 686a71 6f7073 767676 7d7c78 " +
    "848279 8c8878 938e78 9b9476 a39a74 aba072 b4a76f bcae6c c4b468 cdbb63 d5c25e dec958 e7d150 f0d846 f9e03a fee838",
  diverging:
    "053061 0e4179 175290 1f63a8 2a71b2 3480b9 3f8ec0 529dc8 6bacd1 84bcd9 9bc9e0 aed3e6 c2ddec d4e6f1 e0ecf3 ecf2f5 f7f6f6 " +
    "f9eee7 fbe5d8 fddcc9 fbccb4 f8bb9e f5aa89 ee9677 e48066 db6b55 d05548 c53e3d ba2832 ab162a 930e26 7c0722 67001f",
};
const STOPS = Object.fromEntries(
  Object.entries(MAPS).map(([name, text]) => [
    name,
    text.split(" ").map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16))),
  ]),
);

function rgb(map, fraction) {
  const stops = STOPS[map];
  const place = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((value, at) => Math.round(value + (stops[low + 1][at] - value) * (place - low)));
}

/** Where the values lie, without being ruled by a few outliers, and the colours for it. */
export class ColourScale {
  constructor(values, { scale = "sequential", nominal = null, map = "viridis" } = {}) {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    this.values = sorted;
    this.map = scale === "diverging" ? "diverging" : map;
    if (!sorted.length) {
      [this.low, this.high] = [0, 1];
      return;
    }
    const at = (fraction) => sorted[Math.round(fraction * (sorted.length - 1))];
    const trim = sorted.length >= 30 ? 0.02 : 0;
    let [low, high] = [at(trim), at(1 - trim)];
    if (scale === "diverging") {
      const reach = Math.max(Math.abs(low - nominal), Math.abs(high - nominal)) || 1e-3;
      [low, high] = [nominal - reach, nominal + reach];
    }
    if (high - low <= Math.abs(high) * 1e-6) {
      const pad = Math.abs(high) * 0.01 || 0.5;
      [low, high] = [low - pad, high + pad];
    }
    [this.low, this.high] = [low, high];
  }

  fraction(value) {
    return (value - this.low) / (this.high - this.low);
  }

  colour(value) {
    return `rgb(${rgb(this.map, this.fraction(value)).join(" ")})`;
  }

  /** Black or white, whichever can be read on the value's colour. */
  ink(value) {
    const [r, g, b] = rgb(this.map, this.fraction(value));
    return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#0b0e12" : "#ffffff";
  }

  gradient(context, x0, x1) {
    const gradient = context.createLinearGradient(x0, 0, x1, 0);
    for (let stop = 0; stop <= 32; stop += 1) gradient.addColorStop(stop / 32, `rgb(${rgb(this.map, stop / 32).join(" ")})`);
    return gradient;
  }
}
