// Detectors at full resolution: asked for once each, made by the display when somebody looks.

import { getJSON } from "./dom.js";
import { number } from "./format.js";

const TIMEOUT_MS = 120_000; // a raw is read and calibrated meanwhile
const AGAIN_MS = 3000; // before what was only busy, or away, may be asked for again

export class FineImages {
  /** @param onState is called with a line about what is going on; onImage once a detector's image, or the reason for none, has come. */
  constructor(camera, exposureId, { onState = () => {}, onImage = () => {} } = {}) {
    Object.assign(this, { camera, exposureId, onState, onImage });
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
    const name = this.camera.detectors.find((place) => place.id === detector)?.name ?? detector;
    this.onState(`making ${name} at full resolution…`);
    try {
      const image = await getJSON(`/api/exposures/${this.exposureId}/detectors/${detector}/image`, { timeoutMs: TIMEOUT_MS });
      this.images.set(detector, image);
      this.onState([`${name} calibrated anew from its raw in ${number(image.took_s, 2)} s`, ...image.notes].join(" · "));
    } catch (error) {
      this.images.set(detector, { error: error.message });
      this.onState(`${name}: ${error.message}`);
      if (error.status === 503 || !error.status) setTimeout(() => this.asked.delete(detector), AGAIN_MS);
    }
    this.onImage();
  }

  forget() {
    this.images.clear();
    this.asked.clear();
  }
}
