// One page over the search API: the state, which is the address, and the parts that show it.

import * as api from "./api.js";
import { Chips } from "./chips.js";
import { Detail } from "./detail.js";
import { $, after, closest, el, first, images, number } from "./dom.js";
import { save } from "./export.js";
import { Filters } from "./filters.js";
import { ImageMap } from "./map.js";
import * as notice from "./notice.js";
import { Results } from "./results.js";
import { asks, EMPTY, filtered, question, read, request, write } from "./state.js";
import * as upload from "./upload.js";

/** After the last keystroke. */
const PAUSE = 220;
const LOADING_SECONDS = 2;
const HINTS = 4;
/** Beside words or other images, an image weighs less: images are far more like each other than any is like words. */
const BESIDE = 0.5;

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./api.js").Problem} Problem */
/** @typedef {{ replace?: boolean }} How `replace`: the address takes the place of the one before. */

let state = read(location.search);
/** @type {import("./api.js").Index[]} */
let served = [];
/** @type {import("./api.js").Facet[]} */
let facets = [];
let searched = "";

const results = new Results({
  open: (id) => go({ open: id }),
  like,
  status,
  found,
  grown: () => asks(state) && status(results.sentence()),
  failed,
  ended,
});
const chips = new Chips({ change: (change) => go(change, { replace: true }) });
const filters = new Filters({ change: (change) => go(change), save: keep });
const map = new ImageMap({
  open: (id) => go({ open: id }),
  moved: (at) => state.view === "map" && go({ at }, { replace: true }),
  problem: (error, again) => state.view === "map" && failed(error, again),
  status,
});
const detail = new Detail({
  open: (id) => go({ open: id }, { replace: Boolean(state.open) }),
  close: closed,
  like: (id, weight) => {
    like(id, weight, { open: "" });
  },
  filter: (facet, value) => {
    const wanted = facet.type === "list" ? { has: [value] } : typeof value === "boolean" ? { is: value } : { any: [value] };
    go({ where: { ...state.where, [facet.field]: wanted }, open: "", view: "search" });
  },
  list: () => (state.view === "map" ? [] : results.list),
  facet: (field) => facets.find((facet) => facet.field === field && facet.values.length),
});

/**
 * The one way in which anything changes: a new state, a new address, and the page shows them.
 *
 * @param {Partial<State>} changes
 * @param {How} how
 */
function go(changes, { replace = false } = {}) {
  const opens = changes.open && !state.open;
  state = { ...state, ...changes };
  const address = `${location.pathname}${write(state)}`;
  if (replace) history.replaceState(history.state, "", address);
  else if (address !== location.pathname + location.search) history.pushState({ opened: Boolean(opens) }, "", address);
  render();
}

function render() {
  if (document.activeElement !== $("text") || $("text").value.trim() !== state.text) $("text").value = state.text;
  document.title = state.text ? `${state.text} – imgsearch` : "imgsearch";
  document.body.classList.toggle("mapped", state.view === "map");
  $("to-search").href = `./${write({ ...state, view: "search", open: "" })}`;
  $("to-map").href = `./${write({ ...state, view: "map", open: "" })}`;
  $("to-search").ariaCurrent = state.view === "search" ? "page" : null;
  $("to-map").ariaCurrent = state.view === "map" ? "page" : null;
  $("index").value = state.index;
  $("results").hidden = state.view !== "search";
  chips.render(state);
  filters.render(state);
  if (!served.length) return;
  map.render(state);
  detail.render(state);
  if (question(state) !== searched) {
    searched = question(state);
    notice.clear();
    $("end").hidden = true;
    if (state.view === "search") results.find(state);
  }
}

/**
 * @param {import("./api.js").Page} page
 * @param {import("./api.js").Result[]} list
 */
function found(page, list) {
  notice.clear();
  $("end").hidden = true;
  filters.found(list, state);
  $("hints").hidden = asks(state);
  if (!list.length) return nothing();
  const all = served.find(({ index }) => index === state.index)?.images ?? 0;
  if (!asks(state)) status(`${images(all)} in ${state.index}`);
  else status(`${results.sentence()} · ${Math.max(1, Math.round(page.took_ms.total))} ms`);
}

function nothing() {
  status("No results");
  const drop = { where: {}, score: null };
  if (filtered(state)) notice.say("No image matches", "Change or clear the filters.", [["Clear all filters", () => go(drop)]]);
  else notice.say("Empty index", "This index has no images.");
}

/**
 * @param {Problem} problem
 * @param {() => void} again
 */
function failed(problem, again) {
  status(problem.status === 401 ? "API key required" : "");
  if (problem.status === 401) again = start;
  $("hints").hidden = true;
  const parts = state.parts.filter((part) => part.kind !== "url");
  notice.problem(problem, again);
  // An address that gives no image is in the way of everything else.
  if (parts.length < state.parts.length && problem.status && [400, 403, 404, 415, 422].includes(problem.status)) {
    notice.say("Image not available", problem.message, [["Remove it", () => go({ parts })]]);
  }
}

/**
 * The next page has failed. The images stay.
 *
 * @param {Problem} problem
 */
function ended(problem) {
  const again = el("button", { className: "act", on: { click: () => results.find(state) } }, "Search again");
  $("end").replaceChildren(problem.status === 410 ? "A newer version of this index was published. " : `${problem.message} `, again);
  $("end").hidden = false;
}

/** @param {string} sentence */
function status(sentence) {
  $("status").textContent = sentence;
}

/**
 * @param {string} id
 * @param {number} weight
 * @param {Partial<State>} more
 */
function like(id, weight, more = {}) {
  const others = state.parts.filter((part) => part.kind !== "id" || part.value !== id);
  const size = others.length || state.text ? BESIDE : 1;
  go({ parts: [...others, { kind: "id", value: id, weight: weight * size }], view: "search", ...more });
}

function closed() {
  const id = state.open;
  if (history.state?.opened) history.back();
  else go({ open: "" }, { replace: true });
  if (state.view === "search") results.focus(id);
}

/** @param {import("./export.js").Format} format */
async function keep(format) {
  status("Saving…");
  try {
    status(`Saved ${images(await save(request(state), format))}`);
  } catch (error) {
    status(api.problemOf(error).message);
  }
}

const typed = after(PAUSE, () => words($("text").value, { replace: true }));

/**
 * @param {string} text
 * @param {How} [how]
 */
function words(text, how) {
  typed.cancel();
  text = text.trim();
  if (upload.isAddress(text)) return;
  if (text !== state.text) go({ text, view: "search", open: "", ...(text ? {} : { weight: 1 }) }, how);
}

/** @param {() => upload.Unweighted | Promise<upload.Unweighted>} make */
async function bring(make) {
  typed.cancel();
  status("Reading the image…");
  try {
    const part = await make();
    // A new image starts a new search; "more like this" keeps the text.
    go({ text: "", weight: 1, parts: [{ ...part, weight: 1 }], view: "search", open: "" });
    $("text").value = "";
  } catch (error) {
    failed(api.problemOf(error), () => bring(make));
  }
}

function listen() {
  $("text").addEventListener("input", () => typed());
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value;
    if (upload.isAddress(text)) bring(() => upload.ofAddress(text));
    else words(text);
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && results.focus()) event.preventDefault();
    if (event.key === "Escape" && !$("text").value) $("text").blur();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || closest(event, "input, select, dialog")) return;
    event.preventDefault();
    $("text").focus();
    $("text").select();
  });
  $("index").addEventListener("change", async () => {
    // An id or a vector means nothing in another index.
    const parts = state.parts.filter((part) => part.kind === "url");
    go({ index: $("index").value, parts, where: {}, score: null, at: null, open: "" });
    await describe();
  });
  follow($("to-search"), () => go({ view: "search", open: "" }));
  follow($("to-map"), () => go({ view: "map", open: "" }));
  follow(first(document, ".brand"), () => go({ ...EMPTY, index: state.index }));
  addEventListener("popstate", () => {
    const index = state.index;
    state = { ...read(location.search) };
    state.index ||= served[0]?.index || "";
    render();
    if (state.index !== index) describe();
  });
  addEventListener("online", () => {
    searched = "";
    if (served.length) render();
    else start();
  });
  upload.listen({
    file: (file) => bring(() => upload.ofFile(file, state.index)),
    address: (text) => bring(() => upload.ofAddress(text)),
  });
}

/**
 * A click on a link does `act`; one that opens a new tab or window is left to the browser.
 *
 * @param {HTMLElement} link
 * @param {() => void} act
 */
function follow(link, act) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    act();
  });
}

/** The fields of this index, and words to begin with. */
async function describe() {
  const index = state.index;
  try {
    const { fields } = await api.facets(index);
    if (index !== state.index) return;
    facets = fields;
  } catch (error) {
    const problem = api.problemOf(error);
    if (problem.status !== 404) console.info(problem.message);
    facets = [];
  }
  filters.make(facets, state);
  hint();
}

function hint() {
  const most = facets
    .filter((facet) => facet.type === "list" && facet.values.every(({ value }) => typeof value === "string"))
    .flatMap((facet) => facet.values.slice(0, 40).map(({ value }) => String(value)));
  const own = most.filter((value) => value.length < 24).slice(2, 2 + HINTS);
  const hints = own.length === HINTS ? own : ["a dog on a beach", "red flowers", "a street at night", "people at a table"];
  /** @param {string} text */
  const button = (text) => el("button", { className: "plain", on: { click: () => go({ text }) } }, text);
  $("hints").replaceChildren("Try ", ...hints.flatMap((text, place) => (place ? [", ", button(text)] : [button(text)])));
}

async function start() {
  notice.clear();
  let list;
  try {
    list = await api.indexes();
  } catch (error) {
    return failed(api.problemOf(error), start);
  }
  served = list.indexes;
  const wrong = Object.entries(list.problems);
  if (!served.length) return none(wrong);
  if (!served.some(({ index }) => index === state.index)) {
    const missing = state.index;
    state = { ...state, index: served[0].index };
    if (missing) console.info(`Index ${missing} does not exist; showing ${state.index}.`);
  }
  $("index").replaceChildren(...served.map(({ index, images: count }) => el("option", { value: index }, `${index} · ${number(count)}`)));
  $("index").hidden = served.length < 2;
  await Promise.all([describe(), render()]);
}

/** @param {[index: string, reason: string][]} wrong */
function none(wrong) {
  status("");
  const loading = wrong.length && wrong.every(([, reason]) => reason.includes("is being loaded"));
  if (loading) {
    notice.say("Loading the model", "The search starts when the model is loaded.");
    setTimeout(start, LOADING_SECONDS * 1000);
  } else if (wrong.length) {
    notice.say("No index is available", wrong.map(([index, reason]) => `${index}: ${reason}`).join(" "), [["Try again", start]]);
  } else {
    const how = el("pre", {}, "controller run-pipeline ~/Pictures --local");
    notice.say("No index yet", "Create one with this command:", [["Check again", start]], how);
  }
}

listen();
filters.make([], state);
render();
if (!matchMedia("(pointer: coarse)").matches && !state.open && state.view === "search") $("text").focus();
await start();
