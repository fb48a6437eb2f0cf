// The few things every page does with the document.

export const $ = (selector, root = document) => root.querySelector(selector);

/** Make an element: el("td", {class: "num"}, "4.1"). Text is always text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** What the server put into the page for its first paint. */
export function boot() {
  return JSON.parse($("#boot").textContent);
}

export function setText(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

/** Fit a canvas to its box at the screen's resolution; returns its context in CSS pixels. */
export function fit(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Call `draw` at most once a frame however often the result is called, and whenever the canvas changes size. */
export function paintable(canvas, draw) {
  let asked = false;
  const ask = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      if (canvas.clientWidth) draw();
    });
  };
  new ResizeObserver(ask).observe(canvas);
  document.addEventListener("themechange", ask);
  return ask;
}

/** Colours of the current theme, for canvases. */
export function theme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ground: get("ground"), panel: get("panel"), raised: get("raised"), line: get("line"), text: get("text"), dim: get("dim"),
    accent: get("accent"), good: get("good"), warn: get("warn"), bad: get("bad"), family: style.fontFamily,
  };
}

export class RequestError extends Error {
  constructor(status, answer) {
    super(answer?.error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = answer?.error?.code;
    this.field = answer?.error?.field;
  }
}

export async function getJSON(url, { timeoutMs = 20_000 } = {}) {
  const response = await fetch(url, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(timeoutMs) });
  if (!response.ok) throw new RequestError(response.status, await response.json().catch(() => null));
  return response.json();
}

let tipNode = null;

/** Show a small panel beside the pointer; `content` is nodes. */
export function showTip(event, ...content) {
  tipNode ??= document.body.appendChild(el("div", { class: "tip", role: "tooltip" }));
  tipNode.hidden = false;
  tipNode.replaceChildren(...content);
  const box = tipNode.getBoundingClientRect();
  const x = event.clientX + 14 + box.width > innerWidth ? event.clientX - box.width - 10 : event.clientX + 14;
  const y = Math.min(event.clientY + 14, innerHeight - box.height - 8);
  tipNode.style.left = `${Math.max(4, x)}px`;
  tipNode.style.top = `${Math.max(4, y)}px`;
}

export function hideTip() {
  if (tipNode) tipNode.hidden = true;
}
