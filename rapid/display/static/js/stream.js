// The live connection: server-sent events, resumed after a loss, watched for silence, shown on the page.

import { $, setText } from "./dom.js";
import { clock } from "./format.js";

export class LiveStream {
  /**
   * @param after id of the last event the page's data contains
   * @param handlers by kind of event: {exposures, sources, reset}
   */
  constructor({ after, heartbeatS, handlers }) {
    this.after = after;
    this.handlers = handlers;
    this.silenceMs = heartbeatS * 3000;
    this.lostSince = null;
    this.offsetMs = 0;
    this.open();
    addEventListener("online", () => this.reopen());
    addEventListener("pagehide", () => this.source?.close());
    addEventListener("pageshow", (event) => event.persisted && this.reopen());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && performance.now() - this.heard > this.silenceMs) this.reopen();
    });
  }

  open() {
    this.source = new EventSource(`/api/events?after=${encodeURIComponent(this.after)}`);
    this.source.addEventListener("open", () => this.alive());
    this.source.addEventListener("error", () => this.lost());
    for (const kind of ["exposures", "sources", "reset", "heartbeat", "alert", "night", "control", "exclusions", "calibs", "requests", "log", "cluster"]) {
      this.source.addEventListener(kind, (event) => {
        if (event.lastEventId) this.after = event.lastEventId;
        this.alive();
        const data = JSON.parse(event.data);
        if (kind === "heartbeat") this.offsetMs = Date.parse(data.server_time) - Date.now();
        this.handlers[kind]?.(data);
      });
    }
    this.listen();
  }

  reopen() {
    this.source.close();
    clearTimeout(this.retry);
    this.open();
  }

  /** Go on from the id that freshly loaded data contains. */
  resumeAfter(id) {
    this.after = id;
    this.reopen();
  }

  alive() {
    if (this.lostSince !== null) this.handlers.returned?.();
    this.lostSince = null;
    show("live", null);
    this.listen();
  }

  listen() {
    this.heard = performance.now();
    clearTimeout(this.watch);
    this.watch = setTimeout(() => {
      this.lost();
      this.reopen();
    }, this.silenceMs);
  }

  lost() {
    this.lostSince ??= Date.now();
    show("lost", this.lostSince);
    // A browser gives up for good when the server answers with an error: then it is for us to try again.
    if (this.source.readyState === EventSource.CLOSED) {
      clearTimeout(this.retry);
      this.retry = setTimeout(() => this.reopen(), 2000);
    }
  }
}

function show(link, since) {
  document.body.dataset.link = link;
  const banner = $("#lost");
  banner.hidden = link !== "lost";
  if (since) setText(banner, `Connection lost since ${clock(since)} UTC — what you see is old. Trying to reconnect.`);
  const live = $("#live");
  if (!live) return;
  live.dataset.link = link === "live" && live.dataset.held ? "held" : link;
  setText(live, link === "lost" ? "lost" : live.dataset.held ? "held" : "live");
}

/** Show whether the page follows the newest exposure or stays where the user stepped to. */
export function showHeld(held) {
  const live = $("#live");
  if (held) live.dataset.held = "yes";
  else delete live.dataset.held;
  if (document.body.dataset.link !== "lost") show("live", null);
}

/** Name the sources that are down, so that an old page is never taken for a quiet night. */
export function showSources(sources) {
  const banner = $("#sources");
  const down = sources.filter((source) => !source.is_up);
  banner.hidden = !down.length;
  setText(banner, down.map((source) => `${source.name} not reachable since ${clock(Date.parse(source.since))} UTC`).join("; "));
}
