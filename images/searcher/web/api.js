// The client of the search API. A request that fails throws a Problem, whose message the page can show.

import * as json from "./json.js";

/** @typedef {string | number | bigint | boolean} Value A value of a field of the metadata. */
/** @typedef {{ id: string, score: number, uri: string, image: string, thumbnail: string, width: number, height: number,
 *   metadata: Record<string, Value | Value[]>, duplicates?: string[] }} Result */
/** @typedef {{ results: Result[], next_cursor: string | null, index: string, took_ms: { total: number } }} Page */
/** @typedef {{ field: string, type: "text" | "number" | "bool" | "list", images: number, distinct: number | null,
 *   values: { value: Value, count: number }[], min: number | bigint | null, max: number | bigint | null,
 *   whole: boolean | null }} Facet */
/** @typedef {{ id: string, x: number, y: number }} Point */
/** @typedef {{ images: number, points: Point[], tile: number, columns: number, sprite: string }} MapData The map of an index. */
/** @typedef {{ queries: string, k: number, mean: number }} Recall */
/** @typedef {{ index: string, images: number, recall: Recall[] }} Index */
/** @typedef {Record<string, unknown> & { index?: string }} Search The body of POST /v1/search. */

/** A request that failed. `retryAfter`: seconds after which it can be sent again. 0: do not send it again. */
export class Problem extends Error {
  /**
   * @param {number | undefined} status undefined: an error of this page or the browser; OFFLINE: no response
   * @param {string} message
   * @param {number} retryAfter
   * @param {ErrorOptions} options
   */
  constructor(status, message, retryAfter = 0, options = {}) {
    super(message, options);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const OFFLINE = 0;
const RETRY_SECONDS = 3;
const TEMPORARY = [429, 502, 503, 504];

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * Any thrown value as a Problem.
 *
 * @param {unknown} error
 */
export function problemOf(error) {
  if (error instanceof Problem) return error;
  return new Problem(undefined, error instanceof Error ? error.message : String(error), 0, { cause: error });
}

/**
 * @param {string} path
 * @param {object} [body] the body of a POST request
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
async function call(path, body, signal) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: json.stringify(body),
  };
  let response, text;
  try {
    response = await fetch(path, { ...options, signal });
    text = await response.text();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Problem(OFFLINE, "The searcher cannot be reached.", RETRY_SECONDS, { cause: error });
  }
  const document = parseDocument(text);
  if (response.ok) return document;
  const retryAfter = TEMPORARY.includes(response.status) ? Number(response.headers.get("Retry-After")) || RETRY_SECONDS : 0;
  throw new Problem(response.status, document.detail || `The searcher responded with status ${response.status}.`, retryAfter);
}

/**
 * The JSON of a response, or {}: a proxy may send an error as a page.
 *
 * @param {string} text
 */
function parseDocument(text) {
  try {
    return json.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw problemOf(error);
  }
}

/** @param {string} index */
const indexQuery = (index) => `index=${encodeURIComponent(index)}`;

/** @returns {Promise<{ indexes: Index[], problems: Record<string, string> }>} */
export const indexes = () => call("v1/indexes");

/** @type {(index: string) => Promise<{ fields: Facet[] }>} */
export const facets = (index) => call(`v1/facets?${indexQuery(index)}`);

/** @type {(index: string) => Promise<MapData>} */
export const map = (index) => call(`v1/map?${indexQuery(index)}`);

/** @type {(body: Search, signal?: AbortSignal) => Promise<Page>} */
export const search = (body, signal) => call("v1/search", body, signal);

/** @type {(image: string, index: string) => Promise<{ vectors: number[][] }>} */
export const embed = (image, index) => call("v1/embed", { image: [image], ...(index && { index }) });

/** @type {(key: string) => Promise<unknown>} */
export const logIn = (key) => call("v1/login", { key });

// Paths of the server, relative to the page: a proxy may serve both below a prefix.

/** @type {(id: string, index: string) => string} */
export const thumbnail = (id, index) => `v1/images/${encodeURIComponent(id)}/thumbnail?${indexQuery(index)}`;

/** @type {(id: string, index: string) => string} */
export const original = (id, index) => `v1/images/${encodeURIComponent(id)}?${indexQuery(index)}`;

/** @param {string} path */
export const relative = (path) => path.replace(/^\//, "");
