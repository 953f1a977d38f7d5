// The board of one session: its head, key figures, positions against targets.
import {
  MISSING, direction, lasting, make, number, page, percent, put, short, signed, signedPercent,
  table, time,
} from "./page.js";

const STATES = { starting: "◌", running: "●", stopping: "◐", ended: "■", failed: "✕" };

export const isOver = (session) => ["ended", "failed"].includes(session.state);

export function stateWords(session) {
  const asked = session.desired === "stopped" && !isOver(session);
  const state = asked ? "stopping" : session.state;
  return { state, text: `${STATES[state] || ""} ${state}`.trim() };
}

export function fillHead(session, now, may) {
  put(page("session-name"), session.strategy_name);
  const { state, text } = stateWords(session);
  const chip = page("session-state");
  put(chip, text);
  chip.className = `chip state ${state}`;
  const env = page("session-env");
  put(env, session.trade_env === "live" ? "LIVE · real money" : session.trade_env);
  env.className = `chip env ${session.trade_env}`;
  const facts = [
    session.account || session.account_id, session.tradeType, `${session.trade_mode}`,
    `every ${lasting(session.interval_s)}`, `leverage ${short(session.leverage)}×`,
    isOver(session)
      ? `ran ${lasting((new Date(session.ended_at) - new Date(session.started_at)) / 1000)}`
      : `running for ${lasting((now - new Date(session.started_at)) / 1000)}`,
    session.cycles_max ? `cycle ${Math.min(session.cycle, session.cycles_max)} of ${session.cycles_max}`
      : `cycle ${session.cycle}`, // the one that closes everything at the end comes on top
  ];
  if (session.restarts) facts.push(`${session.restarts} restarts`);
  page("session-facts").replaceChildren(
    ...facts.flatMap((fact, index) => (index ? [make("span", { class: "sep", "aria-hidden": "true",
      text: "·" }), make("span", { text: fact })] : [make("span", { text: fact })])),
    make("span", { class: "sep", "aria-hidden": "true", text: "·" }),
    make("code", { text: session.session_id }),
  );
  page("stop-open").hidden = isOver(session) || !may.stop;
  put(page("stop-open"), session.desired === "stopped" ? "Stop otherwise" : "Stop");
  page("stop-open").disabled = session.state === "stopping";
  const halt = page("halt-open");
  halt.hidden = isOver(session) && !session.halted ? true : !may.halt;
  put(halt, session.halted ? "Lift the halt" : "Halt account");
  halt.className = session.halted ? "" : "danger";
}

/** What a person should know first: halted, asked to stop, silent, why it ended. */
export function headReason(session, letter) {
  const said = [];
  if (session.halted) {
    const why = session.halted.reason ? `: ${session.halted.reason}` : "";
    said.push(`The kill switch of this account is on${why}. Nothing opens; stops stay.`);
  }
  if (session.desired === "stopped" && !isOver(session)) {
    said.push(`Asked to stop, ${session.end_state}.`);
  }
  if (session.quiet_s && !isOver(session)) {
    said.push(`Its leader has not been heard of for ${lasting(session.quiet_s)}.`);
  }
  if (session.reason) said.push(session.reason);
  else if (letter && letter.stage === "skipped" && letter.reason) {
    said.push(`Last cycle skipped: ${letter.reason}`);
  }
  return said.join(" ");
}

function tile(name, value, className, note, arrow) {
  return make("div", { class: "panel tile" },
    make("h3", { text: name }),
    make("p", { class: `big number ${className || ""}` },
      arrow ? make("span", { class: "arrow", "aria-hidden": "true", text: arrow }) : null, value),
    make("p", { class: "note", text: note }));
}

const DAYS_FOR_SHARPE = 10;

export function fillTiles(result) {
  const portfolio = (result && result.portfolio) || {};
  const indicators = (result && result.indicators) || {};
  const roe = portfolio.roe;
  const arrow = { up: "▲", down: "▼" }[direction(roe)];
  const enough = Number(indicators.returns_1day) >= DAYS_FOR_SHARPE;
  const sharpe = enough ? indicators.sharpe_1day : indicators.sharpe_1min;
  const basis = enough ? "annualised from days" : "annualised from minutes, too few days yet";
  const fall = indicators.max_drawdown;
  page("tiles").replaceChildren(
    tile("ROE", signedPercent(roe), direction(roe),
      portfolio.netprofit === undefined || portfolio.netprofit === null ? "no measurement yet"
        : `${signed(portfolio.netprofit)} USDT on ${number(portfolio.available)}`, arrow),
    tile("Sharpe ratio", number(sharpe, 2), sharpe === undefined || sharpe === null ? "" : "blue",
      sharpe === undefined || sharpe === null ? "too few returns yet" : basis),
    tile("Max drawdown", percent(fall), direction(fall),
      `now ${percent(indicators.drawdown)}`, Number(fall) < 0 ? "▼" : null),
  );
}

function figure(name, value, className, title) {
  return make("div", { title }, make("dt", { text: name }),
    make("dd", { class: `number ${className || ""}`, text: value }));
}

export function fillFigures(session, result) {
  const portfolio = (result && result.portfolio) || {};
  const indicators = (result && result.indicators) || {};
  const exposure = portfolio.gross_exposure ?? (Number(portfolio.current_pv)
    ? Number(portfolio.gross_position_value) / Number(portfolio.current_pv) : null);
  const bare = portfolio.unprotected;
  const costs = portfolio.fees === undefined ? null
    : Number(portfolio.fees) + Number(portfolio.funding);
  page("figures").replaceChildren(
    figure("Portfolio value", number(portfolio.current_pv), "", "wallet balance + unrealised PnL"),
    figure("Unrealised PnL", signed(portfolio.unrealized_pnl),
      direction(portfolio.unrealized_pnl)),
    figure("Realised PnL", signed(portfolio.realized_pnl), direction(portfolio.realized_pnl),
      "since the session's start, before fees"),
    figure("Fees and funding", signed(costs), direction(costs), "negative: paid"),
    figure("Free cash", number(portfolio.cash)),
    figure("Exposure", exposure === null ? MISSING : `${number(exposure, 2)}×`, "",
      "gross position value ÷ portfolio value: the effective leverage"),
    figure("Win rate", indicators.win_rate === undefined || indicators.win_rate === null ? MISSING
      : `${percent(indicators.win_rate, 0)} of ${indicators.trades}`, "", "closed positions"),
    figure("Without stop", bare === undefined ? MISSING : bare ? `⚠ ${bare}` : "none",
      bare ? "down" : "", "positions that have no stop on the exchange"),
    figure("Measured", result ? time(result.minute, "minute") : MISSING),
  );
}

function distance(row) {
  const mark = Number(row.mark_price);
  const liquidation = Number(row.liquidation_price);
  if (!row.liquidation_price || !mark || liquidation <= 0) return { text: MISSING };
  const share = Math.abs(mark - liquidation) / mark;
  return {
    text: `${percent(share, 1)}${share < 0.1 ? " ⚠" : ""}`, class: share < 0.1 ? "down" : "",
    title: `liquidation at ${short(row.liquidation_price)}`,
  };
}

function against(weight, target) {
  const part = (value) => (value === null || value === undefined ? MISSING : percent(value, 1));
  return { text: `${part(weight)} → ${part(target)}`, title: "weight → target" };
}

/** Rows of what is held or wanted: newest minute first, targets of the letter for the others. */
export function positions(result, letter) {
  const rows = new Map(((result && result.symbols) || []).map((row) => [row.symbol, row]));
  const targets = (letter && letter.targets) || {};
  for (const [symbol, fields] of Object.entries(targets)) {
    const row = rows.get(symbol);
    if (!row) rows.set(symbol, { symbol, target: Number(fields.weight), size: null });
    else if (row.target === null) row.target = Number(fields.weight);
  }
  const ordered = [...rows.values()].sort(
    (a, b) => Math.abs(b.position_value || 0) - Math.abs(a.position_value || 0),
  );
  const lines = ordered.map((row) => {
    const side = Number(row.size) < 0 ? "short" : Number(row.size) > 0 ? "long" : "flat";
    return [
      { text: row.symbol, class: "strong" },
      make("span", { class: `side ${side}`, text: side }),
      short(row.size), short(row.entry_price), short(row.mark_price),
      number(row.position_value, 2),
      {
        text: row.unrealized_pnl === undefined ? MISSING
          : `${signed(row.unrealized_pnl)} (${signedPercent(row.unrealized_roe, 1)})`,
        class: direction(row.unrealized_pnl),
      },
      against(row.weight, row.target),
      distance(row),
      side !== "flat" && !row.stop_loss ? { text: "⚠ none", class: "warn" } : short(row.stop_loss),
      short(row.take_profit),
    ];
  });
  return table(
    ["<Symbol", "<Side", "Size", "Entry", "Mark", "Value", "Unrealised PnL", "Weight → target",
      "To liquidation", "Stop loss", "Take profit"],
    lines,
    { nothing: "Nothing is held and nothing is wanted.", label: "Positions", cards: true },
  );
}
