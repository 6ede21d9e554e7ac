// A word for each state in which there is nothing to see, and what to do about it.

import { logIn, OFFLINE } from "./api.js";
import { $, el } from "./dom.js";

let waiting;

export function clear() {
  clearInterval(waiting);
  $("notice").hidden = true;
  $("notice").replaceChildren();
}

/** A headline, a sentence, and what can be done: [[words, act]…]. */
export function say(headline, sentence, acts = [], extra = null) {
  clear();
  const buttons = acts.map(([words, act]) => el("button", { type: "button", className: "act", on: { click: act } }, words));
  $("notice").append(el("h2", {}, headline), el("p", {}, sentence), ...[extra].filter(Boolean), el("p", {}, ...buttons));
  $("notice").hidden = false;
}

const HEADLINES = {
  [OFFLINE]: "No connection",
  410: "A newer index is available",
  413: "Too large",
  429: "Too many requests",
  503: "Temporarily unavailable",
  504: "Timeout",
};

/** What went wrong, in its own words; what passes by itself is tried again by itself. */
export function problem(error, again) {
  if (error.status === 401) return ask(again);
  if (!(error.status in HEADLINES) && error.status === undefined) console.error(error);
  const offline = error.status === OFFLINE && !navigator.onLine;
  const sentence = offline ? "This device is offline. The search continues when it is online again." : error.message;
  say(HEADLINES[error.status] || "Request failed", sentence, [["Try again", again]]);
  if (error.retry) count(Math.max(1, Math.round(error.retry)), again);
}

function count(seconds, again) {
  const note = el("span", { className: "faint" });
  $("notice").lastChild.append(note);
  const tell = () => (note.textContent = ` retry in ${seconds} s`);
  tell();
  waiting = setInterval(() => {
    seconds -= 1;
    if (seconds > 0) return tell();
    clearInterval(waiting);
    again();
  }, 1000);
}

function ask(again) {
  const wrong = el("p", { className: "wrong", role: "alert" });
  const key = el("input", {
    type: "password",
    name: "key",
    required: true,
    autocomplete: "current-password",
    placeholder: "API key",
    ariaLabel: "API key",
  });
  const form = el(
    "form",
    {
      className: "login",
      on: {
        submit: async (event) => {
          event.preventDefault();
          try {
            await logIn(key.value);
            clear();
            again();
          } catch (error) {
            wrong.textContent = error.message;
            key.select();
          }
        },
      },
    },
    key,
    el("button", { className: "act" }, "Log in"),
  );
  say("API key required", "Enter an API key to see the images.", [], el("div", {}, form, wrong));
  key.focus();
}
