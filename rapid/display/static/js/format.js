// Numbers, times and units as an observer reads them. A missing value is an em dash, never 0 or NaN.

export const DASH = "—";
const TAI_MINUS_UTC_MS = 37_000; // since 2017; the raws' times are TAI

/** A number with fixed decimals, so that a column of them lines up. */
export function number(value, decimals = 2) {
  if (value === null || value === undefined || value === "") return DASH;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return DASH;
  if (Math.abs(value) >= 1e7) return value.toPrecision(4).replace("-", "−");
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

const ENDINGS = [
  ["_arcsec_per_deg2", "″/deg²"], ["_arcsec_per_deg", "″/deg"], ["_mag_per_deg", "mag/deg"], ["_mag_arcsec2", "mag/″²"], ["_mag", "mag"], ["_px2", "px²"],
  ["_arcsec", "″"], ["_electron_per_adu", "e⁻/ADU"], ["_e_per_s", "e⁻/s"], ["_electron", "e⁻"], ["_adu", "ADU"], ["_um", "µm"], ["_px", "px"], ["_deg", "°"],
  ["_mm", "mm"], ["_nm", "nm"], ["_mb", "MB"], ["_ms", "ms"], ["_percent", "%"], ["_s", "s"], ["_e", "e⁻"], ["_c", "°C"],
];

/** Name, unit and decimals of a metric that the catalogue does not list, read from its key. */
export function quantityOf(key, listed) {
  const base = key.replace(/_(median|mean)$/, "");
  const known = listed?.find((quantity) => quantity.key === key) ?? listed?.find((quantity) => quantity.key === base);
  if (known) return known;
  let title = base;
  let unit = "";
  for (const [ending, symbol] of ENDINGS) {
    if (base.endsWith(ending) && base !== ending.slice(1) && !/^(psf|e)_e$/.test(base)) {
      title = base.slice(0, -ending.length);
      unit = symbol;
      break;
    }
  }
  const counted = /^n_/.test(base);
  return {
    key, unit, title: title.replace(/^n_/, "").replaceAll("_", " "), decimals: counted ? 0 : 3, scale: "sequential", nominal: null,
  };
}

/** Milliseconds since the epoch of an ISO time in UTC; NaN for none. */
export function utcMs(iso) {
  if (!iso) return NaN;
  return Date.parse(/Z$|[+-]\d\d:\d\d$/.test(iso) ? iso : `${iso}Z`);
}

/** Milliseconds since the epoch, UTC, of an ISO time in TAI. */
export function taiMs(iso) {
  return utcMs(iso) - TAI_MINUS_UTC_MS;
}

export function clock(ms) {
  return Number.isFinite(ms) ? new Date(ms).toISOString().slice(11, 19) : DASH;
}

export function span(ms) {
  if (!Number.isFinite(ms)) return DASH;
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d`;
}

export function day(dayObs) {
  const text = String(dayObs ?? "");
  return text.length === 8 ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : text || DASH;
}

export function seq(seqNum) {
  return String(seqNum).padStart(6, "0");
}

/** What an exposure was not to show now, in few words: switched off, or left for later; nothing if nothing is. */
export function excludedWords({ n_excluded: detectors, n_excluded_amps: amps, n_later: later }) {
  const count = (n, word) => (n ? `${n} ${word}${n === 1 ? "" : "s"}` : "");
  const off = amps ? `${[count(detectors, "detector"), count(amps, "amp")].filter(Boolean).join(" and ")} excluded` : detectors ? `${detectors} excluded` : "";
  return [off, later ? `${later} left for later` : ""].filter(Boolean).join(", ");
}

/** The first of several metrics that has been measured. */
export function firstOf(metrics, keys) {
  for (const key of keys) if (typeof metrics?.[key] === "number") return metrics[key];
  return null;
}
