// A picture of the sky to zoom into and drag about: wheel, pinch, double click; a new version replaces the old without a flicker.

import { el } from "./dom.js";

export class Picture {
  constructor(box) {
    this.box = box;
    this.view = null;
    this.pointers = new Map();
    this.note = box.appendChild(el("div", { class: "empty" }, "No mosaic yet"));
    this.frame = box.appendChild(el("div", { class: "outline", hidden: true }));
    this.onPoint = () => {};
    box.addEventListener("pointerleave", () => this.onPoint(null));
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX, event.clientY);
    }, { passive: false });
    box.addEventListener("dblclick", () => this.home());
    box.addEventListener("pointerdown", (event) => this.down(event));
    box.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) box.addEventListener(kind, (event) => this.up(event));
    new ResizeObserver(() => this.image && this.home()).observe(box);
  }

  /** Show the picture at an address, or say why there is none. */
  show(url, { empty = "No mosaic yet", alt = "mosaic", keep = false } = {}) {
    this.note.textContent = empty;
    if (url === this.url) return;
    this.url = url;
    if (!url) {
      this.image?.remove();
      this.image = null;
      this.outline(null);
      this.note.hidden = false;
      return;
    }
    const next = el("img", { alt, draggable: "false" });
    next.addEventListener("load", () => {
      if (this.url !== url) return; // overtaken by a newer one
      const stay = keep && this.image && this.image.naturalWidth === next.naturalWidth;
      this.image?.remove();
      this.image = next;
      this.box.prepend(next);
      this.note.hidden = true;
      if (stay) this.apply();
      else this.home();
    });
    next.addEventListener("error", () => {
      if (this.url !== url) return;
      this.image?.remove();
      this.image = null;
      this.note.textContent = "The mosaic could not be loaded";
      this.note.hidden = false;
    });
    next.src = url;
  }

  home() {
    if (!this.image) return;
    const scale = Math.min(this.box.clientWidth / this.image.naturalWidth, this.box.clientHeight / this.image.naturalHeight);
    this.least = scale;
    this.view = {
      scale,
      x: (this.box.clientWidth - this.image.naturalWidth * scale) / 2,
      y: (this.box.clientHeight - this.image.naturalHeight * scale) / 2,
    };
    this.apply();
  }

  zoom(factor, clientX, clientY) {
    if (!this.image) return;
    const bounds = this.box.getBoundingClientRect();
    const [x, y] = [clientX - bounds.left, clientY - bounds.top];
    const scale = Math.min(Math.max(this.view.scale * factor, this.least * 0.8), Math.max(16, this.least * 4));
    const by = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * by, y: y - (y - this.view.y) * by };
    this.apply();
  }

  apply() {
    const { scale, x, y } = this.view;
    this.image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.box.classList.toggle("close", scale > 2);
    this.outline(this.marked);
  }

  /** Mark a part of the picture, given as fractions of its width and height from the upper left; null for none. */
  outline(part) {
    this.marked = part;
    this.frame.hidden = !part || !this.image;
    if (this.frame.hidden) return;
    const { scale, x, y } = this.view;
    const [w, h] = [this.image.naturalWidth * scale, this.image.naturalHeight * scale];
    const place = { left: x + part.x * w, top: y + part.y * h, width: part.width * w, height: part.height * h };
    for (const [name, value] of Object.entries(place)) this.frame.style[name] = `${value}px`;
  }

  /** Tell what is under the pointer, in fractions as in `outline`. */
  point(event) {
    const bounds = this.box.getBoundingClientRect();
    const { scale, x, y } = this.view;
    this.onPoint({
      x: (event.clientX - bounds.left - x) / (this.image.naturalWidth * scale),
      y: (event.clientY - bounds.top - y) / (this.image.naturalHeight * scale),
    });
  }

  down(event) {
    if (!this.image) return;
    this.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.box.classList.add("dragging");
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!this.image) return;
    if (!before) {
      this.point(event);
      return;
    }
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      const reach = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
      this.zoom(reach(event) / reach(before), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    } else {
      this.view.x += event.clientX - before.clientX;
      this.view.y += event.clientY - before.clientY;
      this.apply();
    }
    this.pointers.set(event.pointerId, event);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.box.classList.remove("dragging");
  }
}

/** Choose the product that shows the whole focal plane. */
export function mosaicOf(products) {
  const names = Object.keys(products ?? {}).filter((name) => /\.(jpe?g|png|webp)$/i.test(products[name]));
  return names.find((name) => name === "mosaic") ?? names.find((name) => name.includes("mosaic")) ?? null;
}

export function productUrl(key) {
  return `/products/${key.split("/").map(encodeURIComponent).join("/")}`;
}

/**
 * Show in each what the pointer is on in the other: a mosaic covers the camera's detectors, y up, edge to edge.
 * A picture that is not as wide to high as the camera is no such mosaic, and is left alone.
 */
export function linkPictureAndPlane(picture, plane) {
  const { x0, x1, y0, y1 } = plane.bounds;
  const fits = () => {
    const shape = picture.image ? picture.image.naturalWidth / picture.image.naturalHeight : NaN;
    return Math.abs((shape * (y1 - y0)) / (x1 - x0) - 1) < 0.05;
  };
  plane.onHover = (place) => picture.outline(place && fits() ? {
    x: (place.x_mm - place.width_mm / 2 - x0) / (x1 - x0), y: (y1 - place.y_mm - place.height_mm / 2) / (y1 - y0),
    width: place.width_mm / (x1 - x0), height: place.height_mm / (y1 - y0),
  } : null);
  picture.onPoint = (at) => plane.mark(at && fits() ? plane.placeAt(x0 + at.x * (x1 - x0), y1 - at.y * (y1 - y0)) : null);
}
