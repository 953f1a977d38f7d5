// What every part of the page is built with: elements, and numbers and times for people.
// Text goes in as text, never as markup.

export const page = (id) => document.getElementById(id);

/** An element; `attributes` may have `class`, `text`, `on…` listeners; children are nodes or text. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Sets text only where it differs, so that nothing is read out or redrawn again. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const MISSING = "–";
const isMissing = (value) => value === null || value === undefined || value === "";

/** Money and sizes arrive as exact text; they are only cut for display. */
export function number(value, places = 2) {
  if (isMissing(value)) return MISSING;
  const shown = Number(value);
  if (!Number.isFinite(shown)) return String(value);
  const text = shown.toLocaleString("en", {
    minimumFractionDigits: places, maximumFractionDigits: places,
  });
  return /^-[0.,]+$/.test(text) ? text.slice(1) : text.replace("-", "−");
}

export function signed(value, places = 2) {
  if (isMissing(value)) return MISSING;
  const text = number(value, places);
  return Number(value) > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** As many digits as say something: prices and sizes of coins of very different worth. */
export function short(value) {
  if (isMissing(value)) return MISSING;
  const shown = Number(value);
  if (!Number.isFinite(shown)) return MISSING;
  return shown.toLocaleString("en", { maximumSignificantDigits: 7 }).replace("-", "−");
}

export function percent(value, places = 2) {
  return isMissing(value) ? MISSING : `${number(Number(value) * 100, places)}\u00a0%`;
}

export function signedPercent(value, places = 2) {
  return isMissing(value) ? MISSING : `${signed(Number(value) * 100, places)}\u00a0%`;
}

/** up, down or nothing: the colour; the sign in the text says the same. */
export function direction(value) {
  const sign = Math.sign(Number(value || 0));
  return sign > 0 ? "up" : sign < 0 ? "down" : "";
}

let zone = "UTC";
const formats = new Map();

export function useTimezone(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    zone = name;
  } catch {
    zone = "UTC";
  }
  formats.clear();
}

function format(style) {
  if (!formats.has(style)) {
    const parts = {
      clock: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
      minute: { hour: "2-digit", minute: "2-digit" },
      day: { month: "short", day: "numeric" },
      moment: { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" },
      whole: {
        year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
        second: "2-digit", timeZoneName: "short",
      },
    }[style];
    formats.set(style, new Intl.DateTimeFormat("en-GB", {
      ...parts, hourCycle: "h23", timeZone: zone,
    }));
  }
  return formats.get(style);
}

/** A time in the installation's zone; `style`: clock, minute, day, moment or whole. */
export function time(value, style = "moment") {
  if (isMissing(value)) return MISSING;
  const when = value instanceof Date ? value : new Date(value);
  return Number.isNaN(when.getTime()) ? MISSING : format(style).format(when).replace(",", "");
}

export function lasting(seconds) {
  if (isMissing(seconds)) return MISSING;
  const whole = Math.max(0, Math.round(seconds));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${whole} s`;
}

/** A table that scrolls inside its own frame; a cell is text, a node, or {text, class, title}.
 *  With `cards` each row is a card of labelled values where the screen is narrow. */
export function table(headings, rows, { nothing, label, onrow, cards } = {}) {
  if (!rows.length) return make("p", { class: "nothing", text: nothing });
  const head = make("tr", {}, ...headings.map((heading) => make("th", {
    scope: "col", text: heading.replace(/^</, ""), class: heading.startsWith("<") ? "left" : null,
  })));
  const body = rows.map((row, index) => {
    const line = make("tr", {}, ...row.map((cell, column) => {
      const left = headings[column].startsWith("<") ? "left" : "";
      const name = cards ? headings[column].replace(/^</, "") : null;
      if (cell instanceof Node) return make("td", { class: left, "data-name": name }, cell);
      const known = cell !== null && typeof cell === "object" ? cell : { text: cell };
      return make("td", {
        class: `${left} ${known.class || ""}`.trim(), title: known.title, "data-name": name,
        text: known.text,
      });
    }));
    if (onrow) onrow(line, index);
    return line;
  });
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    make("table", { class: cards ? "cards" : null }, make("thead", {}, head), make("tbody", {}, ...body)));
}
