// Filters, made from the fields that the index has: values with their counts, ranges of numbers, true and false; the
// score; near-duplicates; and what was found, to save.

import { $, after, all, closest, el, first, icon, number } from "./dom.js";
import { ALIKE } from "./state.js";

/** So many fields have a button of their own, the others share one. */
const OWN = 5;
/** A longer list of values gets a box to narrow it. */
const LONG = 10;
const PAUSE = 250;
/** A text with more different values than this, for one image, is a name and nothing to choose. */
const NAMES = 0.8;
/** What says most of what an image shows comes first. */
const ORDER = ["list", "text", "number", "bool"];

/** @typedef {import("./api.js").Facet} Facet */
/** @typedef {import("./api.js").Value} Value */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Wanted} Wanted */
/** @typedef {Pick<State, "where" | "score">} Filter */

export class Filters {
  /**
   * @param {{ change: (change: Partial<State>) => void, save: (format: import("./export.js").Format) => void }} acts
   *   `change` searches again
   */
  constructor(acts) {
    this.acts = acts;
    this.row = $("tools");
    /** @type {Filter} */
    this.filter = { where: {}, score: null };
    this.best = 1;
    /** @type {Partial<State>} */
    this.changes = {};
    this.send = after(PAUSE, () => {
      acts.change(this.changes);
      this.changes = {};
    });
    document.addEventListener("pointerdown", (event) => this.close(closest(event, "details.menu")));
    document.addEventListener("keydown", (event) => {
      const menu = event.key === "Escape" && closest(event, "details.menu[open]");
      if (!menu) return;
      menu.removeAttribute("open");
      first(menu, "summary").focus();
      event.stopPropagation();
    });
  }

  /** @param {Element | null} except a menu that stays open */
  close(except) {
    for (const menu of all(this.row, "details.menu[open]")) if (menu !== except) menu.removeAttribute("open");
  }

  /**
   * The fields of another index: the whole row is made anew.
   *
   * @param {Facet[]} facets
   * @param {State} state
   */
  make(facets, state) {
    const fields = facets.filter(useful).sort((facet, other) => ORDER.indexOf(facet.type) - ORDER.indexOf(other.type) || other.images - facet.images);
    const own = fields.slice(0, fields.length > OWN + 1 ? OWN : OWN + 1);
    const others = fields.slice(own.length);
    this.row.replaceChildren(
      ...own.map((facet) => this.menu(facet.field, () => this.form(facet), facet.field)),
      ...(others.length ? [this.menu("more fields", () => this.many(others), "")] : []),
      this.menu("score", () => this.score(), "#score"),
      el(
        "label",
        { className: "toggle", title: `Show images with a similarity of ${ALIKE} or more as one` },
        el("input", {
          id: "fold",
          type: "checkbox",
          checked: state.fold,
          on: { change: ({ currentTarget }) => this.acts.change({ fold: currentTarget.checked }) },
        }),
        "fold near-duplicates",
      ),
      el("button", { id: "reset", className: "plain", hidden: true, on: { click: () => this.acts.change({ where: {}, score: null }) } }, "Clear filters"),
      el("span", { className: "space" }),
      this.menu("save", () => this.save(), "#save"),
    );
    this.render(state);
  }

  /** @param {State} state */
  render(state) {
    this.filter = state;
    for (const menu of all(this.row, "details.menu")) {
      const field = menu.dataset.field ?? "";
      const value = field === "#score" ? scoreWords(state.score) : words(state.where[field]);
      first(menu, ".said").textContent = value;
      menu.classList.toggle("on", Boolean(value));
    }
    const [fold, reset] = [$("fold"), $("reset")];
    if (fold) fold.checked = state.fold;
    if (reset) reset.hidden = state.score === null && !Object.keys(state.where).length;
  }

  /**
   * A button with a sheet, which is made each time it opens.
   *
   * @param {string} name
   * @param {() => Element} content
   * @param {string} field
   */
  menu(name, content, field) {
    const sheet = el("div", { className: "sheet" });
    const menu = el(
      "details",
      { className: "menu" },
      el("summary", {}, el("span", {}, name), el("span", { className: "said" }), icon("down")),
      sheet,
    );
    menu.dataset.field = field;
    menu.addEventListener("toggle", () => {
      if (!menu.open) return;
      this.close(menu);
      sheet.replaceChildren(content());
      // To the left where it would not fit to the right.
      sheet.classList.remove("left");
      sheet.classList.toggle("left", sheet.getBoundingClientRect().right > innerWidth - 8);
    });
    return menu;
  }

  /** @param {Facet[]} facets */
  many(facets) {
    return el("div", { className: "many" }, ...facets.map((facet) => el("details", {}, el("summary", {}, facet.field), this.form(facet))));
  }

  /** @param {Facet} facet */
  form(facet) {
    if (facet.type === "number") return this.range(facet);
    return facet.type === "bool" ? this.either(facet) : this.values(facet);
  }

  /** @param {Partial<State>} change */
  later(change) {
    Object.assign(this.changes, change);
    this.send();
  }

  /**
   * @param {string} field
   * @param {Wanted | null} wanted null: the field has no filter
   */
  want(field, wanted) {
    const where = { ...this.filter.where };
    delete where[field];
    if (wanted) where[field] = wanted;
    this.filter = { ...this.filter, where };
    this.later({ where });
  }

  /** @param {Facet} facet */
  values(facet) {
    const key = facet.type === "list" ? "has" : "any";
    const chosen = new Set(this.filter.where[facet.field]?.[key]);
    /** @type {(value: Value, on: boolean) => void} */
    const choose = (value, on) => {
      if (on) chosen.add(value);
      else chosen.delete(value);
      this.want(facet.field, chosen.size ? { [key]: [...chosen] } : null);
    };
    const counts = new Map(facet.values.map(({ value, count }) => [value, count]));
    const values = [...new Set([...chosen, ...counts.keys()])];
    const rows = values.map((value) =>
      el(
        "label",
        { className: "value" },
        el("input", { type: "checkbox", checked: chosen.has(value), on: { change: ({ currentTarget }) => choose(value, currentTarget.checked) } }),
        el("span", { className: "name" }, String(value)),
        el("span", { className: "count" }, number(counts.get(value) || 0)),
      ),
    );
    const list = el("div", { className: "values", role: "group", ariaLabel: facet.field }, ...rows);
    const none = el("p", { className: "faint", hidden: true }, "No such value");
    /** @param {{ currentTarget: HTMLInputElement }} event */
    const narrow = ({ currentTarget }) => {
      const wanted = currentTarget.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !first(row, ".name").textContent.toLowerCase().includes(wanted);
      none.hidden = rows.some((row) => !row.hidden);
    };
    const box = el("input", { type: "search", placeholder: "Narrow the list", ariaLabel: `Narrow the values of ${facet.field}`, on: { input: narrow } });
    const rest = (facet.distinct ?? Infinity) > facet.values.length;
    return el("div", {}, values.length > LONG && box, list, none, rest && el("p", { className: "faint" }, `The ${facet.values.length} most frequent values`));
  }

  /** @param {Facet} facet */
  range(facet) {
    const [min, max] = [facet.min ?? 0, facet.max ?? 0];
    const whole = facet.values.every(({ value }) => Number.isInteger(value));
    const step = whole ? 1 : (max - min) / 100 || "any";
    const at = { ...this.filter.where[facet.field] };
    /** @type {(side: "min" | "max", text: string) => void} */
    const set = (side, text) => {
      const value = text === "" ? null : Number(text);
      const free = value === null || !Number.isFinite(value) || (side === "min" ? value <= min : value >= max);
      at[side] = free ? null : value;
      this.want(facet.field, at.min == null && at.max == null ? null : { ...at });
    };
    /** @type {(name: "min" | "max", label: string, start: number) => HTMLElement} */
    const side = (name, label, start) => {
      const box = el("input", { type: "number", step: "any", placeholder: String(start), value: at[name] ?? "", ariaLabel: `${facet.field} ${label}` });
      const slide = el("input", { type: "range", min, max, step, value: at[name] ?? start, ariaLabel: `${facet.field} ${label}, slider` });
      box.addEventListener("input", () => {
        slide.value = box.value === "" ? String(start) : box.value;
        set(name, box.value);
      });
      slide.addEventListener("input", () => {
        box.value = slide.valueAsNumber === start ? "" : String(+slide.valueAsNumber.toPrecision(6));
        set(name, slide.value);
      });
      return el("div", { className: "side" }, el("span", { ariaHidden: "true" }, label), slide, box);
    };
    return el("div", { className: "range" }, side("min", "from", min), side("max", "to", max));
  }

  /** @param {Facet} facet */
  either(facet) {
    const counts = new Map(facet.values.map(({ value, count }) => [value, count]));
    /** @type {(label: string, is?: boolean, count?: number) => HTMLElement} */
    const choice = (label, is, count) =>
      el(
        "label",
        { className: "value" },
        el("input", {
          type: "radio",
          name: `is-${facet.field}`,
          checked: this.filter.where[facet.field]?.is === is,
          on: { change: () => this.want(facet.field, is === undefined ? null : { is }) },
        }),
        el("span", { className: "name" }, label),
        el("span", { className: "count" }, count === undefined ? "" : number(count)),
      );
    const choices = [choice("either"), choice("true", true, counts.get(true) || 0), choice("false", false, counts.get(false) || 0)];
    return el("div", { className: "values", role: "radiogroup", ariaLabel: facet.field }, ...choices);
  }

  score() {
    const most = Math.max(0.05, Math.ceil(this.best * 100) / 100);
    const value = el("output", {}, scoreWords(this.filter.score) || "any");
    const slide = el("input", {
      id: "score",
      type: "range",
      min: 0,
      max: most,
      step: 0.01,
      value: this.filter.score ?? 0,
      ariaLabel: "Minimum score",
      on: {
        input: ({ currentTarget }) => {
          const score = currentTarget.valueAsNumber || null;
          this.filter = { ...this.filter, score };
          value.textContent = scoreWords(score) || "any";
          this.later({ score });
        },
      },
    });
    return el("div", { className: "range" }, el("div", { className: "side" }, slide, value), el("p", { className: "faint" }, "Hide images with a lower score."));
  }

  save() {
    /** @type {(format: import("./export.js").Format, label: string) => HTMLElement} */
    const row = (format, label) => el("button", { className: "row", on: { click: () => this.acts.save(format) } }, label);
    return el("div", {}, row("json", "JSON, with all metadata"), row("csv", "CSV, for a spreadsheet"), el("p", { className: "faint" }, "The first 1,000 results"));
  }

  /**
   * The slider goes up to the best score.
   *
   * @param {import("./api.js").Result[]} results
   * @param {State} state
   */
  found(results, state) {
    if (state.score === null && results.length) this.best = results[0].score;
  }
}

/**
 * Whether there is something to choose between.
 *
 * @param {Facet} facet
 */
function useful(facet) {
  if (facet.type === "number") return facet.min !== null && facet.max !== null && facet.min < facet.max;
  if (!facet.values.length) return false;
  return facet.type === "list" || facet.values.length <= LONG || (facet.distinct ?? Infinity) < facet.images * NAMES;
}

/** @param {Wanted | undefined} wanted */
function words(wanted) {
  if (!wanted) return "";
  const values = wanted.any || wanted.has;
  if (values) return values.length === 1 ? String(values[0]) : `${values.length}`;
  if ("is" in wanted) return String(wanted.is);
  if (wanted.min != null && wanted.max != null) return `${wanted.min}–${wanted.max}`;
  return wanted.min != null ? `≥ ${wanted.min}` : `≤ ${wanted.max}`;
}

/** @param {number | null} score */
const scoreWords = (score) => (score === null ? "" : `≥ ${score.toFixed(2)}`);
