// The page: the query in the address, what is asked of the service, and which state is shown.

import { fetchLibrary, search } from "./api.js";
import { byId, element, hasModifier, withCode } from "./dom.js";
import { count, footage, milliseconds } from "./format.js";
import { Player } from "./player.js";
import { Grid } from "./results.js";

const FIRST_TOP_K = 12;
const LAST_TOP_K = 768;
const SKELETON_DELAY_MS = 150;
const RETRY_SECONDS = [2, 4, 8, 15, 30];
const EMPTY_LIBRARY = "Run `reelfind index` with the folder of your videos; the server takes up the result by itself.";

const form = byId("search-form");
const input = byId("query");
const main = byId("main");
const guide = byId("guide");
const notice = byId("notice");
const results = byId("results");
const more = byId("more");

const player = new Player({ closed: (hit) => hit && grid.focusHit(hit) });
const grid = new Grid(byId("grid"), {
  open: (hit, frame, scale) => player.open(hit, frame, scale),
  leave: () => input.focus(),
});

let current = { query: "", topK: FIRST_TOP_K, shown: 0 };
let request = null;
let shownAddress = null;
let retry = { timer: 0, attempt: 0 };

// --- What is shown -------------------------------------------------------------------------------------------

function setView(view) {
  document.body.dataset.view = view;
  guide.hidden = view !== "initial";
  results.hidden = view !== "results";
  if (view === "initial") grid.clear();
}

function hideNotice() {
  if (notice.contains(document.activeElement)) input.focus();
  notice.hidden = true;
  say("", "");
}

/** Replaces the words only where they change: what stays is not read out again. */
function say(heading, text) {
  if (byId("notice-heading").textContent !== heading) byId("notice-heading").textContent = heading;
  if (notice.dataset.text === text) return;
  notice.dataset.text = text;
  byId("notice-text").replaceChildren(...withCode(text));
}

/** A message in place of results. `again` offers to repeat, and `seconds` says when that happens by itself. */
function showNotice(heading, text, { again = null, seconds = null } = {}) {
  notice.hidden = false;
  say(heading, text);
  byId("notice-again").hidden = !again;
  byId("notice-button").onclick = again;
  byId("notice-wait").textContent = seconds === null ? "" : `Trying again in ${count(seconds, "second")}.`;
}

function headingFor(problem) {
  if (problem.kind === "unreachable") return navigator.onLine ? "The server cannot be reached" : "You are offline";
  if (problem.kind === "late") return "No answer yet";
  if (problem.kind === "overloaded") return "The server is busy";
  if (problem.status === 503) return "The library is not ready";
  return problem.status >= 500 ? "The server failed" : "That search did not work";
}

/** Shows a problem; `again` is repeated on its own, ever more slowly, when the problem may pass. */
function showProblem(problem, again) {
  if (!problem.passes) {
    showNotice(headingFor(problem), problem.message, { again: problem.status >= 500 ? again : null });
    return;
  }
  const step = RETRY_SECONDS[Math.min(retry.attempt, RETRY_SECONDS.length - 1)];
  const seconds = problem.retryAfterSeconds ?? step;
  showNotice(headingFor(problem), problem.message, { again, seconds });
  retry.attempt += 1;
  retry.timer = setTimeout(again, seconds * 1000);
}

function stopRetrying() {
  clearTimeout(retry.timer);
  retry = { timer: 0, attempt: 0 };
}

/** Begins a request that replaces the one under way, and the repetition that may be waiting. */
function begin() {
  clearTimeout(retry.timer);
  request?.abort();
  request = new AbortController();
  return request.signal;
}

// --- The library ---------------------------------------------------------------------------------------------

async function showLibrary() {
  const signal = begin();
  const line = byId("library");
  try {
    const library = await fetchLibrary(signal);
    stopRetrying();
    const length = library.hours > 0 ? `, ${footage(library.hours * 3600)} of footage` : "";
    line.textContent = `${count(library.num_videos, "video")}${length}`;
    if (library.problem) showNotice("The newest snapshot is not served", library.problem);
    else if (library.num_videos === 0) showNotice("The library is empty", EMPTY_LIBRARY);
    else hideNotice();
  } catch (problem) {
    if (signal.aborted) return;
    line.textContent = "";
    showProblem(problem, showLibrary);
  }
}

// --- Searching -----------------------------------------------------------------------------------------------

function showAnswer(query, topK, answer) {
  const hits = answer.hits.map((hit) => ({ ...hit, snapshot: answer.snapshot }));
  hideNotice();
  setView("results");
  byId("timing").textContent = `${milliseconds(answer.timings_ms.total)} · snapshot ${answer.snapshot}`;
  byId("count").textContent = hits.length ? count(hits.length, "result") : "No results";
  grid.show(hits);
  // The server gave all it was asked for: there may be more.
  more.hidden = hits.length < topK || topK >= LAST_TOP_K;
  current = { query, topK, shown: hits.length };
  if (hits.length === 0) {
    showNotice("Nothing found", "No video in this library fits that description. Try other words, or fewer.");
  }
}

function showSkeletons() {
  hideNotice();
  setView("results");
  more.hidden = true;
  byId("count").textContent = "Searching…";
  byId("timing").textContent = "";
  grid.showSkeletons(FIRST_TOP_K);
}

/** Asks the service. `isMore` and `isRetry` leave what is on display until there is an answer. */
async function runSearch(query, topK, { isMore = false, isRetry = false } = {}) {
  const signal = begin();
  byId("query-problem").textContent = "";
  byId("more-problem").textContent = "";
  results.setAttribute("aria-busy", "true");
  // Skeletons that only flash by would be worse than none.
  const skeletons = isMore || isRetry ? 0 : setTimeout(showSkeletons, SKELETON_DELAY_MS);
  try {
    const answer = await search(query, topK, signal);
    clearTimeout(skeletons);
    stopRetrying();
    const before = current.shown;
    if (!isMore) grid.clear();
    showAnswer(query, topK, answer);
    if (isMore) {
      history.replaceState({ topK }, "");
      grid.focus(Math.min(before, answer.hits.length - 1));
    }
  } catch (problem) {
    clearTimeout(skeletons);
    if (signal.aborted) return;
    if (isMore) {
      byId("more-problem").textContent = problem.message;
    } else {
      setView("problem");
      grid.clear();
      byId("count").textContent = "";
      showProblem(problem, () => runSearch(query, topK, { isRetry: true }));
    }
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

// --- The address ---------------------------------------------------------------------------------------------

const queryInAddress = () => (new URLSearchParams(location.search).get("q") ?? "").trim();

function showAddress() {
  const query = queryInAddress();
  shownAddress = location.search;
  stopRetrying();
  player.close();
  input.value = query;
  document.title = query ? `${query} – Reelfind` : "Reelfind";
  if (query) {
    runSearch(query, history.state?.topK ?? FIRST_TOP_K);
    return;
  }
  hideNotice();
  byId("query-problem").textContent = "";
  setView("initial");
  showLibrary();
}

/** Goes to a query as a link would: a new entry in the history, unless it is the same one again. */
function goTo(query) {
  const address = query ? `?${new URLSearchParams({ q: query })}` : location.pathname;
  if (query === queryInAddress()) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  showAddress();
}

// --- Events --------------------------------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = input.value.trim();
  if (query) {
    goTo(query);
    return;
  }
  byId("query-problem").textContent = "Describe what you are looking for, then press Enter.";
  input.focus();
});

input.addEventListener("input", () => {
  byId("query-problem").textContent = "";
});

input.addEventListener("keydown", (event) => {
  if (hasModifier(event)) return;
  if (event.key === "Escape" && input.value) {
    event.preventDefault();
    input.value = "";
  } else if (event.key === "ArrowDown" && !results.hidden) {
    event.preventDefault();
    grid.focus(0);
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || event.altKey || event.ctrlKey || event.metaKey || typing || player.isOpen) return;
  event.preventDefault();
  input.focus();
  input.select();
});

// Links to queries of this page (the name, the examples) need no new page.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.button !== 0 || hasModifier(event) || link.target) return;
  if (!link.matches("#brand, .examples a")) return;
  event.preventDefault();
  goTo(new URL(link.href).searchParams.get("q") ?? "");
  if (!queryInAddress()) input.focus();
});

more.addEventListener("click", () => runSearch(current.query, current.topK * 2, { isMore: true }));

window.addEventListener("popstate", () => {
  // A jump to an anchor (the skip link) is no other query.
  if (location.search !== shownAddress) showAddress();
});
window.addEventListener("online", () => {
  if (!notice.hidden && retry.timer) showAddress();
});

main.querySelector("noscript")?.remove();
showAddress();
