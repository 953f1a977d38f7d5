// What a person commands of a session that is there: stop it, halt its account, lift a halt.
// Each is asked once more in words, sent under a key of its own, and answered in place.
import { make, page } from "./page.js";
import { ask, newKey } from "./wire.js";

/** Opens the one dialog for a question; `send(values)` answers with a message or throws. */
function question({ title, words, fields, confirm, className, send }) {
  const dialog = page("ask-dialog");
  const form = page("ask-form");
  const said = make("p", { class: "said", role: "alert" });
  const yes = make("button", { type: "submit", class: className || "primary", text: confirm });
  const no = make("button", { type: "button", text: "Cancel", onclick: () => dialog.close() });
  form.replaceChildren(
    make("h2", { id: "ask-title", text: title }),
    ...words.map((text) => make("p", { text })),
    ...fields, said, make("div", { class: "buttons" }, yes, no),
  );
  form.onsubmit = async (event) => {
    event.preventDefault();
    yes.disabled = true;
    said.textContent = "";
    try {
      const message = await send(new FormData(form));
      said.classList.add("good");
      said.textContent = message;
      yes.hidden = true;
      no.textContent = "Close";
      no.focus();
    } catch (error) {
      said.textContent = error.message;
    } finally {
      yes.disabled = false;
    }
  };
  said.classList.remove("good");
  dialog.showModal();
}

function choice(name, value, isChosen, title, words) {
  return make("label", { class: "choice" },
    make("input", { type: "radio", name, value, checked: isChosen }),
    make("span", {}, make("strong", { text: title }), make("span", { class: "soft", text: words })));
}

export function askToStop(session) {
  const key = newKey();
  const wasFlat = session.desired === "stopped" && session.end_state === "flat";
  question({
    title: `Stop ${session.strategy_name}?`,
    words: ["The session ends for good; a new one can be started on the account afterwards."],
    fields: [make("fieldset", {}, make("legend", { text: "How it leaves the account" }),
      choice("mode", "protected", !wasFlat, "Protected",
        "Positions stay open, with their stops on the exchange. Nothing is traded."),
      choice("mode", "flat", wasFlat, "Flat",
        "All of its positions are closed at the market price, and nothing is left behind."))],
    confirm: "Stop the session",
    className: "danger",
    send: async (values) => {
      const query = new URLSearchParams({ session_id: session.session_id, mode: values.get("mode") });
      const answer = await ask("POST", `/command/terminate?${query}`, undefined,
        { "Idempotency-Key": key });
      return answer.message;
    },
  });
}

function reasonField() {
  return make("label", { class: "field" }, make("span", { text: "Why (shown to people)" }),
    make("input", { name: "reason", maxlength: "200", autocomplete: "off" }));
}

export function askToHalt(session) {
  const key = newKey();
  const whole = session === null;
  question({
    title: whole ? "Halt every account of the installation?" : `Halt account ${session.account}?`,
    words: [
      "The kill switch: nothing opens from now on, whoever asks. Reductions and stops still leave, "
        + "positions stay. Sessions go on running and can be stopped as ever.",
    ],
    fields: [reasonField()],
    confirm: whole ? "Halt everything" : "Halt the account",
    className: "danger",
    send: async (values) => {
      const reason = values.get("reason");
      const body = whole ? { all: true, reason } : { account_id: session.account_id, reason };
      return (await ask("POST", "/command/halt", body, { "Idempotency-Key": key })).message;
    },
  });
}

export function askToResume(session) {
  const key = newKey();
  question({
    title: `Let account ${session.account} open again?`,
    words: ["The kill switch is lifted; the next cycle trades as planned."],
    fields: [],
    confirm: "Lift the halt",
    send: async () => (await ask("POST", "/command/resume", { account_id: session.account_id },
      { "Idempotency-Key": key })).message,
  });
}
