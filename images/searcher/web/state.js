// The search as a value, and its form in the address: a link shows what its sender saw. Nothing here touches the page.

/** @typedef {import("./api.js").Value} Value */
/** @typedef {{ kind: "id" | "url" | "vector", value: string, weight: number }} Part An image that is searched for. */
/** @typedef {{ any?: Value[], has?: Value[], min?: number | null, max?: number | null, is?: boolean }} Wanted
 *   The filter of a field: `any` for a text, `has` for a list, `min` and `max` for a number, `is` for true and false. */
/** @typedef {{ index: string, view: "search" | "map", text: string, weight: number, parts: Part[],
 *   where: Record<string, Wanted>, score: number | null, fold: boolean, open: string,
 *   at: [x: number, y: number, zoom: number] | null }} State */

/** @type {State} */
export const EMPTY = {
  index: "",
  view: "search",
  text: "",
  weight: 1,
  parts: [],
  where: {},
  score: null,
  fold: true,
  open: "",
  at: null,
};

/** Cosine from which on two images are shown as one. */
export const ALIKE = 0.95;
/** What is looked for where nothing is asked: every photo is one. */
const ANYTHING = "a photo";

/**
 * @param {string} address the query part of an address
 * @returns {State}
 */
export function read(address) {
  const query = new URLSearchParams(address);
  const score = Number.parseFloat(query.get("score") ?? "");
  const [x, y, zoom, ...more] = (query.get("at") || "").split(",").map(Number);
  const place = [x, y, zoom].every(Number.isFinite) && zoom > 0 && !more.length;
  return {
    index: query.get("index") || "",
    view: query.get("view") === "map" ? "map" : "search",
    text: query.get("q") || "",
    weight: weightOf(query.get("weight") ?? "1"),
    parts: query.getAll("part").flatMap((text) => part(text) ?? []),
    where: object(query.get("where")),
    score: Number.isFinite(score) ? Math.min(1, Math.max(-1, score)) : null,
    fold: query.get("alike") !== "all",
    open: query.get("open") || "",
    at: place ? [x, y, zoom] : null,
  };
}

/** @param {State} state */
export function write(state) {
  const address = new URLSearchParams();
  if (state.text) address.set("q", state.text);
  if (state.weight !== 1) address.set("weight", String(state.weight));
  for (const { kind, weight, value } of state.parts) address.append("part", `${kind}:${weight}:${value}`);
  if (Object.keys(state.where).length) address.set("where", JSON.stringify(state.where));
  if (state.score !== null) address.set("score", String(state.score));
  if (!state.fold) address.set("alike", "all");
  if (state.index) address.set("index", state.index);
  if (state.view === "map") address.set("view", "map");
  if (state.view === "map" && state.at) address.set("at", state.at.map((one) => +one.toFixed(4)).join(","));
  if (state.open) address.set("open", state.open);
  const text = address.toString();
  return text ? `?${text}` : "";
}

/**
 * @param {string} text
 * @returns {Part | null}
 */
function part(text) {
  const [, kind, weight, value] = /^(\w+):([^:]*):(.+)$/s.exec(text) || [];
  return kind === "id" || kind === "url" || kind === "vector" ? { kind, value, weight: weightOf(weight) } : null;
}

/** @param {string} text */
function weightOf(text) {
  const weight = Number.parseFloat(text);
  return Number.isFinite(weight) ? Math.min(2, Math.max(-2, weight)) : 1;
}

/** @param {string | null} text */
function object(text) {
  try {
    const value = JSON.parse(text || "{}");
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/**
 * Whether the search has words, images or filters.
 *
 * @param {State} state
 */
export const asks = (state) => Boolean(state.text || state.parts.length || filtered(state));

/** @param {State} state */
export const filtered = (state) => Object.keys(state.where).length > 0 || state.score !== null;

/**
 * Equal for states that find the same.
 *
 * @param {State} state
 */
export const question = (state) => JSON.stringify([request(state), state.view]);

/**
 * The body of POST /v1/search.
 *
 * @param {State} state
 * @returns {import("./api.js").Search}
 */
export function request(state) {
  /** @type {object[]} */
  const parts = state.parts.map(term);
  if (state.text) parts.unshift({ text: state.text, weight: state.weight });
  if (!parts.length) parts.push({ text: ANYTHING });
  const filter = conditions(state.where);
  return {
    parts,
    ...(state.index && { index: state.index }),
    ...(filter && { filter }),
    ...(state.score !== null && { min_score: state.score }),
    ...(state.fold && { dedupe: ALIKE }),
  };
}

/** @param {Part} part */
function term({ kind, value, weight }) {
  if (kind === "id") return { id: value, weight };
  if (kind === "url") return { image_url: value, weight };
  return { embedding: unpack(value), weight };
}

/**
 * @param {Record<string, Wanted>} where
 * @returns {object | undefined}
 */
function conditions(where) {
  const all = Object.entries(where).flatMap(([field, wanted]) => {
    if (wanted.any) return [{ [field]: { $in: wanted.any } }];
    if (wanted.has) return [some(wanted.has.map((value) => ({ [field]: { $contains: value } })))];
    if ("is" in wanted) return [{ [field]: { $eq: wanted.is } }];
    /** @type {object[]} */
    const bounds = [];
    if (wanted.min != null) bounds.push({ [field]: { $gte: wanted.min } });
    if (wanted.max != null) bounds.push({ [field]: { $lte: wanted.max } });
    return bounds;
  });
  return all.length > 1 ? { $and: all } : all[0];
}

/** @param {object[]} list */
const some = (list) => (list.length > 1 ? { $or: list } : list[0]);

/**
 * A vector as a text short enough for an address: a byte for each number. The search uses the text, so that the link
 * finds just the same.
 *
 * @param {number[]} vector
 */
export function pack(vector) {
  const peak = Math.max(...vector.map(Math.abs)) || 1;
  const bytes = Uint8Array.from(vector, (one) => Math.round((one / peak) * 127) + 128);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} text */
function unpack(text) {
  try {
    return Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0) - 128);
  } catch {
    return [0]; // which the searcher refuses with a sentence
  }
}
