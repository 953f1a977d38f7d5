// What a session did: its cycles, its trades, its alerts, and the minutes that were not measured.
import { MISSING, direction, make, number, page, short, signed, table, time } from "./page.js";

const MARKS = { done: "✓", skipped: "⤼", dropped: "✕" };
const SEVERITIES = { critical: "✖", warning: "⚠", info: "●" };
const GAP_WORDS = {
  "not-running": "nobody measured",
  overrun: "the minute was over before it could be measured",
  "exchange-unreachable": "the exchange did not answer",
  "session-unreadable": "the session could not be read",
  "part-failed": "a part of the minute could not be stored",
  "spool-full": "Postgres was away longer than the spool lasts",
  "store-lost": "what was stored was lost",
};

export const gapWords = (cause) => GAP_WORDS[cause] || cause;

function outcome(cycle) {
  const skipped = (cycle.skipped || []).length;
  if (cycle.reason) return cycle.reason;
  if (skipped) return `${skipped} ${skipped === 1 ? "leg" : "legs"} skipped`;
  return cycle.state === "done" ? "as planned" : "under way";
}

export function cycles(list, open) {
  const rows = list.map((cycle) => [
    make("button", {
      class: "link", type: "button", text: `#${cycle.number}`,
      "aria-label": `Plan of cycle ${cycle.number}`, onclick: () => open(cycle),
    }),
    time(cycle.boundary),
    { text: `${MARKS[cycle.state] || "◌"} ${cycle.state}`, class: `state-${cycle.state}` },
    { text: outcome(cycle), class: "wrap" },
    cycle.own_ms === null || cycle.own_ms === undefined ? MISSING : `${number(cycle.own_ms, 0)} ms`,
  ]);
  return table(["<Plan", "<Boundary", "<State", "<Outcome", "Own time"], rows, {
    nothing: "No cycle yet: the first one begins at the next boundary.", label: "Cycles",
    onrow: (line, index) => {
      line.className = "opens";
      line.addEventListener("click", (event) => {
        if (!event.target.closest("button")) open(list[index]);
      });
    },
  });
}

export function trades(list) {
  const rows = list.map((fill) => [
    time(fill.at),
    { text: fill.symbol, class: "strong" },
    make("span", { class: `side ${fill.side === "sell" ? "short" : "long"}`, text: fill.side || MISSING }),
    short(fill.size), short(fill.price),
    { text: Number(fill.amount) ? signed(fill.amount) : MISSING, class: direction(fill.amount) },
    fill.fee_asset === "USDT" ? number(fill.fee, 4) : `${short(fill.fee)} ${fill.fee_asset}`,
  ]);
  return table(["<Time", "<Symbol", "<Side", "Size", "Price", "Realised", "Fee"], rows, {
    nothing: "No trade yet.", label: "Trades", cards: true,
  });
}

export function fillAlerts(alerts, sessionId, ofAll, nameOf) {
  const shown = alerts.filter((alert) => ofAll || !alert.session_id || alert.session_id === sessionId);
  const lines = shown.map((alert) => {
    const severity = SEVERITIES[alert.severity] ? alert.severity : "info";
    const lost = Object.entries(alert.deliveries || {}).filter(([, state]) => state === "dead");
    return make("li", {},
      make("span", { class: `mark ${severity}`, title: severity, text: SEVERITIES[severity] }),
      make("div", {},
        make("p", {},
          make("strong", { class: severity, text: alert.title }), " ",
          ofAll && alert.session_id ? make("span", { class: "soft", text: nameOf(alert.session_id) })
            : null),
        make("p", { class: "soft", text: alert.lines.filter(([label, value]) =>
          label || value).map(([label, value]) => `${label}: ${value}`).join(" · ") }),
        lost.length ? make("p", { class: "warn",
          text: `could not be delivered to ${lost.map(([channel]) => channel).join(", ")}` }) : null),
      make("time", { class: "soft number", datetime: alert.at, text: time(alert.at) }));
  });
  page("alert-list").replaceChildren(...(lines.length ? lines : [
    make("li", { class: "nothing", text: ofAll ? "No alerts." : "No alerts of this session." }),
  ]));
}

/** Minutes of the same cause that follow one another, as one stretch: {from, to, cause, minutes}. */
export function gapStretches(gaps) {
  const found = [];
  for (const gap of gaps) {
    const at = Date.parse(gap.minute);
    const last = found.at(-1);
    if (last && last.code === gap.cause && at - last.to === 60000) {
      last.to = at;
      last.minutes += 1;
    } else {
      found.push({
        from: at, to: at, minutes: 1, code: gap.cause, cause: gapWords(gap.cause),
        detail: gap.detail,
      });
    }
  }
  return found;
}

export function fillGaps(found) {
  const lines = found.slice(-50).reverse().map((gap) => make("li", {},
    make("span", { class: "mark warning", "aria-hidden": "true", text: "▨" }),
    make("div", {},
      make("p", { text: `${gap.minutes} ${gap.minutes === 1 ? "minute" : "minutes"}: ${gap.cause}` }),
      gap.detail ? make("p", { class: "soft", text: gap.detail }) : null),
    make("time", { class: "soft number", text: gap.minutes === 1 ? time(new Date(gap.from))
      : `${time(new Date(gap.from))} – ${time(new Date(gap.to), "minute")}` })));
  page("gaps").replaceChildren(...(lines.length ? lines : [
    make("li", { class: "nothing", text: "Every minute was measured." }),
  ]));
}
