// The indexes of the searcher: the list to choose from, the fields of the chosen one, and a notice if there is none.

import * as api from "./api.js";
import { $, element, formatNumber } from "./dom.js";
import * as notice from "./notice.js";

const LOADING_SECONDS = 2;
const RECALL_CUTOFF = 10;
const EXAMPLES = 4;
const MAX_EXAMPLE_LENGTH = 24;
const GENERAL_EXAMPLES = ["a dog on a beach", "red flowers", "a street at night", "people at a table"];

/** @typedef {import("./api.js").Index} Index */
/** @typedef {import("./api.js").Facet} Facet */

/**
 * The indexes that can be searched. If there are none, shows a notice that says why.
 *
 * @param {() => void} retry
 * @returns {Promise<Index[]>}
 */
export async function loadIndexes(retry) {
  const { indexes, problems } = await api.indexes();
  if (!indexes.length) showNoIndex(Object.entries(problems), retry);
  return indexes;
}

/**
 * @param {[index: string, reason: string][]} problems
 * @param {() => void} retry
 */
function showNoIndex(problems, retry) {
  const isLoading = problems.length && problems.every(([, reason]) => reason.includes("is being loaded"));
  if (isLoading) {
    notice.show("Loading the model", "The search starts when the model is loaded.");
    setTimeout(retry, LOADING_SECONDS * 1000);
  } else if (problems.length) {
    const reasons = problems.map(([index, reason]) => `${index}: ${reason}`).join(" ");
    notice.show("No index is available", reasons, [["Try again", retry]]);
  } else {
    const option = element("span", {}, "--local"); // a browser would break the line after a hyphen
    const command = element("pre", {}, "controller run-pipeline ~/Pictures ", option);
    notice.show("No index yet", "Create one with this command:", [["Check again", retry]], command);
  }
}

/**
 * Fills the list to choose from. A single index needs no list.
 *
 * @param {Index[]} indexes
 */
export function fillList(indexes) {
  const options = indexes.map(({ index, images, recall }) => {
    const measured = recall.filter(({ k }) => k === RECALL_CUTOFF);
    const lowest = measured.length > 0 && `recall ${percentage(Math.min(...measured.map(({ mean }) => mean)))}`;
    const text = [index, formatNumber(images), lowest].filter(Boolean).join(" · ");
    return element("option", { value: index, title: recallTitle(measured) }, text);
  });
  $("index").replaceChildren(...options);
  $("index").hidden = indexes.length < 2;
}

/**
 * Selects an index in the list.
 *
 * @param {string} index
 */
export function selectIndex(index) {
  $("index").value = index;
  $("index").title = $("index").selectedOptions[0]?.title ?? "";
}

/**
 * The recall of each kind of queries.
 *
 * @param {api.Recall[]} measured
 */
function recallTitle(measured) {
  const figures = measured.map(({ queries, mean }) => `${queries} ${percentage(mean)}`).join(", ");
  return figures && `Recall: the share of the ${RECALL_CUTOFF} nearest images that a search finds. Searches for ${figures}`;
}

/**
 * Rounded down, so that only a perfect share is 100 %.
 *
 * @param {number} share with at most 4 decimals
 */
const percentage = (share) => `${Math.floor(Math.round(share * 10_000) / 10) / 10} %`;

/**
 * The fields of an index. An index without metadata has none.
 *
 * @param {string} index
 * @returns {Promise<Facet[]>}
 */
export async function loadFacets(index) {
  try {
    return (await api.facets(index)).fields;
  } catch (error) {
    const problem = api.problemOf(error);
    if (problem.status !== 404) console.info(problem.message);
    return [];
  }
}

/**
 * Searches to begin with: frequent values of the index's own lists, or general ones.
 *
 * @param {Facet[]} facets
 */
export function exampleSearches(facets) {
  const values = facets
    .filter((facet) => facet.type === "list" && facet.values.every(({ value }) => typeof value === "string"))
    .flatMap((facet) => facet.values.slice(0, 40).map(({ value }) => String(value)));
  // The most frequent values are in almost every image.
  const examples = values.filter((value) => value.length < MAX_EXAMPLE_LENGTH).slice(2, 2 + EXAMPLES);
  return examples.length === EXAMPLES ? examples : GENERAL_EXAMPLES;
}
