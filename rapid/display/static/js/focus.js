// Focus and wavefront: sweeps with their best focus, donut pairs, Zernikes corner by corner, the night's history.

import { $, boot, el, getJSON, setText } from "./dom.js";
import { clock, DASH, day, number, seq, taiMs } from "./format.js";
import { startLive } from "./live.js";
import { colours, Plot } from "./plot.js";
import { productUrl } from "./picture.js";

const data = boot();
const followsNow = !/\d{8}/.test(location.pathname);
let dayObs = data.day_obs;
let night = { sweeps: [], pairs: [], wavefronts: [], history: [] };
let [sweepAt, frontAt] = [new URLSearchParams(location.search).get("sweep"), Number(new URLSearchParams(location.search).get("wavefront")) || null];

const visit = (id) => location.assign(`/exposure/${id}`);
const sweepPlot = new Plot($("#sweep"), { name: "Image size through focus", x: { title: "Focus position", unit: "mm", decimals: 3 }, y: { title: "FWHM", unit: "″", decimals: 2 }, onPick: visit });
const shapePlot = new Plot($("#shape"), { name: "Ellipticity through focus", x: { title: "Focus position", unit: "mm", decimals: 3 }, y: { title: "Ellipticity", unit: "", decimals: 4 }, onPick: visit, zeroLine: true });
const historyPlot = new Plot($("#history"), { name: "Focus over the night", x: { title: "UTC", time: true }, y: { title: "Best focus against command", unit: "µm", decimals: 1 }, onPick: visit, zeroLine: true });
const nollTicks = () => wavefront?.noll.map((j) => ({ at: j, text: String(j) })).filter((_, at) => wavefront.noll.length <= 14 || at % 2 === 0) ?? [];
const zernikePlot = new Plot($("#zernikes"), { name: "Zernikes", x: { title: "Noll index", decimals: 0, ticks: nollTicks }, y: { title: "Beyond the perfect telescope", unit: "µm", decimals: 3 }, zeroLine: true });
const aberrationPlot = new Plot($("#aberrations"), { name: "Aberrations over the night", x: { title: "UTC", time: true }, y: { title: "Wavefront", unit: "µm", decimals: 3 }, onPick: visit, zeroLine: true });
let wavefront = null;

const withError = (value, error, decimals, unit) => (value === null || value === undefined ? DASH : `${number(value, decimals)}${error === null || error === undefined ? "" : ` ± ${number(error, decimals)}`} ${unit}`);
const fact = (title, value, note, state) => el("div", { "data-state": state ?? null }, el("h2", {}, title), el("b", {}, value), el("span", { class: "dim" }, note ?? ""));

function choose(select, entries, chosen, label) {
  select.replaceChildren(...entries.map((one) => el("option", { value: one.id, selected: String(one.id) === String(chosen) }, one.text)));
  select.disabled = !entries.length;
  if (!entries.length) select.replaceChildren(el("option", {}, label));
}

function showSweep() {
  const sweep = night.sweeps.find((one) => one.group_id === sweepAt) ?? night.sweeps[0];
  choose($("#sweep-choice"), night.sweeps.map((one) => ({ id: one.group_id, text: `${seq(one.points[0].seq_num)}–${seq(one.points.at(-1).seq_num)} ${one.physical_filter ?? ""}` })), sweep?.group_id, "no sweep");
  $("#sweep-plot").hidden = !sweep?.plot;
  if (sweep?.plot) $("#sweep-plot").href = productUrl(sweep.plot);
  const hue = colours();
  if (!sweep) {
    const empty = "No focus sweep in this night";
    sweepPlot.show({ series: [], empty });
    shapePlot.show({ series: [], empty });
    $("#sweep-facts").replaceChildren();
    return;
  }
  const points = sweep.points.map((point) => ({ ...point, x: point.z_mm, pick: point.exposure_id, title: `Seq ${seq(point.seq_num)}`, tip: [`${point.n_finished} of ${point.n_expected} detectors`, ...(point.fwhm_arcsec !== null && sweep.curve.length && !point.is_used ? ["outlier: the curve goes without it"] : [])] }));
  const best = sweep.best_focus_mm;
  sweepPlot.show({
    series: [
      { name: "curve", shape: "line", colour: hue.grey, points: sweep.curve.map(([x, y]) => ({ x, y })) },
      { name: "FWHM", shape: "dot", colour: hue.blue, points: points.filter((p) => p.fwhm_arcsec !== null && p.x !== null).map((p) => ({ ...p, y: p.fwhm_arcsec, e: p.fwhm_scatter_arcsec, hollow: sweep.curve.length > 0 && !p.is_used })) },
    ],
    marks: best === null ? [] : [{ x: best, wide: sweep.best_focus_error_mm, colour: hue.orange, inside: true, label: "best" }],
    empty: "No point measured yet",
  });
  shapePlot.show({
    series: [["e1", "dot", hue.green], ["e2", "diamond", hue.pink]].map(([key, shape, colour]) => ({ name: key, shape, colour, joined: true, points: points.filter((p) => p[key] !== null && p.x !== null).sort((a, b) => a.x - b.x).map((p) => ({ ...p, y: p[key], title: `${key}, seq ${seq(p.seq_num)}` })) })),
    marks: best === null ? [] : [{ x: best, colour: hue.orange, dashed: true }],
    empty: "No ellipticity measured yet",
  });
  const astigmatism = sweep.astigmatism;
  const slope = (at) => (astigmatism ? withError(astigmatism.slope_arcsec2_per_mm[at], astigmatism.slope_error_arcsec2_per_mm[at], 3, "″²/mm") : DASH);
  $("#sweep-facts").replaceChildren(
    fact("Best focus", best === null ? DASH : withError(1000 * best, sweep.best_focus_error_mm === null ? null : 1000 * sweep.best_focus_error_mm, 1, "µm"), sweep.is_outside_sweep ? "▲ outside the sweep: believe its direction only" : sweep.note ?? "against command", sweep.is_outside_sweep ? "warn" : null),
    fact("Best FWHM", withError(sweep.best_fwhm_arcsec, null, 2, "″"), `${sweep.points.length} exposures`),
    fact("Astigmatism 0/90°", slope(0), "flip of e1 through focus"),
    fact("Astigmatism 45°", slope(1), "flip of e2 through focus"));
}

function showPairs() {
  const rows = night.pairs.flatMap((pair) => {
    const sides = [...pair.sides].sort((a, b) => (a.z_mm ?? 0) - (b.z_mm ?? 0));
    return sides.map((side, at) => el("tr", { class: at ? "" : "first" },
      el("td", {}, el("a", { href: `/exposure/${side.exposure_id}` }, seq(side.seq_num))), el("td", {}, clock(taiMs(side.begin))), el("td", {}, at ? "" : pair.physical_filter ?? DASH),
      el("td", { class: "num" }, number(side.z_mm, 2)), el("td", { class: "num" }, number(side.diameter_px, 1)),
      el("td", { class: "num" }, withError(side.defocus_residual_um, side.defocus_residual_scatter_um, 1, "")), el("td", { class: "num" }, number(side.n_donuts, 0)),
      el("td", { class: "num" }, at ? "" : el("b", {}, number(pair.focus_offset_um, 1))), el("td", {}, at ? "" : pair.is_complete ? "" : el("span", { class: "state", "data-state": "partial" }, "one side only"))));
  });
  const heads = [["Seq"], ["Begin UTC"], ["Filter"], ["Moved [mm]", 1], ["Diameter [px]", 1], ["Defocus − command [µm]", 1], ["Donuts / CCD", 1], ["Focus offset [µm]", 1], [""]];
  $("#pairs").replaceChildren(
    el("thead", {}, el("tr", {}, heads.map(([title, isNumber]) => (title ? el("th", { scope: "col", class: isNumber ? "num" : "" }, title) : el("td"))))),
    el("tbody", {}, rows.length ? rows : el("tr", {}, el("td", { colspan: heads.length, class: "dim" }, "No donuts in this night"))));
  setText($("#n-pairs"), String(night.pairs.length));
}

async function showWavefront() {
  const fronts = night.wavefronts;
  const chosen = fronts.find((one) => one.exposure_id === frontAt) ?? fronts.find((one) => one.n_sites) ?? fronts[0];
  choose($("#front-choice"), fronts.map((one) => ({ id: one.exposure_id, text: `${seq(one.seq_num)} ${one.physical_filter ?? ""} ${one.pipeline}` })), chosen?.exposure_id, "no wavefront");
  wavefront = chosen ? await getJSON(`/api/exposures/${chosen.exposure_id}/wavefront`) : null;
  const hue = colours();
  const front = wavefront;
  $("#front-plots").replaceChildren(...Object.entries(front?.plots ?? {}).map(([kind, key]) => el("a", { href: productUrl(key), target: "_blank" }, kind === "wavefront_plot" ? "fit ⤢" : "donuts ⤢")), ...(chosen ? [el("a", { href: `/exposure/${chosen.exposure_id}` }, "exposure")] : []));
  if (!front) {
    zernikePlot.show({ series: [], empty: "No joint wavefront in this night" });
    $("#front-facts").replaceChildren();
    $("#sites").replaceChildren();
    return;
  }
  const shapes = [["dot", hue.blue], ["square", hue.orange], ["diamond", hue.green], ["ring", hue.pink]];
  const few = front.sites.length <= 4;
  const spread = few ? 0.1 : 0;
  const perSite = front.sites.map((site, at) => ({
    name: site.name, shape: few ? shapes[at][0] : "ring", colour: few ? shapes[at][1] : hue.grey,
    points: front.noll.map((j, k) => ({ x: j + (few ? (at - 1.5) * spread : 0), y: site.zernikes_um[k], e: site.errors_um[k], title: `${site.name} Z${j}` })),
  }));
  zernikePlot.show({
    series: [...perSite, { name: "global fit", shape: few ? "ring" : "dot", colour: few ? hue.grey : hue.blue, joined: true, points: front.noll.map((j, k) => ({ x: j, y: front.zernikes_um[k], e: front.errors_um[k], title: `global fit Z${j}` })) }],
    empty: front.note ?? "No Zernikes",
  });
  $("#front-legend").replaceChildren(...(few ? front.sites.map((site, at) => el("span", {}, el("i", { class: shapes[at][0], style: `--hue: ${shapes[at][1]}` }), site.name)) : [el("span", {}, el("i", { class: "ring", style: `--hue: ${hue.grey}` }), `${front.sites.length} detectors`)]),
    el("span", {}, el("i", { class: few ? "ring" : "dot", style: `--hue: ${few ? hue.grey : hue.blue}` }), "global fit, centre of the field"));
  $("#front-facts").replaceChildren(
    fact("Focus offset", withError(front.focus_offset_um, front.focus_offset_error_um, 1, "µm"), "from Z4 over the field"),
    fact("Aberrations", withError(front.aberration_fwhm_arcsec, null, 2, "″"), "added to the FWHM in quadrature"),
    fact("Donut pairs", front.n_pairs === null ? DASH : `${front.n_pairs}/${front.n_pairs_possible ?? DASH}`, front.partner_id ? `with ${seq(front.partner_id % 100000)}` : "both halves of the corner sensors"),
    ...(front.note ? [fact("Note", "▲", front.note, "warn")] : []));
  showSites(front);
}

function showSites(front) {
  const shown = front.noll.map((j, k) => [j, k]).filter(([j]) => j <= 11);
  $("#sites").replaceChildren(
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Place"), el("th", { scope: "col", class: "num" }, "Field [°]"), shown.map(([j]) => el("th", { scope: "col", class: "num" }, `Z${j} [µm]`)), ["Adds [″]", "Seeing [″]", "χ²/dof", "Pairs"].map((title) => el("th", { scope: "col", class: "num" }, title)))),
    el("tbody", {},
      el("tr", { class: "first" }, el("th", { scope: "row" }, "Global fit"), el("td", { class: "num" }, "0, 0"), shown.map(([, k]) => el("td", { class: "num" }, withError(front.zernikes_um[k], front.errors_um[k], 3, ""))), el("td", { class: "num" }, number(front.aberration_fwhm_arcsec, 2)), el("td"), el("td"), el("td", { class: "num" }, number(front.n_pairs, 0))),
      front.sites.map((site) => el("tr", {}, el("th", { scope: "row" }, site.name), el("td", { class: "num" }, `${number(site.x_deg, 2)}, ${number(site.y_deg, 2)}`), shown.map(([, k]) => el("td", { class: "num" }, withError(site.zernikes_um[k], site.errors_um[k], 3, ""))),
        el("td", { class: "num" }, number(site.aberration_fwhm_arcsec, 2)), el("td", { class: "num" }, number(site.blur_arcsec, 2)), el("td", { class: "num" }, number(site.chi2_per_dof, 2)), el("td", { class: "num" }, number(site.n_pairs, 0))))));
}

function showHistory() {
  const hue = colours();
  const kinds = [["sweep", "dot", hue.blue, "focus sweep"], ["pair", "diamond", hue.orange, "donut pair"], ["wavefront", "square", hue.green, "wavefront"]];
  const at = (point) => taiMs(point.begin);
  historyPlot.show({
    series: kinds.map(([kind, shape, colour, name]) => ({ name, shape, colour, points: night.history.filter((point) => point.kind === kind).map((point) => ({ x: at(point), y: point.focus_offset_um, e: point.error_um, pick: point.exposure_id, title: `${name}, seq ${seq(point.seq_num)}` })) })),
    empty: "No focus measured in this night",
  });
  $("#history-legend").replaceChildren(...kinds.map(([, shape, colour, name]) => el("span", {}, el("i", { class: shape, style: `--hue: ${colour}` }), name)));
  const terms = [[5, "Z5", "dot", hue.blue], [6, "Z6", "diamond", hue.orange], [7, "Z7", "square", hue.green], [8, "Z8", "ring", hue.pink], [11, "Z11", "dot", hue.grey]];
  const fronts = [...night.wavefronts].reverse();
  aberrationPlot.show({
    series: terms.map(([j, name, shape, colour]) => ({ name, shape, colour, joined: true, points: fronts.filter((one) => one.noll.includes(j)).map((one) => ({ x: at(one), y: one.zernikes_um[one.noll.indexOf(j)], e: one.errors_um[one.noll.indexOf(j)], pick: one.exposure_id, title: `${name}, seq ${seq(one.seq_num)}` })) })),
    empty: "No joint wavefront in this night",
  });
  $("#aberration-legend").replaceChildren(...terms.map(([, name, shape, colour]) => el("span", {}, el("i", { class: shape, style: `--hue: ${colour}` }), name)));
}

function showAll() {
  showSweep();
  showPairs();
  showHistory();
  return showWavefront();
}

async function load() {
  if (followsNow) {
    const now = await getJSON("/api/now");
    dayObs = now.day_obs;
    setText($("#day"), day(dayObs));
  }
  if (dayObs) night = await getJSON(`/api/focus/${dayObs}`);
  await showAll();
}

function remember() {
  const query = new URLSearchParams();
  if (sweepAt) query.set("sweep", sweepAt);
  if (frontAt) query.set("wavefront", frontAt);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
}

$("#sweep-choice").addEventListener("change", (event) => {
  sweepAt = event.target.value;
  remember();
  showSweep();
});
$("#front-choice").addEventListener("change", (event) => {
  frontAt = Number(event.target.value);
  remember();
  showWavefront();
});
document.addEventListener("themechange", () => showAll());
const live = startLive({
  anew: load,
  on: {
    exposures: (message) => {
      // Only what can change this page: a summary of a focus or donut exposure, or with a wavefront.
      const ours = message.exposures.some((one) => one.products && (["focus", "cwfs"].includes(one.row.image_type) || one.row.pipelines.some((name) => name.startsWith("wavefront"))));
      if (ours) live.later();
    },
  },
});
