// The row of filters: a menu for each field of the index, the minimum score, near-duplicates, and saving of the results.

import { $, all, closest, debounce, element, first, formatNumber, icon } from "./dom.js";
import { MAX_RESULTS } from "./export.js";
import { conditionOf, conditionText, fieldLabel, filterable, scoreText } from "./facets.js";
import { fieldForm, scoreForm } from "./filter-forms.js";
import { DUPLICATE_SIMILARITY, hasFilter } from "./state.js";

/** So many fields have their own menu. The others share one. */
const FIELD_MENUS = 5;

/** @typedef {import("./api.js").Facet} Facet */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Condition} Condition */
/** @typedef {import("./export.js").Format} Format */

export class Filters {
  /**
   * @param {{ change: (change: Partial<State>) => void, save: (format: Format) => void }} handlers
   *   `change` starts a search
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.row = $("filters");
    /** @type {Pick<State, "conditions" | "minScore">} */
    this.filter = { conditions: {}, minScore: null };
    this.bestScore = 1;
    /** @type {Partial<State>} */
    this.changes = {};
    /** @type {[menu: HTMLDetailsElement, chosen: (state: State) => string][]} */
    this.menus = [];
    this.sendSoon = debounce(250, () => {
      handlers.change(this.changes);
      this.changes = {};
    });
    document.addEventListener("pointerdown", (event) => this.closeMenus(closest(event, "details.menu")));
    document.addEventListener("keydown", (event) => {
      const menu = event.key === "Escape" && closest(event, "details.menu[open]");
      if (!menu) return;
      menu.removeAttribute("open");
      first(menu, "summary").focus();
      event.stopPropagation();
    });
  }

  /** @param {Element | null} except a menu that stays open */
  closeMenus(except) {
    for (const menu of all(this.row, "details.menu[open]")) if (menu !== except) menu.removeAttribute("open");
  }

  /**
   * Creates the row for the fields of an index.
   *
   * @param {Facet[]} facets
   * @param {State} state
   */
  create(facets, state) {
    const fields = filterable(facets);
    // A shared menu for a single field would be no shorter.
    const separate = fields.slice(0, fields.length > FIELD_MENUS + 1 ? FIELD_MENUS : FIELD_MENUS + 1);
    const shared = fields.slice(separate.length);
    this.menus = [];
    this.row.replaceChildren(
      ...separate.map((facet) => this.menu(fieldLabel(facet.field), () => this.form(facet), (state) => conditionText(conditionOf(state.conditions, facet.field)))),
      ...(shared.length ? [this.menu("more fields", () => this.sharedForm(shared))] : []),
      this.menu("score", () => this.scoreForm(), (state) => scoreText(state.minScore)),
      this.groupToggle(state),
      element("button", { id: "reset", className: "link", hidden: true, on: { click: () => this.handlers.change({ conditions: {}, minScore: null }) } }, "Clear filters"),
      element("span", { className: "spacer" }),
      this.menu("save", () => this.saveForm()),
    );
    this.render(state);
  }

  /** @param {State} state */
  render(state) {
    this.filter = state;
    for (const [menu, chosen] of this.menus) {
      const text = chosen(state);
      first(menu, ".chosen").textContent = text;
      menu.classList.toggle("on", Boolean(text));
    }
    const [group, reset] = [$("group-duplicates"), $("reset")];
    if (group) group.checked = state.groupDuplicates;
    if (reset) reset.hidden = !hasFilter(state);
  }

  /**
   * A button with a panel. Opening it creates the panel's content.
   *
   * @param {string} name
   * @param {() => Element} content
   * @param {(state: State) => string} chosen the text of what the menu has set; "": nothing
   */
  menu(name, content, chosen = () => "") {
    const panel = element("div", { className: "panel" });
    const menu = element(
      "details",
      { className: "menu" },
      element("summary", {}, element("span", {}, name), element("span", { className: "chosen" }), icon("down")),
      panel,
    );
    this.menus.push([menu, chosen]);
    menu.addEventListener("toggle", () => {
      if (!menu.open) return;
      this.closeMenus(menu);
      panel.replaceChildren(content());
      // The panel extends to the left if it does not fit on the right.
      panel.classList.remove("left");
      panel.classList.toggle("left", panel.getBoundingClientRect().right > innerWidth - 8);
    });
    return menu;
  }

  /** @param {State} state */
  groupToggle(state) {
    const checkbox = element("input", {
      id: "group-duplicates",
      type: "checkbox",
      checked: state.groupDuplicates,
      on: { change: ({ currentTarget }) => this.handlers.change({ groupDuplicates: currentTarget.checked }) },
    });
    const title = `Show images with a similarity of ${DUPLICATE_SIMILARITY} or more as one image`;
    return element("label", { className: "toggle", title }, checkbox, "group near-duplicates");
  }

  /** @param {Facet} facet */
  form(facet) {
    return fieldForm(facet, conditionOf(this.filter.conditions, facet.field), (condition) => this.setCondition(facet.field, condition));
  }

  /** @param {Facet[]} facets */
  sharedForm(facets) {
    const forms = facets.map((facet) => element("details", {}, element("summary", {}, fieldLabel(facet.field)), this.form(facet)));
    return element("div", { className: "more-fields" }, ...forms);
  }

  scoreForm() {
    return scoreForm(this.filter.minScore, this.bestScore, (minScore) => {
      this.filter = { ...this.filter, minScore };
      this.changeSoon({ minScore });
    });
  }

  saveForm() {
    /** @type {(format: Format, label: string) => HTMLElement} */
    const item = (format, label) => element("button", { className: "menu-item", on: { click: () => this.handlers.save(format) } }, label);
    const help = element("p", { className: "muted" }, `The first ${formatNumber(MAX_RESULTS)} results`);
    return element("div", {}, item("json", "JSON, with all metadata"), item("csv", "CSV, for a spreadsheet"), help);
  }

  /**
   * @param {string} field
   * @param {Condition | null} condition null: no filter
   */
  setCondition(field, condition) {
    const others = Object.fromEntries(Object.entries(this.filter.conditions).filter(([name]) => name !== field));
    const conditions = condition ? { ...others, [field]: condition } : others;
    this.filter = { ...this.filter, conditions };
    this.changeSoon({ conditions });
  }

  /** @param {Partial<State>} change */
  changeSoon(change) {
    Object.assign(this.changes, change);
    this.sendSoon();
  }

  /**
   * Lets the score's slider end at the best score of a search.
   *
   * @param {import("./api.js").Result[]} results
   * @param {State} state
   */
  limitScore(results, state) {
    if (state.minScore === null && results.length) this.bestScore = results[0].score;
  }
}
