// The page's one way to the server: requests with the tab's token, and the stream of events.
// The token is in session storage and in one header, never in an address.

const TOKEN = "aifap-token";
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 30000;
const SILENCE_MAX_MS = 15000;
const ANSWER_MAX_MS = 60000;

export const token = () => sessionStorage.getItem(TOKEN);
export const keepToken = (text) => sessionStorage.setItem(TOKEN, text);
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** What the server said no with: `detail` for people, `errors` by field. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the server answered ${status}`);
    this.status = status;
    this.code = problem.code || "";
    this.errors = Array.isArray(problem.errors) ? problem.errors : [];
  }
}

/** One request; its JSON. Refused as the server says; status 0: it did not answer. */
export async function ask(method, path, body, headers = {}) {
  const sent = { Authorization: `Bearer ${token()}`, Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const options = { method, headers: sent, signal: AbortSignal.timeout(ANSWER_MAX_MS) };
  if (body !== undefined) options.body = JSON.stringify(body);
  let answer;
  let text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch {
    throw new Refused(0, { detail: "the server does not answer; nothing is known of it yet" });
  }
  let document_ = {};
  try {
    document_ = text ? JSON.parse(text) : {};
  } catch {
    throw new Refused(answer.status, {});
  }
  if (!answer.ok) throw new Refused(answer.status, document_);
  return document_;
}

/** A key under which a command is carried out once, however often its request is sent. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function parse(block) {
  const event = { name: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  return event;
}

/** Follows `/stream/live` of one session until `stop()`. `on`: live, trouble, end, lost, refused. */
export class Stream {
  constructor(sessionId, on) {
    this.path = `/stream/live${sessionId ? `?session_id=${encodeURIComponent(sessionId)}` : ""}`;
    this.on = on;
    this.isOver = false;
    this.controller = null;
    this.wake = null;
    this.stay();
  }

  stop() {
    this.isOver = true;
    if (this.controller) this.controller.abort();
    if (this.wake) this.wake();
  }

  /** Try again now instead of at the end of the pause. */
  hurry() {
    if (this.wake) this.wake();
  }

  async stay() {
    let wait = RETRY_FIRST_MS;
    while (!this.isOver) {
      const began = Date.now();
      this.controller = new AbortController();
      const outcome = await this.listen(this.controller).catch(() => ({ why: "lost" }));
      if (this.isOver) return;
      if (outcome.why === "refused") {
        this.isOver = true;
        this.on.refused(outcome.message, outcome.status);
        return;
      }
      if (Date.now() - began > RETRY_MAX_MS) wait = RETRY_FIRST_MS;
      const pause = outcome.wait || wait;
      this.on.lost(outcome.message || "", pause);
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, pause);
      });
      wait = Math.min(wait * 2, RETRY_MAX_MS);
    }
  }

  async listen(controller) {
    let watchdog = null;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => controller.abort(), SILENCE_MAX_MS);
    };
    alive();
    try {
      const headers = { Authorization: `Bearer ${token()}` };
      const answer = await fetch(this.path, { headers, signal: controller.signal });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => ({}));
        const isFinal = [401, 403, 404].includes(answer.status);
        const pause = Number(answer.headers.get("retry-after")) * 1000;
        return { why: isFinal ? "refused" : "lost", message: problem.detail,
          status: answer.status, wait: pause };
      }
      const reader = answer.body.getReader();
      const decoder = new TextDecoder();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.isOver) return { why: "lost" };
        alive();
        const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
        rest = blocks.pop();
        for (const event of blocks.map(parse)) {
          if (this.isOver) return { why: "lost" };
          const data = JSON.parse(event.data);
          if (event.name === "end") return { why: "refused", message: data.message };
          if (this.on[event.name]) this.on[event.name](data);
        }
      }
    } finally {
      clearTimeout(watchdog);
    }
  }
}
