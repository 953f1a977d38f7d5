// What the portfolio is made of: a ring of shares, and bars of position values beside it.
import { drawn, make, number, percent } from "./page.js";

const COLOURS = 10; // .c0 … .c9 in live.css; further symbols share the last
const SLICES_MAX = 9;
const RADIUS = 15.9155; // a circumference of 100: a share in percent is a length on it

/** Symbol → colour class: by name, so that a position keeps its colour while others come and go. */
export function colours(symbols) {
  return new Map([...symbols].sort().map((symbol, index) => [
    symbol, `c${Math.min(index, COLOURS - 1)}`,
  ]));
}

/** Positions by worth, largest first: {symbol, value (signed), bound, share of bound and cash}. */
export function shares(result) {
  const rows = result.symbols
    .map((row) => ({ symbol: row.symbol, value: Number(row.position_value) }))
    .filter((row) => row.value);
  rows.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const cash = Math.max(0, Number(result.portfolio.cash) || 0);
  // With leverage values exceed what is there: a share is of the margin that a position binds.
  const bound = new Map(result.symbols.map((row) => [row.symbol, Math.abs(Number(row.margin_size))]));
  for (const row of rows) row.bound = bound.get(row.symbol) || Math.abs(row.value);
  const whole = rows.reduce((sum, row) => sum + row.bound, cash) || 1;
  for (const row of rows) row.share = row.bound / whole;
  return { rows, cash, cashShare: cash / whole };
}

export function allocation(result, colourOf) {
  const { rows, cash, cashShare } = shares(result);
  const few = rows.slice(0, SLICES_MAX);
  const rest = rows.slice(SLICES_MAX);
  const parts = few.map((row) => ({
    name: row.symbol, share: row.share, colour: colourOf.get(row.symbol), short: row.value < 0,
  }));
  if (rest.length) {
    parts.push({
      name: `${rest.length} more`, colour: "rest",
      share: rest.reduce((sum, row) => sum + row.share, 0),
    });
  }
  if (cash > 0) parts.push({ name: "free cash", share: cashShare, colour: "cash" });
  if (!parts.length) return make("p", { class: "nothing", text: "nothing is held" });
  return make("div", { class: "allocation" }, ring(parts, rows.length), list(parts));
}

function ring(parts, positions) {
  const art = drawn("svg", {
    class: "ring", viewBox: "0 0 42 42", role: "img",
    "aria-label": parts.map((part) => `${part.name} ${percent(part.share, 1)}`).join(", "),
  });
  let before = 0;
  for (const part of parts) {
    const length = part.share * 100;
    const gap = parts.length > 1 && length > 1 ? 0.5 : 0;
    const inked = Math.max(0.1, length - gap);
    art.append(drawn("circle", {
      class: `slice ${part.colour}`, cx: 21, cy: 21, r: RADIUS,
      "stroke-dasharray": `${inked.toFixed(3)} ${(100 - inked).toFixed(3)}`,
      "stroke-dashoffset": (25 - before).toFixed(3),
    }, drawn("title", {}, `${part.name} ${percent(part.share, 1)}`)));
    before += length;
  }
  art.append(
    drawn("text", { x: 21, y: 21.6, class: "ring-count", "text-anchor": "middle" },
      String(positions)),
    drawn("text", { x: 21, y: 25.4, class: "ring-word", "text-anchor": "middle" },
      positions === 1 ? "position" : "positions"),
  );
  return art;
}

function list(parts) {
  return make("ul", { class: "keys" }, ...parts.map((part) => make("li", {},
    make("span", { class: `swatch ${part.colour}`, "aria-hidden": "true" }),
    make("span", { class: "key-name", text: part.name }),
    part.short ? make("span", { class: "side short", text: "short" }) : null,
    make("span", { class: "number", text: percent(part.share, 1) }))));
}

export function bars(result, colourOf) {
  const { rows } = shares(result);
  if (!rows.length) return make("p", { class: "nothing", text: "no positions" });
  const most = Math.max(...rows.map((row) => Math.abs(row.value)));
  return make("ul", { class: "bars" }, ...rows.map((row) => {
    const fill = drawn("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none",
      "aria-hidden": "true" },
      drawn("rect", { class: "bar-ground", width: 100, height: 10 }),
      drawn("rect", {
        class: `fill ${colourOf.get(row.symbol)}`, height: 10,
        width: ((Math.abs(row.value) / most) * 100).toFixed(2),
      }));
    return make("li", {},
      make("span", { class: "bar-name", text: row.symbol }),
      make("span", { class: `side ${row.value < 0 ? "short" : "long"}`,
        text: row.value < 0 ? "short" : "long" }),
      fill, make("span", { class: "number", text: number(row.value, 2) }));
  }));
}
