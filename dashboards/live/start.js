// The form that starts a session: what the server says of a field stands beside the field.
import { make, page } from "./page.js";
import { previewPlan } from "./plan.js";
import { ask, newKey } from "./wire.js";

const NEW_PAPER = "new-paper-";
const MODES = [
  ["rebalancing", "rebalancing", "The whole book goes to the weights; what is not named is closed."],
  ["general", "general", "Only the symbols that the strategy names are touched."],
  ["volatility_targeting", "volatility targeting", "All weights are scaled to a volatility."],
];
const INTERVALS = ["1m", "5m", "15m", "30m", "1h", "4h", "12h", "1d"];

let accounts = [];
let key = newKey();
let sent = "";

function field(name, title, control, note) {
  control.id = `start-${name}`;
  control.name = name;
  control.setAttribute("aria-describedby", `said-${name}`);
  return make("div", { class: "field" }, make("label", { for: control.id, text: title }), control,
    note ? make("p", { class: "soft small", text: note }) : null,
    make("p", { class: "said", id: `said-${name}`, role: "alert" }));
}

const select = (options, chosen) => make("select", {}, ...options.map(([value, text]) =>
  make("option", { value, text, selected: value === chosen })));

const numeric = (placeholder, value) => make("input", {
  inputmode: "decimal", autocomplete: "off", placeholder, value,
});

function tick(name, title, note) {
  return make("label", { class: "choice" }, make("input", { type: "checkbox", name }),
    make("span", {}, make("strong", { text: title }), make("span", { class: "soft", text: note })));
}

export async function openStart(started) {
  const dialog = page("start-dialog");
  const form = page("start-form");
  page("preview").replaceChildren();
  form.replaceChildren(make("p", { class: "soft", text: "Reading strategies and accounts …" }));
  if (!dialog.open) dialog.showModal();
  try {
    const [strategies, mine] = await Promise.all([
      ask("GET", "/upload/strategies"), ask("GET", "/accounts"),
    ]);
    accounts = mine.accounts.filter((account) => account.active);
    build(form, strategies.strategies);
  } catch (error) {
    form.replaceChildren(make("p", { class: "said", role: "alert", text: error.message }),
      make("button", { type: "button", text: "Try again", onclick: () => openStart(started) }));
    return;
  }
  form.onsubmit = (event) => {
    event.preventDefault();
    start(form, started);
  };
  form.oninput = () => show(form);
  show(form);
}

function build(form, strategies) {
  const known = strategies.map((one) => [one.name, one.built_in ? `${one.name} (built in)` : one.name]);
  const names = accounts.map((account) => [account.account_id,
    `${account.label}: ${account.trade_env} ${account.market}`]);
  const fresh = ["futures", "spot"]
    .filter((market) => !accounts.some((a) => a.market === market && a.trade_env === "paper"))
    .map((market) => [NEW_PAPER + market, `new paper ${market} account, 10,000 USDT`]);
  const paper = accounts.find((account) => account.trade_env === "paper");
  form.replaceChildren(
    field("strategy_name", "Strategy", select(known),
      "Upload one with POST /upload/strategies; it is offered here at once."),
    field("account_id", "Account", select([...names, ...fresh], paper ? paper.account_id : undefined)),
    make("div", { class: "grid" },
      field("trade_mode", "Mode", select(MODES), MODES[0][2]),
      field("interval", "Interval", select(INTERVALS.map((text) => [text, text]), "5m")),
      field("leverage", "Leverage", numeric("1", "1")),
      field("default_stop_loss_pct", "Stop loss, % of entry", numeric("none"),
        "Where the strategy gives none."),
      field("target_volatility", "Target volatility, a year", numeric("0.4"), "0.4 is 40 %.")),
    make("details", {}, make("summary", { text: "More" }), make("div", { class: "grid" },
      field("allocated", "Allocated, USDT", numeric("all of the account")),
      field("threshold", "Threshold of weight", numeric("0.01")),
      field("trading_hours", "Hours until it ends by itself", numeric("720")),
      field("on_end", "How it ends by itself", select([["protected", "protected"], ["flat", "flat"]]),
        "Protected: positions stay, with their stops. Flat: all is closed.")),
    tick("compounding", "Compounding", "Weights are fractions of what the account is worth now."),
    tick("apply_account_settings", "May set leverage and margin mode",
      "Of flat symbols; else a difference at the exchange stops it."),
    tick("adopt_existing", "Adopt what is there",
      "Positions or coins on the account become the session's; else they refuse the start.")),
    make("div", { id: "live-check", class: "danger-box", hidden: true },
      tick("confirmed", "This trades real money.",
        "Orders go to the exchange without being asked again.")),
    make("p", { class: "said", id: "said-form", role: "alert" }),
    make("div", { class: "buttons" },
      make("button", { type: "submit", class: "primary", id: "start-send", text: "Start session" }),
      make("button", { type: "button", id: "start-preview", text: "Preview first cycle",
        onclick: () => preview(form) }),
      make("button", { type: "button", id: "start-check", text: "Check account",
        onclick: () => check(form) })),
  );
}

const accountOf = (form) => accounts.find((one) => one.account_id === form.elements.account_id.value);

function marketOf(form) {
  const account = accountOf(form);
  if (account) return [account.market, account.trade_env];
  return [form.elements.account_id.value.slice(NEW_PAPER.length), "paper"];
}

/** What depends on what was chosen: spot has no leverage, live money is confirmed. */
function show(form) {
  const [market, env] = marketOf(form);
  const isLive = env === "live";
  page("live-check").hidden = !isLive;
  form.elements.leverage.disabled = market === "spot";
  if (market === "spot") form.elements.leverage.value = "1";
  const scales = form.elements.trade_mode.value === "volatility_targeting";
  form.elements.target_volatility.closest(".field").hidden = !scales;
  const mode = form.elements.trade_mode;
  mode.parentElement.querySelector(".small").textContent = MODES.find(([name]) => name === mode.value)[2];
  page("start-preview").disabled = !accountOf(form);
  page("start-check").disabled = !accountOf(form);
  page("start-send").className = isLive ? "danger" : "primary";
  page("start-send").textContent = isLive ? "Start with real money" : "Start session";
}

function body(form) {
  const values = form.elements;
  const [market, env] = marketOf(form);
  const account = accountOf(form);
  const request = {
    tradeType: market, strategy_name: values.strategy_name.value,
    trade_mode: values.trade_mode.value, trade_env: env, interval: values.interval.value,
    on_end: values.on_end.value, compounding: values.compounding.checked,
    apply_account_settings: values.apply_account_settings.checked,
    adopt_existing: values.adopt_existing.checked,
  };
  if (account) request.account_id = account.account_id;
  for (const name of ["leverage", "default_stop_loss_pct", "allocated", "threshold", "trading_hours",
    "target_volatility"]) {
    const text = values[name].value.trim();
    if (text && !values[name].closest(".field").hidden) {
      request[name] = text; // the server reads numbers by their text, and says what is none
    }
  }
  return request;
}

function tell(form, error) {
  for (const said of form.querySelectorAll(".said")) said.textContent = "";
  for (const control of form.elements) control.removeAttribute("aria-invalid");
  if (!error) return;
  const errors = error.errors && error.errors.length ? error.errors : guessed(error.message);
  const rest = [];
  for (const { field: name, message } of errors) {
    const said = document.getElementById(`said-${name}`);
    const control = form.elements[name];
    if (!said || !control) {
      rest.push(name === "request" || name === "form" ? message : `${name}: ${message}`);
      continue;
    }
    said.textContent = message;
    control.setAttribute("aria-invalid", "true");
    const folded = said.closest("details");
    if (folded) folded.open = true;
  }
  page("said-form").textContent = rest.join(" ");
  const first = form.querySelector("[aria-invalid]");
  if (first) first.focus();
}

/** A problem without fields may name one in its first words: "account_id: …", "leverage must …". */
function guessed(message) {
  const found = /^(?:account ([0-9a-f-]{36})|([a-z_]+)[: ])/.exec(message);
  const name = found ? (found[1] ? "account_id" : found[2]) : "form";
  return [{ field: document.getElementById(`said-${name}`) ? name : "form", message }];
}

async function start(form, started) {
  const [, env] = marketOf(form);
  if (env === "live" && !form.elements.confirmed.checked) {
    tell(form, { message: "Confirm that this trades real money." });
    form.elements.confirmed.focus();
    return;
  }
  const request = body(form);
  const text = JSON.stringify(request);
  if (text !== sent) key = newKey(); // another wish; the same one again keeps its key
  sent = text;
  const send = page("start-send");
  send.disabled = true;
  tell(form, null);
  try {
    const answer = await ask("POST", "/command/run-system", request, { "Idempotency-Key": key });
    sent = "";
    page("start-dialog").close();
    started(answer.session_id);
  } catch (error) {
    if (error.status) sent = ""; // it said no; without an answer the next try asks the same again
    tell(form, error);
  } finally {
    send.disabled = false;
  }
}

async function preview(form) {
  const request = body(form);
  for (const name of ["tradeType", "trade_env", "interval", "on_end", "trading_hours",
    "compounding"]) {
    delete request[name];
  }
  await aside(form, "Asking the strategy …", async () =>
    previewPlan(await ask("POST", "/temp/preview", request)));
}

async function check(form) {
  const account = accountOf(form);
  await aside(form, "Asking the exchange …", async () => {
    const found = await ask("POST", `/accounts/${encodeURIComponent(account.account_id)}/check`);
    const lines = [
      found.fit ? "✓ The account is fit to trade." : "✕ The account is not fit to trade.",
      ...found.faults.map((text) => `✕ ${text}`), ...found.warnings.map((text) => `⚠ ${text}`),
      `equity ${found.equity} USDT, free ${found.available}, positions ${found.positions}, `
        + `waiting orders ${found.open_orders}`,
    ];
    return make("div", {}, ...lines.map((text) => make("p", { text })));
  });
}

async function aside(form, waiting, work) {
  const place = page("preview");
  tell(form, null);
  place.replaceChildren(make("p", { class: "soft", role: "status", text: waiting }));
  try {
    place.replaceChildren(await work());
  } catch (error) {
    place.replaceChildren();
    tell(form, error);
  }
  place.scrollIntoView({ block: "nearest" });
}
