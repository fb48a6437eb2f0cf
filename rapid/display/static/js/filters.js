// What may be typed into a column's filter.

/** A test for a column's values; null if the text cannot be understood, which filters nothing. */
export function matcher(column, text) {
  const wanted = text.trim();
  if (!wanted) return () => true;
  if (wanted === "-" || wanted === "—") return (value) => value === null || value === undefined;
  return column.isNumber ? numeric(wanted) : textual(wanted);
}

function numeric(text) {
  const range = text.match(/^(-?[\d.]*)\s*\.\.\s*(-?[\d.]*)$/);
  if (range && (range[1] || range[2])) {
    const [low, high] = [range[1] ? Number(range[1]) : -Infinity, range[2] ? Number(range[2]) : Infinity];
    return Number.isNaN(low + high) && !(low === -Infinity && high === Infinity) ? null : (value) => typeof value === "number" && value >= low && value <= high;
  }
  const bound = text.match(/^(<=|>=|<|>|=|!=)?\s*(-?\d*\.?\d+(?:e-?\d+)?)$/i);
  if (!bound) return null;
  const limit = Number(bound[2]);
  const tests = {
    "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit, ">=": (v) => v >= limit, "!=": (v) => v !== limit, "=": (v) => v === limit,
  };
  // A number alone means what is shown as that number: 0.8 finds 0.81 no more than 0.84 does, but 0.8012 rounds to it.
  const decimals = (bound[2].split(".")[1] ?? "").length;
  const test = tests[bound[1]] ?? ((v) => Math.abs(v - limit) <= 0.5 * 10 ** -decimals);
  return (value) => typeof value === "number" && test(value);
}

function textual(text) {
  const not = text.startsWith("!");
  const parts = (not ? text.slice(1) : text).toLowerCase().split("|").map((part) => part.trim()).filter(Boolean);
  if (!parts.length) return null;
  return (value) => parts.some((part) => String(value ?? "").toLowerCase().includes(part)) !== not;
}
