// A page that loads its data anew when the stream says that it changed: once for a burst of changes, never twice at a time.

import { $, boot, setText } from "./dom.js";
import { startShell } from "./shell.js";
import { LiveStream, showSources } from "./stream.js";

const BURST_MS = 400;

/** Collect calls for `load` into one a moment later; returns the function to call. */
export function gently(load, onError = () => {}) {
  let due = null;
  let running = false;
  let again = false;
  const run = async () => {
    due = null;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await load();
    } catch (error) {
      onError(error);
    }
    running = false;
    if (again) {
      again = false;
      later();
    }
  };
  const later = () => { due ??= setTimeout(run, BURST_MS); };
  return later;
}

/**
 * Start a page: shell, stream, and what happens on which kind of event.
 * @param on {exposures, log, cluster, ...}: functions given the message
 * @param anew called when everything may have changed: at start, after a loss that cannot be made good, every heartbeat if `beats`
 */
export function startLive({ on = {}, anew, keys = {}, help = [], beats = null }) {
  const data = boot();
  const complain = (error) => {
    const box = $("#page-error");
    if (!box) return;
    box.hidden = !error;
    setText(box, error ? error.message : "");
  };
  const load = async () => {
    await anew();
    complain(null);
  };
  const later = gently(load, complain);
  const stream = new LiveStream({
    after: data.as_of,
    heartbeatS: data.heartbeat_s,
    handlers: {
      ...on,
      heartbeat: () => beats?.(),
      sources: (message) => showSources(message.sources),
      reset: later,
      returned: later,
    },
  });
  startShell({ offset: () => stream.offsetMs, keys, help });
  load().catch(complain);
  return { stream, later };
}
