// The live page: one stream of events in, the page out. Text goes in as text, never as markup.
"use strict";

const TOKEN = "aifap-token";
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 30000;
const SILENCE_MAX_MS = 15000;
const CURVE_POINTS = 240;
const CURVE_EVERY_MS = 30000;

const page = (id) => document.getElementById(id);
const curves = new Map(); // session id → {points, asked}
let connection = null; // what ends the connection that is open
let visit = 0; // grows with every token that is entered, so that an older loop knows it is over

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fill(parent, children) {
  parent.replaceChildren(...children);
  return parent;
}

// --- numbers for people: the server sends money as exact text, which is only cut for display -----

function number(value, places) {
  if (value === null || value === undefined || value === "") return "–";
  const shown = Number(value);
  if (!Number.isFinite(shown)) return String(value);
  return shown.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

function short(value) {
  if (value === null || value === undefined || value === "") return "–";
  const shown = Number(value);
  return Number.isFinite(shown) ? shown.toLocaleString("en", { maximumSignificantDigits: 7 }) : "–";
}

function percent(value) {
  return value === null || value === undefined ? "–" : `${number(Number(value) * 100, 2)} %`;
}

function signClass(value) {
  const sign = Math.sign(Number(value || 0));
  return sign > 0 ? "up" : sign < 0 ? "down" : "";
}

function time(text) {
  if (!text) return "–";
  const when = new Date(text);
  return Number.isNaN(when.getTime())
    ? "–"
    : `${when.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds);
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${whole} s`;
}

// --- one session -------------------------------------------------------------------------------

function fact(list, label, text, className) {
  const pair = element("div");
  pair.append(element("dt", label), element("dd", text, className));
  list.append(pair);
}

function facts(session) {
  const list = element("dl", null, "facts");
  const result = session.result || {};
  const portfolio = result.portfolio || {};
  const indicators = result.indicators || {};
  fact(list, "PV (USDT)", number(portfolio.current_pv, 2));
  fact(list, "Net profit", number(portfolio.netprofit, 2), signClass(portfolio.netprofit));
  fact(list, "ROE", percent(portfolio.roe), signClass(portfolio.roe));
  fact(list, "Drawdown", percent(indicators.drawdown), signClass(indicators.drawdown));
  fact(list, "Max drawdown", percent(indicators.max_drawdown), signClass(indicators.max_drawdown));
  fact(list, "Sharpe (days)", number(indicators.sharpe_1day, 2));
  fact(list, "Cash", number(portfolio.cash, 2));
  fact(list, "Unprotected", portfolio.unprotected ?? "–", portfolio.unprotected ? "down" : "");
  fact(list, "Cycle", String(session.cycle));
  fact(list, "Running for", lasting(session.age_s));
  fact(list, "Heartbeat", session.heartbeat_age_s === null ? "–" : `${lasting(session.heartbeat_age_s)} ago`);
  fact(list, "Measured", result.minute ? `${time(result.minute).slice(11)}` : "–");
  return list;
}

function table(headings, rows, nothing) {
  const made = element("table");
  const head = element("tr");
  for (const heading of headings) head.append(element("th", heading));
  made.append(fill(element("thead"), [head]));
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    for (const cell of row) line.append(cell instanceof Node ? cell : element("td", cell));
    body.append(line);
  }
  if (!rows.length) {
    const line = element("tr", null, "none");
    const cell = element("td", nothing);
    cell.colSpan = headings.length;
    line.append(cell);
    body.append(line);
  }
  made.append(body);
  return fill(element("div", null, "scroll"), [made]);
}

function weights(session) {
  const rows = new Map();
  for (const symbol of (session.result || {}).symbols || []) {
    rows.set(symbol.symbol, {
      weight: symbol.weight,
      target: symbol.target,
      size: symbol.size,
      mark: symbol.mark_price,
      pnl: symbol.unrealized_pnl,
      stop: symbol.stop_loss,
      take: symbol.take_profit,
    });
  }
  const targets = (session.letter || {}).targets || {};
  for (const [symbol, fields] of Object.entries(targets)) {
    const row = rows.get(symbol) || {};
    if (row.target === undefined || row.target === null) row.target = fields.weight;
    rows.set(symbol, row);
  }
  const lines = [...rows].sort().map(([symbol, row]) => [
    symbol,
    percent(row.weight),
    percent(row.target),
    short(row.size),
    short(row.mark),
    element("td", number(row.pnl, 2), signClass(row.pnl)),
    short(row.stop),
    short(row.take),
  ]);
  const headings = ["Symbol", "Weight", "Target", "Size", "Mark", "PnL", "Stop", "Take profit"];
  return table(headings, lines, "no positions");
}

function orders(session) {
  const letter = session.letter || {};
  const lines = (letter.orders || []).map((order) => [
    order.symbol,
    `${order.side || ""}${order.reduce_only ? " (reduces)" : ""}`,
    order.abandoned ? `${order.state}: ${order.abandoned}` : order.state,
    short(order.size),
    short(order.filled_size),
    short(order.average_price),
    order.message || "",
  ]);
  const skipped = (letter.skipped || []).map((item) => [
    item.symbol, "", `skipped: ${item.reason}`, "", "", "", "",
  ]);
  const headings = ["Symbol", "Side", "State", "Size", "Filled", "Price", ""];
  return table(headings, lines.concat(skipped), "nothing to trade");
}

function curve(session) {
  const known = curves.get(session.session_id);
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("class", "curve");
  drawing.setAttribute("viewBox", "0 0 100 100");
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", "Portfolio value over the last hours");
  const values = known ? known.points : [];
  if (values.length > 1) {
    const low = Math.min(...values);
    const span = Math.max(...values) - low || 1;
    const points = values.map((value, index) => {
      const x = (index / (values.length - 1)) * 100;
      return `${x.toFixed(2)},${(95 - ((value - low) / span) * 90).toFixed(2)}`;
    });
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", points.join(" "));
    drawing.append(line);
  }
  return drawing;
}

function card(session) {
  const over = session.state === "ended" || session.state === "failed";
  const made = element("article", null, over ? "session over" : "session");
  made.id = `session=${session.session_id}`;
  const head = element("header");
  head.append(
    element("h2", session.strategy_name),
    element("span", session.state, `state ${session.state}`),
    element("code", session.session_id),
    element("span", `${session.trade_env} ${session.tradeType} · ${session.account || session.account_id}`),
  );
  made.append(head);
  const wish = session.desired === "stopped" && !over ? `Asked to stop, ${session.end_state}. ` : "";
  const letter = session.letter || {};
  const skipped = letter.stage === "skipped" && letter.reason ? `Last cycle: ${letter.reason}` : "";
  const reason = `${wish}${session.reason || skipped}`;
  if (reason) made.append(element("p", reason, "reason"));
  made.append(facts(session), curve(session));
  made.append(element("h3", "Weights against targets"), weights(session));
  const cycle = letter.cycle ? `Orders of the cycle of ${time(letter.cycle)}: ${letter.stage}` : "Orders";
  made.append(element("h3", cycle), orders(session));
  return made;
}

function alertLine(alert) {
  const line = element("li");
  const severity = ["critical", "warning"].includes(alert.severity) ? alert.severity : "";
  const words = alert.lines.map(([label, value]) => `${label}: ${value}`).join(" · ");
  line.append(element("time", time(alert.at)), element("strong", alert.title, severity));
  line.append(element("div", words));
  return line;
}

function show(document_) {
  page("clock").textContent = time(document_.now);
  const cards = document_.sessions.map(card);
  if (!cards.length) cards.push(element("p", "You have no sessions yet.", "empty"));
  fill(page("sessions"), cards);
  page("alerts").hidden = !document_.alerts.length;
  fill(page("alert-list"), document_.alerts.map(alertLine));
  for (const session of document_.sessions) fetchCurve(session.session_id);
}

// --- the wire ----------------------------------------------------------------------------------

function headers() {
  return { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` };
}

async function fetchCurve(sessionId) {
  const known = curves.get(sessionId) || { points: [], asked: 0 };
  if (Date.now() - known.asked < CURVE_EVERY_MS) return;
  known.asked = Date.now();
  curves.set(sessionId, known);
  const path = `/results/${encodeURIComponent(sessionId)}/portfolio?limit=${CURVE_POINTS}`;
  const answer = await fetch(path, { headers: headers() }).catch(() => null);
  if (!answer || !answer.ok) return;
  const rows = (await answer.json()).rows;
  known.points = rows.map((row) => Number(row.current_pv)).filter(Number.isFinite);
}

function say(text, className) {
  page("line").textContent = text;
  page("line").className = className || "";
}

function askForToken(why) {
  sessionStorage.removeItem(TOKEN);
  curves.clear();
  page("enter").hidden = false;
  page("leave").hidden = true;
  page("alerts").hidden = true;
  fill(page("sessions"), []);
  fill(page("alert-list"), []);
  say(why || "not connected");
  page("token").focus();
}

function handle(event) {
  const data = JSON.parse(event.data);
  if (event.name === "sessions") {
    show(data);
    say("live", "live");
  } else if (event.name === "trouble") {
    say(data.message, "trouble");
  } else if (event.name === "end") {
    connection.abort("end");
    askForToken(data.message);
  }
}

function parse(block) {
  const event = { name: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  return event;
}

async function listen(controller) {
  let watchdog = null;
  const wake = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => controller.abort("silence"), SILENCE_MAX_MS);
  };
  wake();
  try {
    const answer = await fetch("/stream/sessions", { headers: headers(), signal: controller.signal });
    if (answer.status === 401) return "refused";
    if (!answer.ok) return "trouble";
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "trouble";
      wake();
      const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = blocks.pop();
      blocks.map(parse).forEach(handle);
    }
  } finally {
    clearTimeout(watchdog);
  }
}

async function stay() {
  page("enter").hidden = true;
  page("leave").hidden = false;
  visit += 1;
  const mine = visit;
  let wait = RETRY_FIRST_MS;
  while (sessionStorage.getItem(TOKEN) && visit === mine) {
    connection = new AbortController();
    const began = Date.now();
    const ended = await listen(connection).catch(() => "trouble");
    if (!sessionStorage.getItem(TOKEN) || visit !== mine) return;
    if (ended === "refused") return askForToken("this token is not valid");
    wait = Date.now() - began > RETRY_MAX_MS ? RETRY_FIRST_MS : Math.min(wait * 2, RETRY_MAX_MS);
    say(`connection lost; trying again in ${Math.round(wait / 1000)} s`, "trouble");
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

page("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, page("token").value.trim());
  page("token").value = "";
  stay();
});

page("leave").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  if (connection) connection.abort("leave");
  askForToken();
});

if (sessionStorage.getItem(TOKEN)) stay();
else askForToken();
