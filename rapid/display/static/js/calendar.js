// The calendar of nights: which have data, and how many exposures.

import { el } from "./dom.js";

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

export function drawCalendar(box, nights, shown) {
  const months = new Map();
  for (const night of nights) {
    const month = Math.floor(night.day_obs / 100);
    months.set(month, [...(months.get(month) ?? []), night]);
  }
  const shownMonth = Math.floor(shown / 100);
  if (!months.has(shownMonth)) months.set(shownMonth, []);
  const sorted = [...months.keys()].sort((a, b) => b - a);
  box.replaceChildren(el("header", {}, el("h2", {}, "Nights")), ...sorted.map((month) => drawMonth(month, months.get(month), shown)));
  box.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

function drawMonth(month, nights, shown) {
  const [year, at] = [Math.floor(month / 100), (month % 100) - 1];
  const counts = new Map(nights.map((night) => [night.day_obs % 100, night.n_exposures]));
  const first = (new Date(Date.UTC(year, at, 1)).getUTCDay() + 6) % 7;
  const days = new Date(Date.UTC(year, at + 1, 0)).getUTCDate();
  const cells = [...Array(first).fill(null), ...Array.from({ length: days }, (_, day) => day + 1)];
  const weeks = [];
  for (let start = 0; start < cells.length; start += 7) weeks.push(cells.slice(start, start + 7));
  return el("table", { "aria-label": `${MONTHS[at]} ${year}` },
    el("caption", {}, `${MONTHS[at]} ${year}`),
    el("tbody", {}, weeks.map((week) => el("tr", {}, week.map((day) => {
      if (!day) return el("td");
      if (!counts.has(day)) return el("td", {}, String(day));
      const dayObs = month * 100 + day;
      return el("td", {}, el("a", {
        href: `/night/${dayObs}`, "aria-current": dayObs === shown ? "date" : null, title: `${counts.get(day)} exposures`,
      }, String(day), el("small", {}, String(counts.get(day)))));
    })))));
}
