// The theme, light or dark: the system's, until the user switches. Runs before the browser paints anything.
(() => {
  const STORAGE_KEY = "imgsearch-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function storedTheme() {
    try {
      return localStorage.getItem(STORAGE_KEY);
    } catch {
      return null; // the browser forbids storage; the theme is then lost when the page is closed
    }
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  /** @param {Element} button */
  function updateButton(button) {
    button.setAttribute("aria-pressed", String(isDark()));
  }

  const theme = storedTheme();
  if (theme) root.dataset.theme = theme;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    updateButton(button);
    system.addEventListener("change", () => updateButton(button));
    button.addEventListener("click", () => {
      const theme = isDark() ? "light" : "dark";
      // The system's own theme is not stored: the page follows the system again.
      const isSystemTheme = (theme === "dark") === system.matches;
      if (isSystemTheme) delete root.dataset.theme;
      else root.dataset.theme = theme;
      try {
        if (isSystemTheme) localStorage.removeItem(STORAGE_KEY);
        else localStorage.setItem(STORAGE_KEY, theme);
      } catch {
        // As in storedTheme.
      }
      updateButton(button);
      root.dispatchEvent(new Event("themechange"));
    });
  });
})();
