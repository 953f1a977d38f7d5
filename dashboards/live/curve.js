// Portfolio value over time: the line, capital at work dashed, minutes without a measurement as
// holes, a crosshair with values for pointer and arrow keys. Drawn as SVG at the size it has.
import { direction, drawn, make, number, put, signed, time } from "./page.js";

const MINUTE_MS = 60000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
export const RANGES = new Map([
  ["1h", HOUR_MS], ["6h", 6 * HOUR_MS], ["1d", DAY_MS], ["7d", 7 * DAY_MS], ["all", Infinity],
]);
const RESOLUTIONS = [
  ["1m", MINUTE_MS], ["5m", 5 * MINUTE_MS], ["15m", 15 * MINUTE_MS], ["1h", HOUR_MS],
  ["4h", 4 * HOUR_MS], ["1d", DAY_MS],
];
const POINTS_MAX = 720;
const HEIGHT = 300;
const HEIGHT_PHONE = 220;
const EDGE = { top: 12, right: 14, bottom: 26 };
const CAPITAL_SPANS_MAX = 4; // farther away than so many heights of the curve it would flatten it
const TICK_MS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 480, 720, 1440, 2880, 10080, 43200].map(
  (minutes) => minutes * MINUTE_MS,
);

/** The finest resolution that shows `length` ms in at most POINTS_MAX points. */
export function resolutionFor(lengthMs) {
  return RESOLUTIONS.find(([, step]) => lengthMs / step <= POINTS_MAX) || RESOLUTIONS.at(-1);
}

/** Round values inside [low, high]: 1, 2 or 5 times a power of ten apart. */
export function roundTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((size) => size >= raw);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) {
    ticks.push(value);
  }
  return { ticks, places: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** Stretches of the curve without holes: neighbours are at most two steps apart. */
export function stretches(points, stepMs) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1);
    if (last && point.at - last.at(-1).at <= 2 * stepMs) last.push(point);
    else found.push([point]);
  }
  return found;
}

const path = (points, x, y) => points
  .map((point, index) => `${index ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point.value).toFixed(1)}`)
  .join("");

export class Curve {
  constructor(box, legend) {
    this.box = box;
    this.legend = legend;
    this.points = []; // {at, value, capital}
    this.gaps = []; // {from, to, cause}
    this.stepMs = MINUTE_MS;
    this.startMs = null;
    this.said = "";
    this.chosen = null;
    this.tip = make("div", { class: "tip", role: "status", hidden: true });
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", "Portfolio value over time; arrow keys read values");
    this.box.addEventListener("pointermove", (event) => this.point(event.offsetX, event));
    this.box.addEventListener("pointerleave", () => this.choose(null));
    this.box.addEventListener("blur", () => this.choose(null));
    this.box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  /** New data, or none with the reason in words. `startMs`: where the axis begins. */
  show(points, stepMs, startMs, said = "") {
    Object.assign(this, { points, stepMs, startMs, said, chosen: null });
    this.draw();
  }

  showGaps(gaps) {
    this.gaps = gaps;
    this.draw();
  }

  /** A minute that has just been measured. */
  add(point, startMs) {
    const last = this.points.at(-1);
    if (last && point.at <= last.at) return;
    const bucket = (at) => Math.ceil(at / this.stepMs);
    if (last && this.stepMs > MINUTE_MS && bucket(last.at) === bucket(point.at)) this.points.pop();
    this.points.push(point);
    this.startMs = startMs;
    this.points = this.points.filter((one) => one.at >= startMs);
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    if (!width) return;
    const height = width < 520 ? HEIGHT_PHONE : HEIGHT;
    this.tip.hidden = true;
    if (!this.points.length) {
      this.box.replaceChildren(make("p", { class: "nothing", text: this.said || "no minute yet" }));
      put(this.legend, "");
      return;
    }
    const scale = this.scale(width, height);
    const art = drawn("svg", {
      width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": this.summary(),
    });
    art.append(definitions(), ...this.grid(scale), ...this.holes(scale));
    for (const part of stretches(this.points, this.stepMs)) {
      const base = height - EDGE.bottom;
      if (part.length === 1) {
        art.append(drawn("circle", {
          class: "lone", cx: scale.x(part[0].at), cy: scale.y(part[0].value), r: 2,
        }));
        continue;
      }
      const line = path(part, scale.x, scale.y);
      const from = scale.x(part[0].at).toFixed(1);
      const to = scale.x(part.at(-1).at).toFixed(1);
      art.append(
        drawn("path", { class: "area", d: `${line}L${to} ${base}L${from} ${base}Z` }),
        drawn("path", { class: "line", d: line }),
      );
    }
    art.append(...this.capital(scale));
    this.cross = drawn("g", { class: "cross", visibility: "hidden" },
      drawn("line", { y1: EDGE.top, y2: height - EDGE.bottom }), drawn("circle", { r: 4 }));
    art.append(this.cross);
    this.drawnScale = scale;
    this.box.replaceChildren(art, this.tip);
    this.explain(scale);
    if (this.chosen !== null) this.choose(this.chosen);
  }

  scale(width, height) {
    const values = this.points.map((point) => point.value);
    let low = Math.min(...values);
    let high = Math.max(...values);
    const span = high - low || Math.abs(high) * 0.001 || 1;
    const capital = this.points.map((point) => point.capital).filter(Number.isFinite);
    const reach = CAPITAL_SPANS_MAX * span;
    const near = capital.filter((value) => value > low - reach && value < high + reach);
    low = Math.min(low, ...near);
    high = Math.max(high, ...near);
    const room = (high - low || span) * 0.08;
    [low, high] = [low - room, high + room];
    const { ticks, places } = roundTicks(low, high, height < HEIGHT ? 4 : 6);
    const left = 14 + 7.2 * Math.max(...ticks.map((value) => number(value, places).length));
    const first = Math.min(this.startMs ?? this.points[0].at, this.points[0].at);
    const last = Math.max(this.points.at(-1).at, first + this.stepMs);
    const inner = { width: width - left - EDGE.right, height: height - EDGE.top - EDGE.bottom };
    return {
      width, height, left, ticks, places, first, last, capitalShown: near.length > 0,
      x: (at) => left + ((at - first) / (last - first)) * inner.width,
      y: (value) => EDGE.top + (1 - (value - low) / (high - low)) * inner.height,
      at: (x) => first + ((x - left) / inner.width) * (last - first),
    };
  }

  grid(scale) {
    const lines = scale.ticks.flatMap((value) => {
      const y = scale.y(value).toFixed(1);
      return [
        drawn("line", { class: "grid", x1: scale.left, x2: scale.width - EDGE.right, y1: y, y2: y }),
        drawn("text", { x: scale.left - 8, y, dy: "0.32em", "text-anchor": "end" },
          number(value, scale.places)),
      ];
    });
    const length = scale.last - scale.first;
    const most = Math.max(2, Math.floor((scale.width - scale.left) / (scale.width < 520 ? 80 : 110)));
    const step = TICK_MS.find((size) => length / size <= most) || TICK_MS.at(-1);
    const style = step >= DAY_MS ? "day" : "minute";
    let day = "";
    for (let at = Math.ceil(scale.first / step) * step; at <= scale.last; at += step) {
      const x = scale.x(at);
      const itsDay = time(new Date(at), "day");
      const isNew = style === "minute" && length > DAY_MS / 2 && day && itsDay !== day;
      day = itsDay;
      lines.push(drawn("text", {
        x: x.toFixed(1), y: scale.height - 8,
        "text-anchor": x > scale.width - 40 ? "end" : x < scale.left + 24 ? "start" : "middle",
      }, isNew ? itsDay : time(new Date(at), style)));
    }
    return lines;
  }

  holes(scale) {
    const parts = stretches(this.points, this.stepMs);
    const found = parts.slice(1).map((part, index) => [parts[index].at(-1).at, part[0].at]);
    return found.map(([from, to]) => drawn("rect", {
      class: "hole", x: scale.x(from).toFixed(1), y: EDGE.top,
      width: Math.max(1, scale.x(to) - scale.x(from)).toFixed(1),
      height: scale.height - EDGE.top - EDGE.bottom,
    }, drawn("title", {}, `no measurement ${time(new Date(from))} to ${time(new Date(to))}`)));
  }

  capital(scale) {
    const known = this.points.filter((point) => Number.isFinite(point.capital));
    if (!scale.capitalShown || !known.length) return [];
    let line = "";
    for (const point of known) {
      const y = scale.y(point.capital).toFixed(1);
      line += line ? `H${scale.x(point.at).toFixed(1)}V${y}` : `M${scale.x(point.at).toFixed(1)} ${y}`;
    }
    return [drawn("path", { class: "capital", d: line })];
  }

  explain(scale) {
    const capital = this.points.at(-1).capital;
    const at = scale.capitalShown ? "" : " (outside of what is drawn)";
    this.legend.replaceChildren(
      make("span", { class: "key line-key" }), "portfolio value ",
      make("span", { class: "key capital-key" }),
      `capital at work ${number(capital, 2)}${Number.isFinite(capital) ? at : ""}`,
      ...(stretches(this.points, this.stepMs).length > 1
        ? [" ", make("span", { class: "key hole-key" }), "not measured"] : []),
    );
  }

  summary() {
    const first = this.points[0];
    const last = this.points.at(-1);
    return `Portfolio value from ${number(first.value)} at ${time(new Date(first.at))} to `
      + `${number(last.value)} at ${time(new Date(last.at))}`;
  }

  // --- the crosshair ---------------------------------------------------------------------------

  point(_x, event) {
    if (!this.drawnScale || !this.points.length) return;
    const at = this.drawnScale.at(event.clientX - this.box.getBoundingClientRect().left);
    let best = 0;
    this.points.forEach((point, index) => {
      if (Math.abs(point.at - at) < Math.abs(this.points[best].at - at)) best = index;
    });
    const hole = this.gapAt(at);
    this.choose(best, hole && Math.abs(this.points[best].at - at) > this.stepMs / 2 ? hole : null);
  }

  gapAt(at) {
    return this.gaps.find((gap) => at >= gap.from - MINUTE_MS / 2 && at <= gap.to + MINUTE_MS / 2);
  }

  key(event) {
    if (!this.points.length) return;
    const last = this.points.length - 1;
    const from = this.chosen ?? last;
    const moves = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last };
    if (event.key === "Escape") this.choose(null);
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.choose(Math.min(last, Math.max(0, moves[event.key])));
  }

  choose(index, gap = null) {
    this.chosen = index;
    if (!this.cross || !this.drawnScale) return;
    const point = index === null ? null : this.points[index];
    this.cross.setAttribute("visibility", point ? "visible" : "hidden");
    this.tip.hidden = !point;
    if (!point) return;
    const x = this.drawnScale.x(point.at);
    const y = this.drawnScale.y(point.value);
    const [line, dot] = this.cross.children;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    const profit = point.value - point.capital;
    this.tip.replaceChildren(
      make("span", { class: "when", text: time(new Date(point.at), "moment") }),
      make("strong", { text: `${number(point.value)} USDT` }),
      ...(Number.isFinite(profit)
        ? [make("span", { class: direction(profit), text: `${signed(profit)} on ${number(point.capital)}` })]
        : []),
      ...(gap ? [make("span", { class: "warn", text: `not measured here: ${gap.cause}` })] : []),
    );
    const half = this.tip.offsetWidth / 2;
    const middle = Math.min(Math.max(x, half + 4), this.drawnScale.width - half - 4);
    this.tip.style.left = `${middle}px`;
    this.tip.style.top = `${y > 90 ? y - this.tip.offsetHeight - 14 : y + 14}px`;
  }
}

function definitions() {
  const gradient = drawn("linearGradient", { id: "under", x1: 0, y1: 0, x2: 0, y2: 1 },
    drawn("stop", { offset: "0", class: "under-top" }),
    drawn("stop", { offset: "1", class: "under-bottom" }));
  const hatch = drawn("pattern", {
    id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
  }, drawn("line", { x1: 0, y1: 0, x2: 0, y2: 6, class: "hatch" }));
  return drawn("defs", {}, gradient, hatch);
}
