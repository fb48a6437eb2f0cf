// The columns a night's table can have: facts of the exposure first, then whatever was measured.

import { clock, DASH, excludedWords, number, seq, taiMs, utcMs } from "./format.js";

const plain = (key, title, { unit = "", decimals = null, value = (row) => row[key], text = null } = {}) => ({
  key, title, unit, isNumber: decimals !== null, isMetric: false, value, text: text ?? ((found) => (decimals === null ? (found ?? DASH) : number(found, decimals))),
});

const FACTS = [
  plain("seq_num", "Seq", { decimals: 0, text: (value) => seq(value) }),
  plain("begin", "Begin", { unit: "UTC", text: (value, row) => (row.begin ? clock(taiMs(value)) : DASH) }),
  plain("image_type", "Type"),
  plain("physical_filter", "Filter"),
  plain("object_name", "Object"),
  plain("program", "Program"),
  plain("exposure_time_s", "Exposure", { unit: "s", decimals: 1 }),
  plain("airmass", "Airmass", { decimals: 2 }),
  plain("azimuth_deg", "Azimuth", { unit: "°", decimals: 1 }),
  plain("elevation_deg", "Elevation", { unit: "°", decimals: 1 }),
  plain("state", "State", { text: (value, row) => [row.state === "complete" ? value : `${value} ${row.n_finished}/${row.n_expected}`, excludedWords(row)].filter(Boolean).join(", ") }),
  plain("flag", "Flag"), // of the night log: the page puts it into its rows
  plain("n_finished", "Detectors", { decimals: 0 }),
  plain("n_failed", "Failed", { decimals: 0 }),
  plain("n_excluded", "Excluded", { decimals: 0 }),
  plain("n_later", "Left for later", { decimals: 0 }),
  plain("n_excluded_amps", "Excluded amps", { decimals: 0 }),
  plain("pipeline", "Pipeline"),
  plain("version", "Version", { decimals: 0, text: (value) => (value ? String(value) : DASH) }),
  plain("took_s", "Took", {
    unit: "s", decimals: 1,
    value: (row) => (row.version && row.first_seen && row.updated !== row.first_seen ? (utcMs(row.updated) - utcMs(row.first_seen)) / 1000 : null),
  }),
];

export const CHOSEN_AT_FIRST = [
  "seq_num", "begin", "image_type", "physical_filter", "object_name", "exposure_time_s", "airmass", "state", "flag",
  "psf_fwhm_arcsec_median", "psf_e_median", "n_stars_median", "sky_level_e_median", "mean_e_median", "read_noise_median_electron_median", "took_s",
];

export function columnsOf(rows, quantity) {
  const keys = new Set();
  for (const row of rows) for (const key of Object.keys(row.metrics)) keys.add(key);
  const metrics = [...keys].sort().map((key) => {
    const known = quantity(key);
    const kind = key.match(/_(scatter|total)$/)?.[1];
    return {
      key, title: kind && !known.title.toLowerCase().includes(kind) ? `${known.title} ${kind}` : known.title,
      unit: known.unit, isNumber: true, isMetric: true,
      value: (row) => row.metrics[key] ?? null, text: (value) => number(value, known.decimals),
    };
  });
  return [...FACTS, ...metrics];
}
