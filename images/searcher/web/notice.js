// A message for each state in which there are no images to see, and what to do about it.

import { logIn, OFFLINE, problemOf } from "./api.js";
import { $, el } from "./dom.js";

/** @typedef {[words: string, act: () => void]} Act A button. */

/** @type {number | undefined} */
let waiting;

export function clear() {
  clearInterval(waiting);
  $("notice").hidden = true;
  $("notice").replaceChildren();
}

/**
 * @param {string} headline
 * @param {string} sentence
 * @param {Act[]} acts what the person can do
 * @param {Element | null} extra
 */
export function say(headline, sentence, acts = [], extra = null) {
  clear();
  const buttons = acts.map(([words, act]) => el("button", { type: "button", className: "act", on: { click: act } }, words));
  $("notice").append(el("h2", {}, headline), el("p", {}, sentence), ...(extra ? [extra] : []), el("p", {}, ...buttons));
  $("notice").hidden = false;
}

/** @type {Record<number, string>} */
const HEADLINES = {
  [OFFLINE]: "No connection",
  410: "A newer index is available",
  413: "Too large",
  429: "Too many requests",
  503: "Temporarily unavailable",
  504: "Timeout",
};

/**
 * Shows an error. A temporary one is tried again by itself.
 *
 * @param {import("./api.js").Problem} error
 * @param {() => void} again
 */
export function problem(error, again) {
  if (error.status === 401) return ask(again);
  if (error.status === undefined) console.error(error.cause ?? error);
  const offline = error.status === OFFLINE && !navigator.onLine;
  const sentence = offline ? "This device is offline. The search continues when it is online again." : error.message;
  const headline = error.status === undefined ? undefined : HEADLINES[error.status];
  say(headline || "Request failed", sentence, [["Try again", again]]);
  if (error.retry) count(Math.max(1, Math.round(error.retry)), again);
}

/**
 * @param {number} seconds
 * @param {() => void} again
 */
function count(seconds, again) {
  const note = el("span", { className: "faint" });
  $("notice").lastElementChild?.append(note);
  const tell = () => (note.textContent = ` retry in ${seconds} s`);
  tell();
  waiting = setInterval(() => {
    seconds -= 1;
    if (seconds > 0) return tell();
    clearInterval(waiting);
    again();
  }, 1000);
}

/** @param {() => void} again */
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
        submit: async (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          try {
            await logIn(key.value);
            clear();
            again();
          } catch (error) {
            wrong.textContent = problemOf(error).message;
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
