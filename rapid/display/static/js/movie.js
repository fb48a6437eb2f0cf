// The night's movie: plays its mosaics, and says which exposure is on show.

import { $, el, getJSON, setText } from "./dom.js";
import { day, seq } from "./format.js";

export class MoviePlayer {
  constructor(panel, button, dayObs) {
    Object.assign(this, { panel, button, dayObs, movie: null });
    this.video = el("video", { controls: true, loop: true, playsinline: true, preload: "metadata", "aria-label": `Mosaics of ${day(dayObs)}` });
    this.link = el("a", { href: "#" });
    this.note = el("span", { class: "dim" });
    const step = (by) => () => this.step(by);
    panel.append(el("header", {}, el("h2", {}, "The night's movie"), this.link, this.note,
      el("button", { class: "push", onclick: step(-1), "aria-label": "One frame back" }, "◂"), el("button", { onclick: step(1), "aria-label": "One frame on" }, "▸"),
      el("a", { download: true, class: "download" }, "MP4"), el("button", { onclick: () => this.close(), "aria-label": "Close" }, "✕")), this.video);
    for (const kind of ["timeupdate", "seeked", "loadedmetadata"]) this.video.addEventListener(kind, () => this.caption());
    const eachFrame = (_, { mediaTime }) => {
      this.caption(mediaTime);
      this.video.requestVideoFrameCallback(eachFrame);
    };
    this.video.requestVideoFrameCallback?.(eachFrame);
    this.video.addEventListener("error", () => this.video.getAttribute("src") && setText(this.note, "this browser cannot play it; it can be downloaded"));
    button.addEventListener("click", () => (panel.hidden ? this.open() : this.close()));
    this.look();
  }

  /** See whether there is a movie, or a newer one. */
  async look() {
    try {
      this.movie = await getJSON(`/api/nights/${this.dayObs}/movie`);
    } catch {
      this.movie = null; // none yet; the display says when there is one
    }
    this.button.hidden = !this.movie;
    if (this.movie && !this.panel.hidden && this.video.paused) this.load();
  }

  load() {
    const { exposures, url } = this.movie;
    // The same address as before, with other contents: the number of frames makes it another one.
    const address = `${url}?frames=${exposures.length}`;
    if (this.video.getAttribute("src") !== address) this.video.src = address;
    $(".download", this.panel).href = url;
    this.caption();
  }

  open() {
    this.panel.hidden = false;
    this.load();
    this.video.play().catch(() => {}); // a browser may want a click on the picture first
  }

  close() {
    this.video.pause();
    this.panel.hidden = true;
  }

  step(by) {
    this.video.pause();
    const rate = this.movie.frames_per_s;
    const at = Math.floor(this.video.currentTime * rate + 1e-6) + by;
    this.video.currentTime = (Math.min(Math.max(at, 0), this.movie.exposures.length - 1) + 0.5) / rate;
  }

  caption(time = this.video.currentTime) {
    if (!this.movie) return;
    const { exposures, frames_per_s: rate } = this.movie;
    const at = Math.min(Math.floor(time * rate + 1e-3), exposures.length - 1);
    const id = exposures[at];
    setText(this.link, seq(id % 100_000));
    this.link.href = `/exposure/${id}`;
    setText(this.note, `frame ${at + 1} of ${exposures.length}`);
  }
}
