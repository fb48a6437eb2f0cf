// A picture of the sky to zoom into and drag about: wheel, pinch, double click; a new version replaces the old without a flicker.

import { el } from "./dom.js";

export class Picture {
  constructor(box) {
    this.box = box;
    this.view = null;
    this.pointers = new Map();
    this.note = box.appendChild(el("div", { class: "empty" }, "No mosaic yet"));
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
  }

  down(event) {
    if (!this.image) return;
    this.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.box.classList.add("dragging");
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.image) return;
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
