// The notice in place of images: an error or an empty state, and buttons to go on.

import { logIn, OFFLINE, problemOf } from "./api.js";
import { $, element } from "./dom.js";

/** @typedef {[label: string, onClick: () => void]} Action A button. */

/** @type {number | undefined} */
let countdown;

export function clear() {
  clearInterval(countdown);
  $("notice").hidden = true;
  $("notice").replaceChildren();
}

/**
 * @param {string} headline
 * @param {string} message
 * @param {Action[]} actions
 * @param {Element | null} content shown between the message and the buttons
 */
export function show(headline, message, actions = [], content = null) {
  clear();
  const buttons = actions.map(([label, click]) => element("button", { type: "button", className: "button", on: { click } }, label));
  $("notice").append(element("h2", {}, headline), element("p", {}, message), ...(content ? [content] : []), element("p", {}, ...buttons));
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
 * Shows an error. If it is temporary, calls `retry` when its `retryAfter` has passed.
 *
 * @param {import("./api.js").Problem} error
 * @param {() => void} retry
 */
export function showProblem(error, retry) {
  if (error.status === 401) return askForKey(retry);
  if (error.status === undefined) console.error(error.cause ?? error);
  const offline = error.status === OFFLINE && !navigator.onLine;
  const message = offline ? "This device is offline. The search continues when it is online again." : error.message;
  const headline = error.status === undefined ? undefined : HEADLINES[error.status];
  show(headline || "Request failed", message, [["Try again", retry]]);
  if (error.retryAfter) countDown(Math.max(1, Math.round(error.retryAfter)), retry);
}

/**
 * @param {number} seconds
 * @param {() => void} retry
 */
function countDown(seconds, retry) {
  const label = element("span", { className: "muted" });
  $("notice").lastElementChild?.append(label);
  const update = () => (label.textContent = ` Retry in ${seconds} s`);
  update();
  countdown = setInterval(() => {
    seconds -= 1;
    if (seconds > 0) return update();
    clearInterval(countdown);
    retry();
  }, 1000);
}

/** @param {() => void} retry */
function askForKey(retry) {
  const error = element("p", { className: "error", role: "alert" });
  const key = element("input", {
    type: "password",
    name: "key",
    required: true,
    autocomplete: "current-password",
    placeholder: "API key",
    ariaLabel: "API key",
  });
  const form = element(
    "form",
    {
      className: "login",
      on: {
        submit: async (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          try {
            await logIn(key.value);
            clear();
            retry();
          } catch (failure) {
            error.textContent = problemOf(failure).message;
            key.select();
          }
        },
      },
    },
    key,
    element("button", { className: "button" }, "Log in"),
  );
  show("API key required", "Enter an API key to see the images.", [], element("div", {}, form, error));
  key.focus();
}
