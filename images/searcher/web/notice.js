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
  410: "There is a newer index",
  413: "That is too large",
  429: "Too many searches at once",
  503: "One moment",
  504: "That took too long",
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
  const sentence = offline ? "This device is offline. The search goes on once it is back." : error.message;
  const headline = error.status === undefined ? undefined : HEADLINES[error.status];
  say(headline || "That did not work", sentence, [["Try again", again]]);
  if (error.retry) count(Math.max(1, Math.round(error.retry)), again);
}

/**
 * @param {number} seconds
 * @param {() => void} again
 */
function count(seconds, again) {
  const note = el("span", { className: "faint" });
  $("notice").lastElementChild?.append(note);
  const tell = () => (note.textContent = ` again by itself in ${seconds} s`);
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
    placeholder: "Key",
    ariaLabel: "Key of this searcher",
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
    el("button", { className: "act" }, "Continue"),
  );
  say("This searcher is locked", "Give its key to look at the images.", [], el("div", {}, form, wrong));
  key.focus();
}
