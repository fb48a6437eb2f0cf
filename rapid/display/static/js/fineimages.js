// Detectors at full resolution: asked for once each, made by the display when somebody looks.

import { getJSON } from "./dom.js";
import { number } from "./format.js";

const TIMEOUT_MS = 120_000; // a raw is read and calibrated meanwhile
const AGAIN_MS = 3000; // before what was only busy, or away, may be asked for again

export class FineImages {
  /** @param onState is called with a line about what is going on; onImage once a detector's image, or the reason for none, has come. */
  constructor(camera, exposureId, { onState = () => {}, onImage = () => {} } = {}) {
    Object.assign(this, { camera, exposureId, onState, onImage });
    this.calibrated = false; // without sky, on one scale of flux; else post-ISR
    this.images = new Map(); // by detector: an ImageView, or {error}
    this.asked = new Set();
  }

  /** A detector's ImageView; null while, or because, there is none. */
  get(detector) {
    const image = this.images.get(detector);
    return image && !image.error ? image : null;
  }

  /** The detectors whose images are here. */
  get known() {
    return [...this.images.keys()].filter((detector) => this.get(detector));
  }

  async ask(detector) {
    if (this.asked.has(detector)) return;
    this.asked.add(detector);
    const { calibrated } = this;
    const name = this.camera.detectors.find((place) => place.id === detector)?.name ?? detector;
    this.onState(`making ${name} at full resolution…`);
    try {
      const image = await getJSON(`/api/exposures/${this.exposureId}/detectors/${detector}/image?calibrated=${calibrated}`, { timeoutMs: TIMEOUT_MS });
      if (calibrated !== this.calibrated) return; // the other one is looked at now
      this.images.set(detector, image);
      this.onState([`${name}, ${image.is_calibrated ? "calibrated: without sky" : "post-ISR"}, made anew from its raw in ${number(image.took_s, 2)} s`, ...image.notes].join(" · "));
    } catch (error) {
      if (calibrated !== this.calibrated) return;
      this.images.set(detector, { error: error.message });
      this.onState(`${name}: ${error.message}`);
      if (error.status === 503 || !error.status) setTimeout(() => this.asked.delete(detector), AGAIN_MS);
    }
    this.onImage();
  }

  /** Look at the other kind of images from now on; returns whether it is another. */
  choose(calibrated) {
    if (calibrated === this.calibrated) return false;
    this.calibrated = calibrated;
    this.forget();
    return true;
  }

  forget() {
    this.images.clear();
    this.asked.clear();
  }
}
