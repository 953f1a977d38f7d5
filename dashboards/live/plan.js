// One cycle's plan in detail: its legs and what became of each, what was skipped and why, costs.
// The same shapes show a preview.
import { MISSING, direction, make, number, percent, short, signed, table, time } from "./page.js";

const STATES = {
  planned: "◌", sent: "◐", acknowledged: "◐", filled: "✓", rejected: "✕", abandoned: "✕",
  unknown: "?",
};

const weights = (item) => ({
  text: `${percent(item.current_weight, 1)} → ${percent(item.target_weight, 1)}`,
});

function fact(name, value, className) {
  return make("div", {}, make("dt", { text: name }),
    make("dd", { class: `number ${className || ""}`, text: value }));
}

function skippedTable(skipped) {
  return table(["<Symbol", "Weight → target", "<Why it is not traded"], skipped.map((item) => [
    { text: item.symbol, class: "strong" }, weights(item), { text: item.words || item.reason, class: "wrap" },
  ]), { nothing: "Nothing was skipped.", label: "Skipped legs", cards: true });
}

const sum = (items, value) => items.reduce((total, item) => total + Number(value(item) || 0), 0);

const ACTIONS = { new: "open", increase: "increase", decrease: "reduce", gone: "close" };

/** What became of a leg: sums over its orders. Slippage is what its fills cost against the price
 *  it was sized with (positive: worse); null where nothing was filled. */
export function carriedOut(leg) {
  const priced = leg.orders.filter((order) => Number(order.filled_size) && order.average_price);
  const filled = sum(priced, (order) => order.filled_size);
  const paid = sum(priced, (order) => order.filled_size * order.average_price);
  const sign = leg.side === "sell" ? -1 : 1;
  const flip = leg.reduce_only ? "flip: close" : "flip: open";
  return {
    action: leg.case === "opposite" ? flip : ACTIONS[leg.case] || leg.case,
    filled: sum(leg.orders, (order) => order.filled_size),
    fee: sum(leg.orders, (order) => order.fee),
    average: filled ? paid / filled : null, paid,
    slippage: filled ? sign * (paid - filled * leg.reference_price) : null,
    size: leg.sized ? leg.sized.size : leg.size,
    stops: (leg.sized ? leg.sized.stops : leg.stops) || {},
    said: [leg.sized && leg.sized.reason, ...leg.orders.map((order) => order.message)]
      .filter(Boolean),
  };
}

function legState(leg) {
  const what = leg.abandoned ? `${leg.state}: ${leg.abandoned}` : leg.state;
  return { text: `${STATES[leg.state] || "◌"} ${what}`, class: `state-${leg.state}` };
}

/** `cycle` is its row of the list (times, reason); `letter` its plan, null where it made none. */
export function cyclePlan(cycle, letter) {
  const legs = (letter ? letter.legs : []).map((leg) => ({ leg, done: carriedOut(leg) }));
  const skipped = letter ? letter.skipped : cycle.skipped || [];
  const slipped = legs.map(({ done }) => done.slippage).filter((cost) => cost !== null);
  const slippage = slipped.length ? sum(slipped, (cost) => cost) : null;
  const rows = legs.map(({ leg, done }) => [
    { text: leg.symbol, class: "strong" },
    make("span", { class: `side ${leg.side === "sell" ? "short" : "long"}`,
      text: `${done.action}, ${leg.side}` }),
    weights(leg), short(done.size), short(done.filled || null), short(leg.reference_price),
    short(done.average),
    { text: done.slippage === null ? MISSING : signed(done.slippage, 4),
      class: direction(-(done.slippage || 0)) },
    number(done.fee, 4),
    short(done.stops.stop_loss), short(done.stops.take_profit), legState(leg),
  ]);
  const reason = (letter && letter.reason) || cycle.reason;
  const said = legs.flatMap(({ leg, done }) => done.said.map((text) => `${leg.symbol}: ${text}`));
  return make("div", { class: "plan" },
    reason ? make("p", { class: "reason", text: reason }) : null,
    make("dl", { class: "figures" },
      fact("State", cycle.state), fact("Began", time(cycle.started_at, "clock")),
      fact("Ended", time(cycle.ended_at, "clock")),
      fact("Own time", cycle.own_ms === null ? MISSING : `${number(cycle.own_ms, 0)} ms`),
      fact("Traded", `${number(sum(legs, ({ done }) => done.paid))} USDT`),
      fact("Fees", `${number(sum(legs, ({ done }) => done.fee), 4)} USDT`),
      fact("Slippage", slippage === null ? MISSING : `${signed(slippage, 4)} USDT`,
        direction(-(slippage || 0)))),
    make("h3", { text: `Legs (${legs.length})` }),
    table(["<Symbol", "<Does", "Weight → target", "Size", "Filled", "Decided at", "Filled at",
      "Slippage", "Fee", "Stop loss", "Take profit", "<State"], rows,
    { nothing: "No legs: nothing had to be traded.", label: "Legs", cards: true }),
    ...said.map((text) => make("p", { class: "soft", text })),
    make("h3", { text: `Skipped (${skipped.length})` }),
    skippedTable(skipped),
    ...noted((letter && letter.noted) || []),
    letter && letter.plan_digest ? make("p", { class: "soft small",
      text: `plan ${letter.plan_digest.slice(0, 16)}…` }) : null);
}

function noted(items) {
  if (!items.length) return [];
  return [make("h3", { text: "Found at the account" }), make("ul", { class: "notes" },
    ...items.map((item) => make("li", {
      text: `${item.symbol} ${item.kind}: expected ${short(item.expected)}, held ${short(item.actual)}. ${item.detail}`,
    })))];
}

export function previewPlan(view) {
  const legs = view.legs.map((leg) => [
    { text: leg.symbol, class: "strong" },
    make("span", { class: `side ${leg.side === "sell" ? "short" : "long"}`,
      text: `${leg.action}, ${leg.side}` }),
    weights(leg), short(leg.size), short(leg.estimate.average_price),
    signed(leg.estimate.slippage, 4), number(leg.estimate.fee, 4), short(leg.stop_loss),
  ]);
  const totals = view.totals || {};
  return make("div", { class: "plan" },
    make("h3", { text: "What the first cycle would trade now" }),
    ...(view.notes || []).map((text) => make("p", { class: "warn", text: `⚠ ${text}` })),
    table(["<Symbol", "<Does", "Weight → target", "Size", "About at", "Slippage", "Fee", "Stop loss"],
      legs, { nothing: "Nothing would be traded.", label: "Legs of the preview", cards: true }),
    view.skipped.length ? make("h3", { text: "Would be skipped" }) : null,
    view.skipped.length ? skippedTable(view.skipped) : null,
    make("p", { class: "soft", text: totals.turnover === undefined ? ""
      : `turnover ${percent(totals.turnover, 1)} of the base` }));
}
