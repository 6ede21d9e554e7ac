// The search API, and a sentence for each way in which it may not answer.

/** What the searcher says is wrong. `retry`: seconds after which it may be asked again, or 0. */
export class Problem extends Error {
  constructor(status, sentence, retry = 0) {
    super(sentence);
    this.status = status;
    this.retry = retry;
  }
}

export const OFFLINE = 0;
const RETRY_SECONDS = 3;
const TEMPORARY = [429, 502, 503, 504];

async function call(path, body, signal) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, { ...options, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(OFFLINE, "The searcher cannot be reached.", RETRY_SECONDS);
  }
  const document = await answer.json().catch(() => ({}));
  if (answer.ok) return document;
  const wait = TEMPORARY.includes(answer.status) ? Number(answer.headers.get("Retry-After")) || RETRY_SECONDS : 0;
  throw new Problem(answer.status, document.detail || `The searcher responded with status ${answer.status}.`, wait);
}

const of = (index) => `index=${encodeURIComponent(index)}`;

export const indexes = () => call("v1/indexes");
export const facets = (index) => call(`v1/facets?${of(index)}`);
export const map = (index) => call(`v1/map?${of(index)}`);
export const search = (body, signal) => call("v1/search", body, signal);
export const embed = (image, index) => call("v1/embed", { image: [image], ...(index && { index }) });
export const logIn = (key) => call("v1/login", { key });

// Paths of the server, below wherever the page is.
export const thumbnail = (id, index) => `v1/images/${encodeURIComponent(id)}/thumbnail?${of(index)}`;
export const original = (id, index) => `v1/images/${encodeURIComponent(id)}?${of(index)}`;
export const below = (path) => path.replace(/^\//, "");
