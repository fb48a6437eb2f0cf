// Values of single pixels of a detector's image, fetched as patches around the pointer; and where a pixel is in the picture.

import { getJSON } from "./dom.js";

const PATCH_PX = 64;
const N_PATCHES_KEPT = 200;

export class PixelValues {
  /** @param onPatch is called when more values are known. */
  constructor(onPatch) {
    this.onPatch = onPatch;
    this.patches = new Map(); // by address
  }

  forget() {
    this.patches.clear();
  }

  /** A pixel's value; undefined until the patch around it has come. */
  at(image, x, y) {
    if (x < 0 || y < 0) return null;
    const [x0, y0] = [Math.floor(x / PATCH_PX) * PATCH_PX, Math.floor(y / PATCH_PX) * PATCH_PX];
    const address = `/api/images/${image.image_id}/pixels?x=${x0}&y=${y0}&width=${PATCH_PX}&height=${PATCH_PX}`;
    const patch = this.patches.get(address);
    if (patch?.values) return patch.values[y - y0]?.[x - x0] ?? null;
    if (!patch) {
      this.patches.set(address, {});
      if (this.patches.size > N_PATCHES_KEPT) this.patches.delete(this.patches.keys().next().value);
      getJSON(address).then((found) => {
        this.patches.set(address, found);
        this.onPatch();
      }, () => this.patches.delete(address));
    }
    return undefined;
  }
}

/** From a picture's pixel, row 0 at the top, to the detector's own column and row. */
export function toDetector({ n_quarter: quarter, width, height }, u, v) {
  const [x, y] = [u, height - 1 - v];
  return [[x, y], [y, width - 1 - x], [width - 1 - x, height - 1 - y], [height - 1 - y, x]][quarter];
}

/** The inverse of `toDetector`. */
export function fromDetector({ n_quarter: quarter, width, height }, x, y) {
  const [u, up] = [[x, y], [width - 1 - y, x], [width - 1 - x, height - 1 - y], [y, height - 1 - x]][quarter];
  return [u, height - 1 - up];
}
