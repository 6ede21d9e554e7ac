// The search as a value, and its form in the address: a link shows what its sender saw. Nothing here touches the page.

/** What `where` says of a field: {any: [values]} of a text, {has: [values]} of a list, {min, max} of a number, {is} of
 *  true and false. A part is {kind: "id" | "url" | "vector", value, weight}. */
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
const KINDS = ["id", "url", "vector"];

export function read(address) {
  const given = new URLSearchParams(address);
  const score = Number.parseFloat(given.get("score"));
  const at = (given.get("at") || "").split(",").map(Number);
  return {
    index: given.get("index") || "",
    view: given.get("view") === "map" ? "map" : "search",
    text: given.get("q") || "",
    weight: weightOf(given.get("weight") ?? "1"),
    parts: given.getAll("part").map(part).filter(Boolean),
    where: object(given.get("where")),
    score: Number.isFinite(score) ? Math.min(1, Math.max(-1, score)) : null,
    fold: given.get("alike") !== "all",
    open: given.get("open") || "",
    at: at.length === 3 && at.every(Number.isFinite) && at[2] > 0 ? at : null,
  };
}

export function write(state) {
  const address = new URLSearchParams();
  if (state.text) address.set("q", state.text);
  if (state.weight !== 1) address.set("weight", state.weight);
  for (const { kind, weight, value } of state.parts) address.append("part", `${kind}:${weight}:${value}`);
  if (Object.keys(state.where).length) address.set("where", JSON.stringify(state.where));
  if (state.score !== null) address.set("score", state.score);
  if (!state.fold) address.set("alike", "all");
  if (state.index) address.set("index", state.index);
  if (state.view === "map") address.set("view", "map");
  if (state.view === "map" && state.at) address.set("at", state.at.map((one) => +one.toFixed(4)).join(","));
  if (state.open) address.set("open", state.open);
  const text = address.toString();
  return text ? `?${text}` : "";
}

function part(text) {
  const [, kind, weight, value] = /^(\w+):([^:]*):(.+)$/s.exec(text) || [];
  return KINDS.includes(kind) ? { kind, value, weight: weightOf(weight) } : null;
}

function weightOf(text) {
  const weight = Number.parseFloat(text);
  return Number.isFinite(weight) ? Math.min(2, Math.max(-2, weight)) : 1;
}

function object(text) {
  try {
    const value = JSON.parse(text || "{}");
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/** Whether anything is asked: words, images, or filters. */
export const asks = (state) => Boolean(state.text || state.parts.length || filtered(state));
export const filtered = (state) => Object.keys(state.where).length > 0 || state.score !== null;
/** Equal for states that find the same. */
export const question = (state) => JSON.stringify([request(state), state.view]);

/** The body of POST /v1/search. */
export function request(state) {
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

function term({ kind, value, weight }) {
  if (kind === "id") return { id: value, weight };
  if (kind === "url") return { image_url: value, weight };
  return { embedding: unpack(value), weight };
}

function conditions(where) {
  const all = Object.entries(where).flatMap(([field, wanted]) => {
    if (wanted.any) return [{ [field]: { $in: wanted.any } }];
    if (wanted.has) return [some(wanted.has.map((value) => ({ [field]: { $contains: value } })))];
    if ("is" in wanted) return [{ [field]: { $eq: wanted.is } }];
    const bounds = [];
    if (wanted.min != null) bounds.push({ [field]: { $gte: wanted.min } });
    if (wanted.max != null) bounds.push({ [field]: { $lte: wanted.max } });
    return bounds;
  });
  return all.length > 1 ? { $and: all } : all[0];
}

const some = (list) => (list.length > 1 ? { $or: list } : list[0]);

/** A vector as a text short enough for an address: a byte for each number. The search uses what the text says, so that
 *  the link finds just the same. */
export function pack(vector) {
  const peak = Math.max(...vector.map(Math.abs)) || 1;
  const bytes = Uint8Array.from(vector, (one) => Math.round((one / peak) * 127) + 128);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpack(text) {
  try {
    return Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0) - 128);
  } catch {
    return [0]; // which the searcher refuses with a sentence
  }
}
