// The state of the page and its address. Each change of the state is a new address, so that links and the back button work.

import { fromAddress, toAddress } from "./state.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {{ replace?: boolean }} Options `replace`: the new address replaces the current one in the history */

export class Router {
  /** @param {(state: State) => void} render shows a state */
  constructor(render) {
    this.render = render;
    this.state = fromAddress(location.search);
    /** The index of an address without one. */
    this.defaultIndex = "";
    addEventListener("popstate", () => {
      const state = fromAddress(location.search);
      this.show({ ...state, index: state.index || this.defaultIndex });
    });
  }

  /**
   * Shows a state without a change of the address.
   *
   * @param {State} state
   */
  show(state) {
    this.state = state;
    this.render(state);
  }

  /**
   * Changes the state and the address.
   *
   * @param {Partial<State>} changes
   * @param {Options} options
   */
  go(changes, { replace = false } = {}) {
    const opensImage = Boolean(changes.openId && !this.state.openId);
    const state = { ...this.state, ...changes };
    const address = `${location.pathname}${toAddress(state)}`;
    if (replace) history.replaceState(history.state, "", address);
    else if (address !== location.pathname + location.search) history.pushState({ opensImage }, "", address);
    this.show(state);
  }

  /** Closes the image: goes back to the address from which it was opened, if it was opened on this page. */
  closeImage() {
    if (history.state?.opensImage) history.back();
    else this.go({ openId: "" }, { replace: true });
  }

  /**
   * The address of a changed state, for a link.
   *
   * @param {Partial<State>} changes
   */
  link(changes) {
    return `./${toAddress({ ...this.state, ...changes })}`;
  }
}
