// What was searched for in this browser, most recently first. It stays in this browser, and can be cleared.

const KEY = "reelfind.searches";
const MOST = 30;

/** The searches: `{part, label}`, the query part of the address and what people call it. */
export function recentSearches() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    const isSearch = (each) => typeof each?.part === "string" && each.part.startsWith("?") && typeof each.label === "string";
    return Array.isArray(kept) ? kept.filter(isSearch) : [];
  } catch {
    // Storage is forbidden, or holds something else.
    return [];
  }
}

export function rememberSearch(part, label) {
  const others = recentSearches().filter((each) => each.part !== part);
  try {
    localStorage.setItem(KEY, JSON.stringify([{ part, label }, ...others].slice(0, MOST)));
  } catch {
    // It is not remembered.
  }
}

export function forgetSearches() {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // Nothing was remembered.
  }
}
