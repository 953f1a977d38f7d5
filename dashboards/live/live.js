// The live page: one stream of changes in, the page out. It holds what the stream has told so far,
// asks for what is long (curve, cycles, trades, gaps) when that has changed, and draws the rest.
import { cycles, fillAlerts, fillGaps, gapStretches, trades } from "./activity.js";
import { allocation, bars, colours } from "./allocation.js";
import {
  fillFigures, fillHead, fillTiles, headReason, isOver, positions, stateWords,
} from "./board.js";
import { askToHalt, askToResume, askToStop } from "./commands.js";
import { Curve, RANGES, resolutionFor } from "./curve.js";
import {
  direction, make, number, page, put, signedPercent, time, useTimezone,
} from "./page.js";
import { cyclePlan } from "./plan.js";
import { openStart } from "./start.js";
import { Stream, ask, forgetToken, keepToken, token } from "./wire.js";

const TRADES_MAX = 30;
const CYCLES_MAX = 30;
const GAPS_MAX = 2000;
const CURVE_REFRESH_MS = 5 * 60 * 1000;
const LISTED_MAX = 300;

const curve = new Curve(page("curve"), page("curve-legend"));
const lines = new Map(); // session id → its line in the list
let stream = null;
let live = nothingYet();
let shown = nothingShown();
let range = null; // chosen by the person; else one that fits the session's age

function nothingYet() {
  return { now: null, heardAt: null, who: null, order: [], sessions: new Map(), selected: null,
    alerts: [], troubleSince: null };
}

function nothingShown() {
  return { id: null, minute: undefined, cycle: undefined, curveAt: 0, asked: 0 };
}

// --- what is heard -----------------------------------------------------------------------------

function hear(event) {
  live.now = new Date(event.now);
  live.heardAt = Date.now();
  put(page("clock"), time(live.now, "whole"));
  if (event.who) greet(event.who);
  if (event.order) live.order = event.order;
  for (const [id, digest] of Object.entries(event.sessions || {})) {
    if (digest) live.sessions.set(id, digest);
    else live.sessions.delete(id);
  }
  if ("selected" in event) live.selected = event.selected;
  if (event.alerts) live.alerts = event.alerts;
  calm();
  if (event.order || event.sessions) list();
  if (event.alerts || event.selected) alerts();
  board(Boolean(event.selected) || Boolean(event.sessions));
}

function greet(who) {
  live.who = who;
  useTimezone(who.timezone);
  put(page("clock"), time(live.now, "whole"));
  page("start-open").hidden = !who.may.start;
  page("halt-all").hidden = !who.may.halt_all;
  page("tabs").hidden = !who.grafana;
  if (!who.grafana) showTab("board");
}

function say(className, text) {
  page("line").className = className;
  put(page("line-text"), text);
}

function calm() {
  live.troubleSince = null;
  page("trouble").hidden = true;
  document.body.classList.remove("stale");
  say("live", "live");
}

/** The numbers below do not move any more: since when, and why. */
function worry(why) {
  if (live.troubleSince === null) live.troubleSince = new Date();
  const last = live.now ? ` What is shown is of ${time(live.now, "whole")} and does not move.` : "";
  put(page("trouble"), `${why} Since ${time(live.troubleSince, "clock")}.${last}`);
  page("trouble").hidden = false;
  document.body.classList.add("stale");
}

const hearing = {
  live: hear,
  trouble: (data) => {
    say("trouble", "in trouble");
    worry(`The server is in trouble: ${data.message}.`);
  },
  lost: (why, pauseMs) => {
    say("trouble", `connection lost, trying again in ${Math.round(pauseMs / 1000)} s`);
    worry(why ? `The server does not let this page in: ${why}.` : "The connection is lost.");
  },
  refused: (why, status) => {
    if (status === 404 && wantedId()) {
      history.replaceState(null, "", location.pathname);
      connect(null);
    } else leave(why || "this token is not valid");
  },
};

// --- the list of sessions ----------------------------------------------------------------------

function list() {
  const words = page("search").value.trim().toLowerCase();
  const all = live.order.map((id) => live.sessions.get(id)).filter(Boolean);
  const found = all.filter((session) => !words || [session.strategy_name, session.account,
    session.session_id, session.state, session.trade_env].join(" ").toLowerCase().includes(words));
  for (const id of lines.keys()) if (!live.sessions.has(id)) lines.delete(id);
  page("session-list").replaceChildren(...found.slice(0, LISTED_MAX).map(lineOf));
  const running = all.filter((session) => !isOver(session)).length;
  put(page("counts"), words ? `${found.length} of ${all.length} sessions`
    : `${running} running, ${all.length - running} over`);
  page("rail-toggle").hidden = !all.length;
}

function lineOf(session) {
  const id = session.session_id;
  if (!lines.has(id)) {
    const button = make("button", { type: "button", onclick: () => choose(id) },
      make("span", { class: "dot", "aria-hidden": "true" }), make("span", { class: "line-name" }),
      make("span", { class: "line-roe number" }), make("span", { class: "line-facts" }),
      make("span", { class: "line-pv number" }));
    lines.set(id, make("li", {}, button));
  }
  const line = lines.get(id);
  const [dot, name, roe, facts, value] = line.firstChild.children;
  const { state } = stateWords(session);
  dot.className = `dot ${session.halted ? "halted" : state}`;
  put(name, session.strategy_name);
  const newest = session.newest;
  put(roe, newest ? signedPercent(newest.roe) : "");
  roe.className = `line-roe number ${newest ? direction(newest.roe) : ""}`;
  put(facts, `${session.halted ? "halted" : state} · ${session.trade_env} · ${session.account}`);
  put(value, newest ? number(newest.current_pv) : "");
  line.firstChild.setAttribute("aria-current", String(id === shown.id));
  return line;
}

const wantedId = () => new URLSearchParams(location.hash.slice(1)).get("session");

function choose(id) {
  openRail(false);
  if (id === shown.id) return;
  history.replaceState(null, "", `#session=${encodeURIComponent(id)}`);
  connect(id);
}

function openRail(open) {
  page("rail").classList.toggle("open", open);
  page("rail-toggle").setAttribute("aria-expanded", String(open));
}

// --- the board ---------------------------------------------------------------------------------

function board(hasChanged) {
  const selected = live.selected;
  const session = selected && live.sessions.get(selected.session_id);
  page("empty").hidden = Boolean(session);
  page("board").hidden = !session;
  if (!session) return;
  if (shown.id !== selected.session_id) begin(selected.session_id);
  fillHead(session, live.now, live.who.may);
  if (!hasChanged) return;
  const reason = headReason(session, selected.letter);
  put(page("session-reason"), reason);
  page("session-reason").hidden = !reason;
  put(page("rail-toggle"), `${session.strategy_name} ▾`);
  const result = selected.result;
  const letter = selected.letter;
  const minute = result ? result.minute : null;
  const cycle = letter ? `${letter.cycle} ${letter.stage}` : `${session.cycle}`;
  if (minute !== shown.minute || cycle !== shown.cycle || !page("tiles").childElementCount) {
    fillTiles(result);
    fillFigures(session, result);
    holdings(result, letter);
  }
  if (cycle !== shown.cycle) askCycles(session.session_id);
  if (minute !== shown.minute) measured(session, result);
  if (!performance.getEntriesByName("board").length) performance.mark("board");
  Object.assign(shown, { minute, cycle });
}

/** Another session is shown from now on. */
function begin(id) {
  shown = { ...nothingShown(), id, asked: shown.asked + 1 };
  for (const [name, line] of lines) {
    line.firstChild.setAttribute("aria-current", String(name === id));
  }
  curve.show([], 60000, null, "reading the curve …");
  curve.showGaps([]);
  for (const part of ["tiles", "cycles", "trades", "gaps"]) page(part).replaceChildren();
  if (!page("tab-panel-grafana").hidden) showTab("grafana");
}

function holdings(result, letter) {
  page("positions").replaceChildren(positions(result, letter));
  if (!result) {
    const none = () => make("p", { class: "nothing", text: "not measured yet" });
    page("allocation").replaceChildren(none());
    page("sizes").replaceChildren(none());
    return;
  }
  const colourOf = colours(result.symbols.map((row) => row.symbol));
  page("allocation").replaceChildren(allocation(result, colourOf));
  page("sizes").replaceChildren(bars(result, colourOf));
}

function measured(session, result) {
  if (result && shown.curveAt && Date.now() - shown.curveAt < CURVE_REFRESH_MS) {
    const portfolio = result.portfolio;
    curve.add({
      at: Date.parse(result.minute), value: Number(portfolio.current_pv),
      capital: portfolio.available === null ? NaN : Number(portfolio.available),
    }, axisStart(session));
  } else askCurve(session);
  askTrades(session.session_id);
  askGaps(session.session_id);
}

// --- what is long is asked for -------------------------------------------------------------------

/** Runs `work` and shows its outcome unless another session was chosen meanwhile. */
async function fetched(place, path, show) {
  const asked = shown.asked;
  try {
    const answer = await ask("GET", path);
    if (asked === shown.asked) show(answer);
  } catch (error) {
    if (asked === shown.asked && !place.childElementCount) {
      place.replaceChildren(make("p", { class: "nothing", text: error.message }));
    }
  }
}

const results = (id, rest) => `/results/${encodeURIComponent(id)}/${rest}`;

function chosenRange(session) {
  if (range) return range;
  const age = live.now - new Date(session.started_at);
  return [...RANGES].find(([name, length]) => name !== "all" && age <= length)?.[0] || "1d";
}

function axisStart(session) {
  const started = Date.parse(session.started_at);
  const end = Math.min(live.now.getTime(), Date.parse(session.ended_at || live.now));
  return Math.max(started, end - RANGES.get(chosenRange(session)));
}

function askCurve(session) {
  const start = axisStart(session);
  const [resolution, stepMs] = resolutionFor(live.now.getTime() - start);
  const query = new URLSearchParams({
    start: new Date(start).toISOString(), resolution, limit: 2000,
    columns: "current_pv,available",
  });
  shown.curveAt = Date.now();
  paintRanges(session);
  return fetched(page("curve"), results(session.session_id, `portfolio?${query}`), (answer) => {
    const points = answer.rows.map((row) => ({
      at: Date.parse(row.minute), value: Number(row.current_pv),
      capital: row.available === null ? NaN : Number(row.available),
    }));
    curve.show(points, stepMs, start,
      "No minute of this range was measured yet; the first one follows within a minute.");
  });
}

function askCycles(id) {
  return fetched(page("cycles"), results(id, `cycles?limit=${CYCLES_MAX}`), (answer) =>
    page("cycles").replaceChildren(cycles(answer.cycles, openPlan)));
}

function askTrades(id) {
  return fetched(page("trades"), results(id, `transactions?limit=${TRADES_MAX}`), (answer) =>
    page("trades").replaceChildren(trades(answer.transactions)));
}

function askGaps(id) {
  return fetched(page("gaps"), results(id, `gaps?limit=${GAPS_MAX}`), (answer) => {
    const found = gapStretches(answer.gaps);
    fillGaps(found);
    curve.showGaps(found);
  });
}

async function openPlan(cycle) {
  put(page("plan-title"), `Cycle #${cycle.number} of ${time(cycle.boundary)}`);
  page("plan").replaceChildren(make("p", { class: "soft", text: "Reading the letter …" }));
  page("plan-dialog").showModal();
  try {
    const answer = await ask("GET", results(shown.id, `cycles/${encodeURIComponent(cycle.boundary)}`));
    page("plan").replaceChildren(cyclePlan(cycle, answer.cycle));
  } catch (error) {
    page("plan").replaceChildren(error.status === 404 ? cyclePlan(cycle, null)
      : make("p", { class: "said", text: error.message }));
  }
}

function alerts() {
  const name = (id) => live.sessions.get(id)?.strategy_name || id;
  fillAlerts(live.alerts, live.selected?.session_id, page("alerts-all").checked, name);
}

// --- ranges and tabs -------------------------------------------------------------------------------

const current = () => live.selected && live.sessions.get(live.selected.session_id);

function paintRanges(session) {
  const chosen = chosenRange(session);
  page("ranges").replaceChildren(...[...RANGES.keys()].map((name) => make("button", {
    type: "button", text: name, "aria-pressed": String(name === chosen),
    onclick: () => {
      range = name;
      askCurve(current()).then(() => page("ranges").querySelector("[aria-pressed=true]").focus());
    },
  })));
}

function showTab(name) {
  const isGrafana = name === "grafana";
  for (const one of ["board", "grafana"]) {
    page(`tab-${one}`).setAttribute("aria-selected", String(one === name));
    page(`tab-${one}`).tabIndex = one === name ? 0 : -1;
  }
  page("tab-panel-board").hidden = isGrafana;
  const panel = page("tab-panel-grafana");
  panel.hidden = !isGrafana;
  if (!isGrafana) return panel.replaceChildren();
  const query = new URLSearchParams({ "var-session": shown.id, kiosk: "", theme: "dark" });
  const address = `${live.who.grafana}?${query}`;
  return panel.replaceChildren(
    make("p", { class: "soft" }, "The same session in Grafana. Empty? It must allow embedding, and "
      + "you must be signed in there: ", make("a", { href: address, target: "_blank",
      rel: "noopener noreferrer", text: "open it in a tab of its own" }), "."),
    make("iframe", { src: address, title: "Grafana", referrerpolicy: "no-referrer",
      sandbox: "allow-scripts allow-same-origin allow-forms allow-popups" }),
  );
}

// --- coming and going --------------------------------------------------------------------------

function connect(id) {
  if (stream) stream.stop();
  page("enter").hidden = true;
  page("desk").hidden = false;
  page("actions").hidden = false;
  say("", "connecting");
  const before = live;
  live = { ...nothingYet(), now: before.now, who: before.who, order: before.order,
    sessions: before.sessions, alerts: before.alerts };
  stream = new Stream(id, hearing);
}

function leave(why) {
  if (stream) stream.stop();
  stream = null;
  forgetToken();
  live = nothingYet();
  shown = nothingShown();
  lines.clear();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const part of ["session-list", "tiles", "figures", "positions", "cycles", "trades", "gaps",
    "alert-list", "plan", "preview", "start-form", "tab-panel-grafana"]) {
    page(part).replaceChildren();
  }
  curve.show([], 60000, null);
  page("desk").hidden = true;
  page("actions").hidden = true;
  page("rail-toggle").hidden = true;
  page("trouble").hidden = true;
  document.body.classList.remove("stale");
  put(page("clock"), "");
  put(page("token-said"), why || "");
  say("", "not connected");
  page("enter").hidden = false;
  page("token").focus();
}

const started = (id) => {
  history.replaceState(null, "", `#session=${encodeURIComponent(id)}`);
  connect(id);
};

page("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(page("token").value.trim());
  page("token").value = "";
  put(page("token-said"), "");
  connect(wantedId());
});
page("leave").addEventListener("click", () => leave());
page("search").addEventListener("input", list);
page("rail-toggle").addEventListener("click", () =>
  openRail(!page("rail").classList.contains("open")));
page("alerts-all").addEventListener("change", alerts);
page("start-open").addEventListener("click", () => openStart(started));
page("start-first").addEventListener("click", () => openStart(started));
page("stop-open").addEventListener("click", () => askToStop(current()));
page("halt-all").addEventListener("click", () => askToHalt(null));
page("halt-open").addEventListener("click", () =>
  (current().halted ? askToResume(current()) : askToHalt(current())));
for (const name of ["board", "grafana"]) {
  page(`tab-${name}`).addEventListener("click", () => showTab(name));
  page(`tab-${name}`).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = name === "board" ? "grafana" : "board";
    showTab(other);
    page(`tab-${other}`).focus();
  });
}
for (const dialog of document.querySelectorAll("dialog")) {
  for (const close of dialog.querySelectorAll(".close")) {
    close.addEventListener("click", () => dialog.close());
  }
}
window.addEventListener("online", () => stream && stream.hurry());
// A page that is only kept for the way back must not hold one of the person's few streams.
window.addEventListener("pagehide", () => stream && stream.stop());
window.addEventListener("pageshow", (event) => {
  if (event.persisted && token()) connect(shown.id || wantedId());
});
window.addEventListener("hashchange", () => {
  if (token() && wantedId() && wantedId() !== shown.id) connect(wantedId());
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") openRail(false);
});

if (token()) connect(wantedId());
else leave();
