// The page: creates its components, connects them, and shows each state in all of them.

import * as api from "./api.js";
import { Chips } from "./chips.js";
import { Detail } from "./detail.js";
import { $, element, first, imageCount } from "./dom.js";
import { save } from "./export.js";
import { Filters } from "./filters.js";
import { exampleSearches, fillList, loadFacets, loadIndexes, selectIndex } from "./indexes.js";
import { ImageMap } from "./map.js";
import * as notice from "./notice.js";
import { Results } from "./results.js";
import { Router } from "./router.js";
import { SearchBox } from "./search-box.js";
import { EMPTY, hasFilter, hasQuery, request, searchKey } from "./state.js";

/** Next to a text or other images, an image weighs less: images are far more similar to images than to texts. */
const COMBINED_WEIGHT = 0.5;
/** Statuses of a search that fails because of the URL of an image. */
const URL_ERRORS = [400, 403, 404, 415, 422];

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./api.js").Problem} Problem */

/** @type {import("./api.js").Index[]} */
let indexes = [];
/** @type {import("./api.js").Facet[]} */
let facets = [];
/** The index of the facets. */
let facetsIndex = "";
/** The key of the search whose results are shown. */
let shownSearch = "";

const router = new Router(render);
const results = new Results({
  open: (openId) => router.go({ openId }),
  searchLike,
  status,
  found,
  appended: () => hasQuery(router.state) && status(results.summary()),
  failed,
  pageFailed,
});
const searchBox = new SearchBox(router, { status, failed, focusResults: () => results.keys.focus() });
const chips = new Chips({ change: (change) => router.go(change, { replace: true }) });
const filters = new Filters({ change: (change) => router.go(change), save: saveResults });
const map = new ImageMap({
  open: (openId) => router.go({ openId }),
  viewed: (mapView) => router.state.view === "map" && router.go({ mapView }, { replace: true }),
  failed: (problem, retry) => router.state.view === "map" && failed(problem, retry),
  status,
});
const detail = new Detail({
  open: (openId) => router.go({ openId }, { replace: Boolean(router.state.openId) }),
  close: closeImage,
  searchLike: (id, weight) => searchLike(id, weight, { openId: "" }),
  filter: (facet, value) => {
    const condition = facet.type === "list" ? { has: [value] } : typeof value === "boolean" ? { is: value } : { any: [value] };
    router.go({ conditions: { ...router.state.conditions, [facet.field]: condition }, openId: "", view: "search" });
  },
  results: () => (router.state.view === "map" ? [] : results.list),
  facet: (field) => facets.find((facet) => facet.field === field && facet.values.length),
});

/** @param {State} state */
function render(state) {
  const isMap = state.view === "map";
  document.title = state.text ? `${state.text} – imgsearch` : "imgsearch";
  document.body.classList.toggle("map-view", isMap);
  $("to-search").href = router.link({ view: "search", openId: "" });
  $("to-map").href = router.link({ view: "map", openId: "" });
  $("to-search").ariaCurrent = isMap ? null : "page";
  $("to-map").ariaCurrent = isMap ? "page" : null;
  selectIndex(state.index);
  $("results").hidden = isMap;
  searchBox.render(state);
  chips.render(state);
  filters.render(state);
  if (!indexes.length) return;
  map.render(state);
  detail.render(state);
  if (searchKey(state) !== shownSearch) {
    shownSearch = searchKey(state);
    notice.clear();
    $("end").hidden = true;
    if (!isMap) results.search(state);
  }
  if (state.index !== facetsIndex) showFields(state);
}

/**
 * @param {import("./api.js").Page} page
 * @param {import("./api.js").Result[]} list
 */
function found(page, list) {
  const { state } = router;
  notice.clear();
  $("end").hidden = true;
  filters.limitScore(list, state);
  $("examples").hidden = hasQuery(state);
  const index = indexes.find(({ index }) => index === state.index);
  if (!list.length) showNoResults();
  else if (hasQuery(state)) status(`${results.summary()} · ${Math.max(1, Math.round(page.took_ms.total))} ms`);
  else status(`${imageCount(index?.images ?? 0)} in ${state.index}`);
}

function showNoResults() {
  status("No results");
  const clear = () => router.go({ conditions: {}, minScore: null });
  if (hasFilter(router.state)) notice.show("No image matches", "Change or clear the filters.", [["Clear all filters", clear]]);
  else notice.show("Empty index", "This index has no images.");
}

/**
 * @param {Problem} problem
 * @param {() => void} retry
 */
function failed(problem, retry) {
  const needsKey = problem.status === 401;
  status(needsKey ? "API key required" : "");
  $("examples").hidden = true;
  const parts = router.state.parts.filter((part) => part.kind !== "url");
  // While the search has a URL without an image, every search fails.
  if (parts.length < router.state.parts.length && problem.status && URL_ERRORS.includes(problem.status)) {
    notice.show("Image not available", problem.message, [["Remove it", () => router.go({ parts })]]);
  } else notice.showProblem(problem, needsKey ? start : retry);
}

/**
 * The next page of the results has failed. The images before it stay.
 *
 * @param {Problem} problem
 */
function pageFailed(problem) {
  const searchAgain = element("button", { className: "button", on: { click: () => results.search(router.state) } }, "Search again");
  $("end").replaceChildren(problem.status === 410 ? "A newer version of this index was published. " : `${problem.message} `, searchAgain);
  $("end").hidden = false;
}

/** @param {string} message */
function status(message) {
  $("status").textContent = message;
}

/**
 * @param {string} id
 * @param {number} weight
 * @param {Partial<State>} changes
 */
function searchLike(id, weight, changes = {}) {
  const { parts, text } = router.state;
  const others = parts.filter((part) => part.kind !== "id" || part.value !== id);
  const scale = others.length || text ? COMBINED_WEIGHT : 1;
  router.go({ parts: [...others, { kind: "id", value: id, weight: weight * scale }], view: "search", ...changes });
}

function closeImage() {
  const { openId, view } = router.state;
  router.closeImage();
  if (view === "search") results.keys.focus(openId);
}

/** @param {import("./export.js").Format} format */
async function saveResults(format) {
  status("Saving…");
  try {
    status(`Saved ${imageCount(await save(request(router.state), format))}`);
  } catch (error) {
    status(api.problemOf(error).message);
  }
}

/**
 * Shows the filters of the index and examples of searches.
 *
 * @param {State} state
 */
async function showFields({ index }) {
  facetsIndex = index;
  const loaded = await loadFacets(index);
  if (index !== router.state.index) return;
  facets = loaded;
  filters.create(facets, router.state);
  const buttons = exampleSearches(facets).map((text) => element("button", { className: "link", on: { click: () => router.go({ text }) } }, text));
  $("examples").replaceChildren("Try ", ...buttons.flatMap((button, i) => (i ? [", ", button] : [button])));
}

async function start() {
  notice.clear();
  status("");
  shownSearch = "";
  try {
    indexes = await loadIndexes(start);
  } catch (error) {
    return failed(api.problemOf(error), start);
  }
  if (!indexes.length) return;
  fillList(indexes);
  router.defaultIndex = indexes[0].index;
  const { state } = router;
  const exists = indexes.some(({ index }) => index === state.index);
  if (state.index && !exists) console.info(`Index ${state.index} does not exist; showing ${router.defaultIndex}.`);
  router.show(exists ? state : { ...state, index: router.defaultIndex });
}

/**
 * A click on the link changes the state. The browser opens the link if a key asks for a new tab or window.
 *
 * @param {HTMLElement} link
 * @param {() => Partial<State>} changes
 */
function follow(link, changes) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    router.go(changes());
  });
}

function listen() {
  $("index").addEventListener("change", () => {
    // Ids and vectors belong to one index.
    const parts = router.state.parts.filter((part) => part.kind === "url");
    router.go({ index: $("index").value, parts, conditions: {}, minScore: null, mapView: null, openId: "" });
  });
  follow($("to-search"), () => ({ view: "search", openId: "" }));
  follow($("to-map"), () => ({ view: "map", openId: "" }));
  follow(first(document, ".brand"), () => ({ ...EMPTY, index: router.state.index }));
  addEventListener("online", () => {
    shownSearch = "";
    if (indexes.length) render(router.state);
    else start();
  });
}

listen();
filters.create([], router.state);
render(router.state);
const hasTouch = matchMedia("(pointer: coarse)").matches;
if (!hasTouch && !router.state.openId && router.state.view === "search") $("text").focus();
await start();
