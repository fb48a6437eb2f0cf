// A metric of a detector's amps over months, with alarms and the calibs that came and went.

import { change } from "./access.js";
import { $, el, getJSON, setText } from "./dom.js";
import { number, quantityOf, seq, taiMs, utcMs } from "./format.js";
import { ask } from "./orders.js";
import { colours, Plot } from "./plot.js";

let camera = null;
let plot = null;
let metrics = [];
const wanted = { metric: null, detector: null, amp: "" };

const idOf = (one) => [one.metric, one.image_type, one.condition, one.pipeline].join("|");
const dayMs = (dayObs) => Date.UTC(Math.floor(dayObs / 10_000), (Math.floor(dayObs / 100) % 100) - 1, dayObs % 100, 12);

export function startTrends(theCamera, { detector }) {
  camera = theCamera;
  wanted.detector = detector;
  plot = new Plot($("#trend"), { name: "Trend", x: { title: "UTC", time: true }, y: { title: "", decimals: 3 }, onPick: (id) => location.assign(`/exposure/${id}`) });
  $("#trend-detector").replaceChildren(...camera.detectors.map((place) => el("option", { value: place.id, selected: place.id === detector }, place.name)));
  $("#trend-detector").addEventListener("change", (event) => showTrend({ detector: Number(event.target.value) }));
  $("#trend-metric").addEventListener("change", (event) => showTrend({ metric: event.target.value }));
  $("#trend-amp").addEventListener("change", (event) => showTrend({ amp: event.target.value }));
  document.addEventListener("themechange", () => showTrend({}));
  load();
}

async function load() {
  try {
    const found = await getJSON("/api/trends/metrics");
    metrics = found.series;
  } catch (error) {
    setText($("#trend-note"), error.status === 404 ? "no trends are kept here" : error.message);
    metrics = [];
  }
  const select = $("#trend-metric");
  select.replaceChildren(...metrics.map((one) => el("option", { value: idOf(one) }, `${quantityOf(one.metric, camera.quantities).title}, ${one.image_type}${one.condition ? ` ${one.condition}` : ""}${one.unit ? ` [${one.unit}]` : ""}`)));
  if (!metrics.length) select.replaceChildren(el("option", {}, "no trend yet"));
  select.disabled = !metrics.length;
  wanted.metric ??= metrics.length ? idOf(metrics.find((one) => /read_noise/.test(one.metric)) ?? metrics[0]) : null;
  if (wanted.metric) select.value = wanted.metric;
  await Promise.all([showTrend({}), showAlarms()]);
}

/** Show another metric, detector or amp; what is not given stays. */
export async function showTrend(change_) {
  if ("detector" in change_ && change_.detector !== wanted.detector) wanted.amp = "";
  Object.assign(wanted, change_);
  if (wanted.detector !== null) $("#trend-detector").value = String(wanted.detector);
  const one = metrics.find((metric) => idOf(metric) === wanted.metric);
  if (!one || wanted.detector === null) {
    plot.show({ series: [], empty: "No trend yet: it begins with the first calibration exposures" });
    return;
  }
  $("#trend-metric").value = wanted.metric;
  const asked = `${wanted.metric} ${wanted.detector}`;
  const query = new URLSearchParams({ metric: one.metric, detector: wanted.detector, image_type: one.image_type, condition: one.condition, pipeline: one.pipeline });
  let found;
  try {
    found = await getJSON(`/api/trends/series?${query}`);
  } catch (error) {
    plot.show({ series: [], empty: error.message });
    return;
  }
  if (asked !== `${wanted.metric} ${wanted.detector}`) return;
  const quantity = quantityOf(one.metric, camera.quantities);
  Object.assign(plot.y, { title: quantity.title, unit: one.unit || quantity.unit, decimals: Math.max(quantity.decimals, 3) });
  plot.name = `${quantity.title} of ${found.detector_name ?? wanted.detector}`;
  draw(found);
}

function draw(found) {
  const hue = colours();
  const amps = [...new Set(found.series.flatMap((one) => Object.keys(one.amps)))].sort();
  const select = $("#trend-amp");
  select.replaceChildren(el("option", { value: "" }, "all amps"), ...amps.filter(Boolean).map((amp) => el("option", { value: amp }, amp)));
  select.value = amps.includes(wanted.amp) ? wanted.amp : "";
  // Where a header told no time, exposures of a day stand side by side in their order.
  const when = (one, at) => (one.times?.[at] ? taiMs(one.times[at]) : dayMs(one.days[at]) + (one.exposures[at] % 100_000) * 40_000);
  const pointsOf = (amp) => found.series.flatMap((one) => (one.amps[amp] ?? []).map((value, at) => (value === null ? null : { x: when(one, at), y: value, pick: one.exposures[at], title: `${amp || "detector"} ${seq(one.exposures[at] % 100_000)}`, tip: [String(one.days[at])] })).filter(Boolean));
  const series = amps.filter((amp) => amp !== select.value).map((amp) => ({ name: amp || "detector", shape: select.value ? "ring" : "dot", colour: select.value ? hue.grey : hue.blue, joined: !select.value, points: pointsOf(amp) }));
  if (select.value) series.push({ name: select.value, shape: "dot", colour: hue.orange, joined: true, points: pointsOf(select.value) });
  const alarms = (found.alarms ?? []).filter((alarm) => !alarm.amp || !select.value || alarm.amp === select.value);
  plot.show({
    series,
    marks: [
      ...(found.calibs ?? []).map((calib) => ({ x: utcMs(calib.valid_from), label: `${calib.kind} v${calib.version}`, colour: hue.green, dashed: true })),
      ...alarms.map((alarm) => ({ x: dayMs(alarm.onset_day), wide: (alarm.onset_error_days ?? 0) * 86_400_000, label: `${alarm.kind} ${alarm.amp ?? ""}`, colour: hue.pink })),
    ],
    empty: "Nothing measured for this detector",
  });
  setText($("#trend-note"), `${found.series.reduce((sum, one) => sum + one.exposures.length, 0)} exposures, ${alarms.length} alarm${alarms.length === 1 ? "" : "s"}`);
  $("#trend-legend").replaceChildren(el("span", {}, el("i", { class: "bar", style: `--hue: ${hue.green}` }), "a calib begins to hold"), el("span", {}, el("i", { class: "bar", style: `--hue: ${hue.pink}` }), "alarm: when it began"));
}

export async function showAlarms() {
  let alarms = [];
  try {
    ({ alarms } = await getJSON("/api/trends/alarms?state=open"));
  } catch (error) {
    if (error.status !== 404) setText($("#n-alarms"), error.message);
  }
  setText($("#n-alarms"), `${alarms.length} open`);
  $("#alarms").replaceChildren(
    el("thead", {}, el("tr", {}, ["Since", "Where", "Metric", "Kind", "Size", "What", ""].map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))),
    el("tbody", {}, alarms.length ? alarms.map((alarm) => el("tr", {}, el("td", {}, String(alarm.onset_day)),
      el("td", {}, alarm.detector === null || alarm.detector === undefined ? alarm.raft || "the camera" : el("button", { type: "button", class: "plain", onclick: () => showTrend({ metric: metrics.map(idOf).find((id) => id.startsWith(`${alarm.metric}|${alarm.image_type}|`)) ?? wanted.metric, detector: alarm.detector, amp: alarm.amp ?? "" }) }, [alarm.detector_name, alarm.amp].filter(Boolean).join(" "))),
      el("td", {}, quantityOf(alarm.metric, camera.quantities).title), el("td", {}, alarm.kind), el("td", { class: "num" }, `${number(alarm.size, 3)} ± ${number(alarm.size_error, 3)}`), el("td", { class: "wrap" }, alarm.text),
      el("td", {}, el("button", { type: "button", "aria-label": `Acknowledge alarm ${alarm.id}`, onclick: async () => {
        const reason = await ask("Acknowledge this alarm?", { needed: true });
        if (reason === null) return;
        await change("POST", `/api/trends/alarms/${alarm.id}/acknowledge`, { reason }).catch((error) => setText($("#n-alarms"), error.message));
        await showAlarms();
      } }, "Acknowledge…")))) : el("tr", {}, el("td", { colspan: 7, class: "dim" }, "No open alarm"))));
}
