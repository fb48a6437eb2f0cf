// The panel of whiskers: loads the PSF map of a summary, in the camera's frame or as on the sky.

import { $, getJSON, setText } from "./dom.js";
import { productUrl } from "./picture.js";
import { ScaleBar } from "./scale.js";
import { WhiskerPlot } from "./whiskers.js";

export class PsfPanel {
  constructor(panel, camera) {
    this.panel = panel;
    const bar = new ScaleBar($("#psf-scale"));
    this.plot = new WhiskerPlot($("#whiskers"), camera, { onScale: (...args) => bar.show(...args) });
    this.isAltaz = false;
    panel.querySelectorAll("#frames button").forEach((button) => button.addEventListener("click", () => {
      this.isAltaz = button.dataset.frame === "altaz";
      this.apply();
    }));
  }

  async show(products) {
    const key = products?.psf_map;
    this.panel.hidden = !key;
    if (!key || key === this.key) return;
    this.key = key;
    this.map = await getJSON(productUrl(key));
    this.apply();
  }

  apply() {
    const canTurn = this.map.zenith_deg !== null && this.map.zenith_deg !== undefined;
    if (!canTurn) this.isAltaz = false;
    this.panel.querySelectorAll("#frames button").forEach((button) => {
      button.disabled = button.dataset.frame === "altaz" && !canTurn;
      button.title = button.disabled ? "The headers do not tell where the zenith is" : "";
      button.setAttribute("aria-pressed", String((button.dataset.frame === "altaz") === this.isAltaz));
    });
    this.plot.show(this.map, this.isAltaz);
    setText($("#psf-note"), `${this.map.whiskers.length} whiskers`);
  }
}
