// A focal plane to zoom into: tiles of the mosaic, and beneath them every detector at full resolution, made when looked at.
// The world is measured in detector pixels, from the upper left of the mosaic; y runs down, as on the screen.

import { el, fit, getJSON, paintable, theme } from "./dom.js";
import { FineImages } from "./fineimages.js";
import { number } from "./format.js";
import { fromDetector, PixelValues, toDetector } from "./pixelvalues.js";
import { TileCache } from "./tilecache.js";
import { ZoomInput } from "./zoominput.js";

const RINGS_FROM_PX = 200; // width of a detector on the screen
const SETTLE_MS = 180; // before images are asked for: what only flies by is not made

export class DeepZoom {
  /** @param exposureId whose detectors can be looked at; onState is called with a line about what is going on. */
  constructor(box, camera, exposureId, { onState = () => {}, onPick = () => {}, onValue = () => {} } = {}) {
    Object.assign(this, { box, camera, exposureId, onState, onPick, onValue });
    this.onPoint = () => {};
    this.canvas = box.appendChild(el("canvas", { tabindex: 0, role: "img", "aria-label": "Mosaic; arrows move, plus and minus zoom" }));
    this.note = box.appendChild(el("div", { class: "empty" }, "No mosaic yet"));
    this.paint = paintable(this.canvas, () => this.draw());
    this.tiles = new TileCache({ onTile: () => this.paint(), onLoading: (n) => { box.dataset.loading = String(n); } });
    this.last = null; // where the pointer is, as long as it is on the picture
    this.values = new PixelValues(() => this.pointAgain());
    this.images = new FineImages(camera, exposureId, {
      onState: (words) => this.onState(words),
      onImage: () => {
        box.dataset.images = this.images.known.join(",");
        this.paint();
        this.pointAgain();
      },
    });
    this.stars = null;
    this.tone = { brightness: 1, contrast: 1 };
    this.info = null;
    this.input = new ZoomInput(this);
  }

  get isShown() {
    return this.info !== null;
  }

  /** Show the pyramid of a key, or say why there is none; the view stays where it is if the world is the same. */
  async show(key, { empty = "No mosaic yet", calibrated = false } = {}) {
    if (key === this.key) return;
    this.key = key;
    if (this.images.choose(calibrated)) {
      this.stretch = null; // the other kind has other levels
      this.box.dataset.images = "";
      this.onState("");
      this.onValue("");
    }
    if (!key) {
      this.info = null;
      this.note.textContent = empty;
      this.note.hidden = false;
      this.paint();
      return;
    }
    let info;
    try {
      info = await getJSON(`/tiles/${key.split("/").map(encodeURIComponent).join("/")}/info`);
    } catch (error) {
      if (this.key !== key) return;
      this.info = null;
      this.note.textContent = `The mosaic could not be loaded: ${error.message}`;
      this.note.hidden = false;
      this.paint();
      return;
    }
    if (this.key !== key) return; // overtaken
    const before = this.info;
    this.info = info;
    this.note.hidden = true;
    const [x0, x1, y0, y1] = info.extent_mm;
    this.world = { width: (x1 - x0) / info.pixel_mm, height: (y1 - y0) / info.pixel_mm };
    this.tiles.begin();
    if (!before || !this.view) this.home();
    else this.moved(); // what is in view is asked for in the kind that is shown
    this.pointAgain();
  }

  home() {
    if (!this.info || !this.canvas.clientWidth) return;
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const scale = Math.min(w / this.world.width, h / this.world.height) * 0.98;
    this.least = scale;
    this.view = { scale, x: (w - this.world.width * scale) / 2, y: (h - this.world.height * scale) / 2 };
    this.atHome = true;
    this.moved();
  }

  /** Fill the view with one detector. */
  look(place) {
    if (!this.info) return;
    const { left, top, width, height } = this.placed(place);
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const scale = Math.min(w / width, h / height) * 0.96;
    this.view = { scale, x: w / 2 - (left + width / 2) * scale, y: h / 2 - (top + height / 2) * scale };
    this.atHome = false;
    this.ask(place.id);
    this.moved();
  }

  zoom(factor, x, y) {
    if (!this.info) return;
    const scale = Math.min(Math.max(this.view.scale * factor, this.least * 0.7), 24);
    const by = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * by, y: y - (y - this.view.y) * by };
    this.atHome = false;
    this.moved();
  }

  pan(dx, dy) {
    if (!this.info) return;
    this.view.x += dx;
    this.view.y += dy;
    this.atHome = false;
    this.moved();
  }

  moved() {
    this.paint();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settled(), SETTLE_MS);
    this.box.dataset.scale = this.view ? (1 / this.view.scale).toFixed(3) : "";
  }

  // ---- where things are --------------------------------------------------------------------------

  placed(place) {
    const [x0, , , y1] = this.info.extent_mm;
    const mm = this.info.pixel_mm;
    return { left: (place.x_mm - place.width_mm / 2 - x0) / mm, top: (y1 - place.y_mm - place.height_mm / 2) / mm, width: place.width_mm / mm, height: place.height_mm / mm };
  }

  toWorld(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - bounds.left - this.view.x) / this.view.scale, y: (event.clientY - bounds.top - this.view.y) / this.view.scale };
  }

  placeAt(world) {
    return this.camera.detectors.find((place) => {
      const { left, top, width, height } = this.placed(place);
      return world.x >= left && world.x < left + width && world.y >= top && world.y < top + height;
    }) ?? null;
  }

  inView() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const { scale, x, y } = this.view;
    return this.camera.detectors.filter((place) => {
      const at = this.placed(place);
      return at.left * scale + x < w && (at.left + at.width) * scale + x > 0 && at.top * scale + y < h && (at.top + at.height) * scale + y > 0;
    });
  }

  get isFine() {
    return this.info && this.view.scale * this.ratio > 1 / (this.info.levels[0].scale * 0.75);
  }

  get ratio() {
    return Math.min(window.devicePixelRatio || 1, 2);
  }

  // ---- detectors at full resolution ----------------------------------------------------------------

  settled() {
    if (!this.isFine) return;
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const middle = { x: (w / 2 - this.view.x) / this.view.scale, y: (h / 2 - this.view.y) / this.view.scale };
    const far = (place) => {
      const at = this.placed(place);
      return Math.hypot(at.left + at.width / 2 - middle.x, at.top + at.height / 2 - middle.y);
    };
    // Those in the middle first; a screen full of detectors would take longer than anybody waits.
    for (const place of this.inView().sort((a, b) => far(a) - far(b)).slice(0, 6)) this.ask(place.id);
  }

  ask(detector) {
    if (!this.has || this.has(detector)) this.images.ask(detector);
  }

  /** Another version of the exposure: its detectors may have been measured anew. */
  forget() {
    this.images.forget();
    this.values.forget();
    if (this.view) this.moved();
  }

  // ---- painting ------------------------------------------------------------------------------------

  draw() {
    if (this.info && !this.view) return this.home();
    const { context, width, height } = fit(this.canvas);
    if (!this.info) return;
    if (this.atHome && Math.abs(Math.min(width / this.world.width, height / this.world.height) * 0.98 - this.least) > 1e-9) return this.home();
    this.tiles.begin();
    this.canvas.style.filter = this.tone.brightness === 1 && this.tone.contrast === 1 ? "" : `brightness(${this.tone.brightness}) contrast(${this.tone.contrast})`;
    context.imageSmoothingEnabled = this.view.scale < 2;
    this.drawMosaic(context, width, height);
    if (this.isFine) for (const place of this.inView()) this.drawDetector(context, place, width, height);
    this.drawStars(context);
    this.drawMark(context);
    this.tiles.trim();
    this.tiles.load();
  }

  drawMosaic(context, width, height) {
    const { levels, tile_px: side } = this.info;
    const finest = 1 / (this.view.scale * this.ratio);
    const best = Math.max(levels.findLastIndex((level) => level.scale <= finest * 1.4), 0);
    // From coarse to fine: what has not come yet leaves the coarser one in sight.
    for (let at = levels.length - 1; at >= best; at -= 1) {
      const level = levels[at];
      const visible = this.range(level.scale * side, level.columns, level.rows, 0, 0, width, height);
      for (const [column, row] of visible) {
        const address = `/tiles/${this.key}/${level.scale}/${column}/${row}`;
        const tile = this.tiles.tile(address, at === best || at === levels.length - 1);
        if (tile?.image) this.blit(context, tile.image, column * side * level.scale, row * side * level.scale, level.scale);
      }
    }
  }

  drawDetector(context, place, width, height) {
    const image = this.images.get(place.id);
    if (!image) return;
    const { left, top } = this.placed(place);
    const finest = 1 / (this.view.scale * this.ratio);
    const scales = [...image.scales].sort((a, b) => b - a);
    const best = scales.find((scale) => scale <= finest * 1.4) ?? scales[scales.length - 1];
    for (const scale of scales.filter((one) => one >= best)) {
      const span = scale * image.tile_px;
      const visible = this.range(span, Math.ceil(image.width / span), Math.ceil(image.height / span), left, top, width, height);
      for (const [column, row] of visible) {
        const tile = this.tiles.tile(`/api/images/${image.image_id}/${place.id}/${scale}/${column}/${row}${this.stretchOf(image)}`, scale === best);
        if (tile?.image) this.blit(context, tile.image, left + column * span, top + row * span, scale);
      }
    }
  }

  /** One stretch for all detectors, that of the first: neighbours can be compared. Binned pixels have less noise, and another. */
  stretchOf(image) {
    this.stretch ??= image.stretch;
    const { stretch } = this;
    return `?curve=${stretch.curve}&low=${stretch.low}&high=${stretch.high}&softening=${stretch.softening}`;
  }

  range(span, columns, rows, left, top, width, height) {
    const { scale, x, y } = this.view;
    const from = (edge, offset) => Math.max(Math.floor((-offset / scale - edge) / span), 0);
    const to = (edge, offset, size, count) => Math.min(Math.floor(((size - offset) / scale - edge) / span), count - 1);
    const found = [];
    for (let row = from(top, y); row <= to(top, y, height, rows); row += 1) {
      for (let column = from(left, x); column <= to(left, x, width, columns); column += 1) found.push([column, row]);
    }
    return found;
  }

  blit(context, image, x, y, scale) {
    const s = this.view.scale;
    const [left, top] = [x * s + this.view.x, y * s + this.view.y];
    // Rounded outwards: no hairlines between tiles.
    const [x0, y0] = [Math.floor(left), Math.floor(top)];
    context.drawImage(image, x0, y0, Math.ceil(left + image.width * scale * s) - x0, Math.ceil(top + image.height * scale * s) - y0);
  }

  drawStars(context) {
    const stars = this.stars;
    if (!stars) return;
    const place = this.camera.detectors.find((one) => one.id === stars.detector);
    const image = this.images.get(stars.detector);
    if (!place || !image) return;
    const { left, top, width } = this.placed(place);
    const look = theme();
    const s = this.view.scale;
    if (width * s < RINGS_FROM_PX) return; // nothing but rings could be seen
    context.lineWidth = 1.25;
    const radius = Math.max(this.isFine ? 6 : 4, 9 * s);
    stars.x.forEach((x, at) => {
      const [u, v] = fromDetector(image, x, stars.y[at]);
      const [cx, cy] = [(left + u + 0.5) * s + this.view.x, (top + v + 0.5) * s + this.view.y];
      context.strokeStyle = stars.picked === at ? look.text : stars.is_psf_star[at] ? look.accent : look.warn;
      context.setLineDash(stars.is_psf_star[at] ? [] : [3, 3]);
      context.beginPath();
      context.arc(cx, cy, stars.picked === at ? radius * 1.5 : radius, 0, 7);
      context.stroke();
    });
    context.setLineDash([]);
  }

  drawMark(context) {
    if (!this.marked) return;
    const { left, top, width, height } = this.placed(this.marked);
    const { scale, x, y } = this.view;
    context.strokeStyle = theme().accent;
    context.lineWidth = 2;
    context.strokeRect(left * scale + x, top * scale + y, width * scale, height * scale);
  }

  /** Outline a detector; null for none. */
  mark(place) {
    if (this.marked === place) return;
    this.marked = place;
    this.paint();
  }

  /** Brightness and contrast, as dragging with Shift sets them; both 1 for the picture as it was stretched. */
  setTone(brightness, contrast) {
    const within = (value) => Math.min(Math.max(value, 0.2), 6);
    this.tone = { brightness: within(brightness), contrast: within(contrast) };
    this.paint();
  }

  /** Say what is below the pointer now that there may be more to say. */
  pointAgain() {
    if (this.last && this.info) this.point(this.last);
  }

  /** Say what is below the pointer; null: it has left. */
  point(event) {
    this.last = event;
    if (!event) {
      this.onPoint(null);
      this.onValue("");
      return;
    }
    const world = this.toWorld(event);
    const place = this.placeAt(world);
    this.onPoint(place);
    if (!place) {
      this.onValue("");
      return;
    }
    const { left, top } = this.placed(place);
    const image = this.images.get(place.id);
    if (!image) {
      this.onValue(`${place.name}`);
      return;
    }
    const [x, y] = toDetector(image, Math.floor(world.x - left), Math.floor(world.y - top));
    const value = this.values.at(image, x, y);
    this.onValue(`${place.name}  x ${x}  y ${y}  ${value === undefined ? "…" : `${number(value, 1)} ${image.unit}`}`);
  }
}
