// The mosaic of an exposure: tiles where there are some, else the one picture; post-ISR or calibrated.

import { DeepZoom } from "./deepzoom.js";
import { $, setText } from "./dom.js";
import { linkPictureAndPlane, mosaicOf, Picture, productUrl } from "./picture.js";

export class MosaicViewer {
  constructor(box, camera, exposureId, plane, { onPick }) {
    Object.assign(this, { box, camera, exposureId, plane, kind: "mosaic", isChosen: false, onPick });
    document.querySelectorAll("#kinds button").forEach((button) => button.addEventListener("click", () => {
      this.kind = button.dataset.kind;
      this.isChosen = true;
      this.apply();
    }));
    const middle = () => [box.clientWidth / 2, box.clientHeight / 2];
    $("#zoom-in").addEventListener("click", () => this.zoomer?.zoom(1.6, ...middle()));
    $("#zoom-out").addEventListener("click", () => this.zoomer?.zoom(1 / 1.6, ...middle()));
    $("#zoom-home").addEventListener("click", () => this.home());
  }

  show(products, row) {
    Object.assign(this, { products: products ?? {}, row });
    this.apply();
  }

  apply() {
    const { products, row } = this;
    if (!products[this.kind]) this.kind = "mosaic";
    document.querySelectorAll("#kinds button").forEach((button) => {
      button.hidden = !products[button.dataset.kind];
      button.setAttribute("aria-pressed", String(button.dataset.kind === this.kind));
    });
    const tiles = products[`${this.kind}_tiles`];
    const name = products[this.kind] ? this.kind : mosaicOf(products);
    const empty = row.version ? "This summary has no mosaic" : "The mosaic comes with the summary";
    if (tiles || !name) this.deep().show(tiles ?? null, { empty, calibrated: this.kind === "mosaic_calibrated" });
    else this.flat(productUrl(products[name]), empty);
    setText($("#mosaic-note"), name && row.n_summarised < row.n_expected ? `partial, ${row.n_summarised} of ${row.n_expected} detectors` : "");
    $("#mosaic-open").hidden = !name;
    if (name) $("#mosaic-open").href = productUrl(products[name]);
    for (const button of ["#zoom-in", "#zoom-out", "#zoom-home"]) $(button).hidden = !tiles;
  }

  deep() {
    if (this.zoomer) return this.zoomer;
    this.box.replaceChildren();
    this.picture = null;
    this.zoomer = new DeepZoom(this.box, this.camera, this.exposureId, {
      onState: (words) => {
        setText($("#zoom-note"), words);
        $("#zoom-note").title = words;
      },
      onValue: (words) => setText($("#value"), words),
      onPick: this.onPick,
    });
    this.zoomer.has = (detector) => this.plane.cells.get(detector)?.state === "finished";
    this.zoomer.onPoint = (place) => this.plane.mark(place);
    this.plane.onHover = (place) => this.zoomer.mark(place);
    return this.zoomer;
  }

  /** A summary of before there were tiles. */
  flat(url, empty) {
    if (!this.picture) {
      this.box.replaceChildren();
      this.zoomer = null;
      this.picture = new Picture(this.box);
      linkPictureAndPlane(this.picture, this.plane);
    }
    this.picture.show(url, { empty, alt: `Mosaic of exposure ${this.exposureId}`, keep: true });
  }

  home() {
    this.zoomer?.home();
    this.picture?.home();
  }

  look(detector) {
    const place = this.camera.detectors.find((one) => one.id === detector);
    if (!place || !this.zoomer?.isShown) return;
    if (!this.isChosen && this.products.mosaic_calibrated_tiles) {
      this.kind = "mosaic_calibrated"; // what a detector's numbers are about, unless somebody chose the other
      this.apply();
    }
    this.zoomer.look(place);
    this.box.scrollIntoView({ block: "nearest" });
  }

  /** Ring the stars of a detector: {detector, x, y, is_psf_star, picked}; null for none. */
  stars(stars) {
    if (!this.zoomer) return;
    this.zoomer.stars = stars;
    this.zoomer.paint();
  }

  forget() {
    this.zoomer?.forget();
  }
}
