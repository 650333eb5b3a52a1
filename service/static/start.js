// Sets theme and view before the first paint. It is a classic script in the head, because modules run too late.
"use strict";

// Where something is asked for, do not show the home page, which would disappear a moment later.
{
  const given = new URLSearchParams(location.search);
  const has = (...names) => names.some((name) => given.get(name)?.trim());
  if (has("q", "frame", "like", "picture")) document.documentElement.dataset.view = "results";
  else if (has("folder", "from", "to", "min", "max", "verdict", "tag", "sort", "list")) {
    document.documentElement.dataset.view = "videos";
  }
}

(() => {
  const KEY = "reelfind.theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  // Storage may be forbidden (private windows, blocked cookies): the choice then lasts as long as the page.
  const remembered = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const remember = (theme) => {
    try {
      if (theme) localStorage.setItem(KEY, theme);
      else localStorage.removeItem(KEY);
    } catch {
      // The theme is not remembered.
    }
  };

  const preferred = () => (system.matches ? "dark" : "light");
  const shown = () => root.dataset.theme ?? preferred();

  const saved = remembered();
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;

  document.addEventListener("DOMContentLoaded", () => {
    const toggle = document.getElementById("theme-toggle");
    const describe = () => {
      const label = `Switch to the ${shown() === "dark" ? "light" : "dark"} theme`;
      toggle.setAttribute("aria-label", label);
      toggle.title = label;
    };
    toggle.addEventListener("click", () => {
      const next = shown() === "dark" ? "light" : "dark";
      // Choosing what the system prefers means following the system again.
      const follows = next === preferred();
      if (follows) delete root.dataset.theme;
      else root.dataset.theme = next;
      remember(follows ? null : next);
      describe();
    });
    system.addEventListener("change", describe);
    describe();
  });
})();
