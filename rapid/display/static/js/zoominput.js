// Wheel, pointers, pinch and keys of a picture that can be zoomed into: what they mean, not what is drawn.

export class ZoomInput {
  /** @param zoom a `DeepZoom`: asked to zoom, pan, point, and set its tone. */
  constructor(zoom) {
    Object.assign(this, { zoom, canvas: zoom.canvas, pointers: new Map(), dragged: 0 });
    this.listen();
  }

  listen() {
    const { canvas, zoom } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const bounds = canvas.getBoundingClientRect();
      zoom.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX - bounds.left, event.clientY - bounds.top);
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => {
      const place = zoom.info && zoom.placeAt(zoom.toWorld(event));
      if (event.shiftKey) zoom.setTone(1, 1);
      else if (place && !zoom.isFine) zoom.look(place);
      else zoom.home();
    });
    canvas.addEventListener("pointerdown", (event) => {
      if (!zoom.info) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      zoom.box.classList.add("dragging");
      this.dragged = 0;
    });
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => {
        this.pointers.delete(event.pointerId);
        if (!this.pointers.size) zoom.box.classList.remove("dragging");
      });
    }
    canvas.addEventListener("click", (event) => {
      if (!zoom.info || this.dragged > 4) return;
      const place = zoom.placeAt(zoom.toWorld(event));
      if (place) zoom.onPick(place.id);
    });
    canvas.addEventListener("pointerleave", () => zoom.point(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const { zoom } = this;
    if (!zoom.info) return;
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const step = { ArrowLeft: [w / 8, 0], ArrowRight: [-w / 8, 0], ArrowUp: [0, h / 8], ArrowDown: [0, -h / 8] }[event.key];
    if (step) zoom.pan(...step);
    else if (event.key === "+" || event.key === "=") zoom.zoom(1.5, w / 2, h / 2);
    else if (event.key === "-") zoom.zoom(1 / 1.5, w / 2, h / 2);
    else if (event.key === "0") zoom.home();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  move(event) {
    const { zoom } = this;
    if (!zoom.info) return;
    const before = this.pointers.get(event.pointerId);
    if (!before) return zoom.point(event);
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    this.dragged += Math.abs(dx) + Math.abs(dy);
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
      const reach = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
      const bounds = this.canvas.getBoundingClientRect();
      zoom.zoom(reach(event) / reach(before), (event.clientX + other.clientX) / 2 - bounds.left, (event.clientY + other.clientY) / 2 - bounds.top);
    } else if (event.shiftKey) {
      zoom.setTone(zoom.tone.brightness * Math.exp(-dy * 0.004), zoom.tone.contrast * Math.exp(dx * 0.004));
    } else zoom.pan(dx, dy);
    this.pointers.set(event.pointerId, event);
    return undefined;
  }
}
