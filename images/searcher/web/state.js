// The state of a search, its form in the address, and its form in a request. Nothing here touches the page.

import * as json from "./json.js";

/** @typedef {import("./api.js").Value} Value */
/** @typedef {{ kind: "id" | "url" | "vector", value: string, weight: number }} Part An image that is part of the query. */
/** @typedef {{ any?: Value[], has?: Value[], min?: number | bigint | null, max?: number | bigint | null, is?: boolean }} Condition
 *   The filter of a field: `any` for a text, `has` for a list, `min` and `max` for a number, `is` for true and false. */
/** @typedef {[x: number, y: number, zoom: number]} View The point in the middle of the map's canvas, and the zoom. */
/** @typedef {{ index: string, view: "search" | "map", text: string, textWeight: number, parts: Part[],
 *   conditions: Record<string, Condition>, minScore: number | null, groupDuplicates: boolean, openId: string,
 *   mapView: View | null }} State `conditions`: by field; `groupDuplicates`: show near-duplicates as one image;
 *   `openId`: the image in the detail view, or "" */

/** @type {State} */
export const EMPTY = {
  index: "",
  view: "search",
  text: "",
  textWeight: 1,
  parts: [],
  conditions: {},
  minScore: null,
  groupDuplicates: true,
  openId: "",
  mapView: null,
};

/** Images with this cosine similarity, or more, are near-duplicates. */
export const DUPLICATE_SIMILARITY = 0.95;
/** The query of an empty search. It is about equally similar to all photos. */
const DEFAULT_TEXT = "a photo";

/**
 * @param {string} query the query part of an address
 * @returns {State}
 */
export function fromAddress(query) {
  const parameters = new URLSearchParams(query);
  const minScore = Number.parseFloat(parameters.get("score") ?? "");
  return {
    index: parameters.get("index") || "",
    view: parameters.get("view") === "map" ? "map" : "search",
    text: parameters.get("q") || "",
    textWeight: parseWeight(parameters.get("weight") ?? "1"),
    parts: parameters.getAll("part").flatMap((text) => parsePart(text) ?? []),
    conditions: parseObject(parameters.get("where")),
    minScore: Number.isFinite(minScore) ? Math.min(1, Math.max(-1, minScore)) : null,
    groupDuplicates: parameters.get("alike") !== "all",
    openId: parameters.get("open") || "",
    mapView: parseView(parameters.get("at") || ""),
  };
}

/** @param {State} state */
export function toAddress(state) {
  const parameters = new URLSearchParams();
  if (state.text) parameters.set("q", state.text);
  if (state.textWeight !== 1) parameters.set("weight", String(state.textWeight));
  for (const { kind, weight, value } of state.parts) parameters.append("part", `${kind}:${weight}:${value}`);
  if (Object.keys(state.conditions).length) parameters.set("where", json.stringify(state.conditions));
  if (state.minScore !== null) parameters.set("score", String(state.minScore));
  if (!state.groupDuplicates) parameters.set("alike", "all");
  if (state.index) parameters.set("index", state.index);
  if (state.view === "map") parameters.set("view", "map");
  if (state.view === "map" && state.mapView) parameters.set("at", state.mapView.map((value) => +value.toFixed(4)).join(","));
  if (state.openId) parameters.set("open", state.openId);
  const query = parameters.toString();
  return query ? `?${query}` : "";
}

/**
 * @param {string} text
 * @returns {Part | null}
 */
function parsePart(text) {
  const [, kind, weight, value] = /^(\w+):([^:]*):(.+)$/s.exec(text) || [];
  return kind === "id" || kind === "url" || kind === "vector" ? { kind, value, weight: parseWeight(weight) } : null;
}

/** @param {string} text */
function parseWeight(text) {
  const weight = Number.parseFloat(text);
  return Number.isFinite(weight) ? Math.min(2, Math.max(-2, weight)) : 1;
}

/**
 * @param {string} text
 * @returns {View | null}
 */
function parseView(text) {
  const [x, y, zoom, ...rest] = text.split(",").map(Number);
  return [x, y, zoom].every(Number.isFinite) && zoom > 0 && !rest.length ? [x, y, zoom] : null;
}

/** @param {string | null} text */
function parseObject(text) {
  try {
    const value = json.parse(text || "{}");
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/**
 * Whether the search has a text, images or filters.
 *
 * @param {State} state
 */
export const hasQuery = (state) => Boolean(state.text || state.parts.length || hasFilter(state));

/** @param {Pick<State, "conditions" | "minScore">} state */
export const hasFilter = (state) => Object.keys(state.conditions).length > 0 || state.minScore !== null;

/**
 * Equal for states that have the same results.
 *
 * @param {State} state
 */
export const searchKey = (state) => json.stringify([request(state), state.view]);

/**
 * The body of POST /v1/search.
 *
 * @param {State} state
 * @returns {import("./api.js").Search}
 */
export function request(state) {
  /** @type {object[]} */
  const parts = state.parts.map(requestPart);
  if (state.text) parts.unshift({ text: state.text, weight: state.textWeight });
  if (!parts.length) parts.push({ text: DEFAULT_TEXT });
  const filter = requestFilter(state.conditions);
  return {
    parts,
    ...(state.index && { index: state.index }),
    ...(filter && { filter }),
    ...(state.minScore !== null && { min_score: state.minScore }),
    ...(state.groupDuplicates && { dedupe: DUPLICATE_SIMILARITY }),
  };
}

/** @param {Part} part */
function requestPart({ kind, value, weight }) {
  if (kind === "id") return { id: value, weight };
  if (kind === "url") return { image_url: value, weight };
  return { embedding: unpackVector(value), weight };
}

/**
 * @param {Record<string, Condition>} conditions
 * @returns {object | undefined}
 */
function requestFilter(conditions) {
  const filters = Object.entries(conditions).flatMap(([field, condition]) => {
    if (condition.any) return [{ [field]: { $in: condition.any } }];
    if (condition.has) return [anyOf(condition.has.map((value) => ({ [field]: { $contains: value } })))];
    if ("is" in condition) return [{ [field]: { $eq: condition.is } }];
    /** @type {object[]} */
    const bounds = [];
    if (condition.min != null) bounds.push({ [field]: { $gte: condition.min } });
    if (condition.max != null) bounds.push({ [field]: { $lte: condition.max } });
    return bounds;
  });
  return filters.length > 1 ? { $and: filters } : filters[0];
}

/** @param {object[]} filters */
const anyOf = (filters) => (filters.length > 1 ? { $or: filters } : filters[0]);

/**
 * Makes a vector short enough for an address: one byte for each number. The search uses the packed vector too, so a
 * link has the same results as the page that it was copied from.
 *
 * @param {number[]} vector
 */
export function packVector(vector) {
  const peak = Math.max(...vector.map(Math.abs)) || 1;
  const bytes = Uint8Array.from(vector, (value) => Math.round((value / peak) * 127) + 128);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} text */
function unpackVector(text) {
  try {
    return Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (byte) => byte.charCodeAt(0) - 128);
  } catch {
    return [0]; // the searcher rejects it with an error message
  }
}
