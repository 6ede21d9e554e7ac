// Light or dark: as the system has it until a person says otherwise. Runs before anything is painted.
(() => {
  const KEY = "imgsearch-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function kept() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser may forbid it; the switch then holds until the page is left
    }
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  /** @param {Element} button */
  function describe(button) {
    button.setAttribute("aria-pressed", String(isDark()));
  }

  const theme = kept();
  if (theme) root.dataset.theme = theme;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    describe(button);
    system.addEventListener("change", () => describe(button));
    button.addEventListener("click", () => {
      const theme = isDark() ? "light" : "dark";
      // What the system has needs no keeping: it then follows the system again.
      const follows = (theme === "dark") === system.matches;
      if (follows) delete root.dataset.theme;
      else root.dataset.theme = theme;
      try {
        if (follows) localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, theme);
      } catch {
        // As in `kept`.
      }
      describe(button);
      root.dispatchEvent(new Event("themechange"));
    });
  });
})();
