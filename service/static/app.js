// The page: keeps query and options in the address, sends requests, and decides which state is shown.

import { fetchLibrary, search } from "./api.js";
import { byId, hasModifier } from "./dom.js";
import { count, footage } from "./format.js";
import { Notice } from "./notice.js";
import { OptionsPanel, optionsIn, searchPart } from "./options.js";
import { withPlace } from "./place.js";
import { Playing } from "./playing.js";
import { MORE_TIME_MS, hitsOf } from "./ranking.js";
import { Grid } from "./results.js";
import { showSession } from "./session.js";
import { Tally } from "./tally.js";
import { Why } from "./why.js";

const FIRST_TOP_K = 12;
const LAST_TOP_K = 768;
const SKELETON_DELAY_MS = 150;
const EMPTY_LIBRARY = "Run `reelfind index` on the folder of your videos; the server loads the result by itself.";

const form = byId("search-form");
const input = byId("query");
const main = byId("main");
const results = byId("results");
const more = byId("more");

// On a touch screen, the focus in the search box opens a keyboard that covers the results.
const isTouch = () => matchMedia("(pointer: coarse)").matches;
const notice = new Notice(isTouch() ? main : input);
const tally = new Tally({ act: (action) => (action === "time" ? searchLonger() : switchOnRerank()) });
const optionsPanel = new OptionsPanel({ changed: () => applyOptions(optionsPanel.options) });
const explain = (hit) => why.open(hit, grid.placeOf(hit), grid.relevanceScale);
const why = new Why({ play: (hit, frame) => playing.play(hit, frame) });
const grid = new Grid({ open: (hit, frame) => playing.play(hit, frame), explain, leave: () => input.focus() });
const playing = new Playing(grid, {
  question: () => ({
    text: current.query,
    options: { ...optionsIn(location.search), deadlineMs: remembered().deadlineMs },
  }),
  explain,
  leave: () => main.focus({ preventScroll: true }),
});

let current = { query: "", topK: FIRST_TOP_K, shown: 0 };
let request = null;
let shownSearch = null;

// --- What is shown -------------------------------------------------------------------------------------------

function setView(view) {
  document.documentElement.dataset.view = view;
  results.hidden = view !== "results";
  if (view === "initial") grid.clear();
}

/** Begins a request: cancels the one in progress and a retry that is waiting. */
function begin() {
  notice.stopWaiting();
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
    notice.stopRetrying();
    const length = library.hours > 0 ? `, ${footage(library.hours * 3600)} of footage` : "";
    line.textContent = `${count(library.num_videos, "video")}${length}`;
    if (library.problem) notice.show("The newest snapshot is not served", library.problem);
    else if (library.num_videos === 0) notice.show("The library is empty", EMPTY_LIBRARY);
    else notice.hide();
  } catch (problem) {
    if (signal.aborted) return;
    line.textContent = "";
    notice.showProblem(problem, showLibrary);
  }
}

// --- Searching -----------------------------------------------------------------------------------------------

/** The state of the history entry: how many results to show, and the deadline after "Give it more time". */
const remembered = () => ({ topK: FIRST_TOP_K, deadlineMs: null, ...history.state });

function showAnswer(query, { topK, deadlineMs }, answer) {
  const hits = hitsOf(answer);
  notice.hide();
  setView("results");
  tally.showAnswer(answer, deadlineMs);
  grid.show(hits, { isGuess: answer.best_guess === true });
  // The server returned as many as it was asked for, so there may be more.
  more.hidden = hits.length < topK || topK >= LAST_TOP_K;
  current = { query, topK, shown: hits.length };
  if (hits.length === 0) {
    notice.show("Nothing found", "No video in this library fits that description. Try other words, or fewer.");
  }
}

function showSkeletons() {
  notice.hide();
  setView("results");
  more.hidden = true;
  tally.showBusy();
  grid.showSkeletons(FIRST_TOP_K);
}

/** Runs a search. With `isMore` or `isRetry`, the page stays as it is until there is an answer. */
async function runSearch(query, state, { isMore = false, isRetry = false } = {}) {
  const signal = begin();
  byId("query-problem").textContent = "";
  byId("more-problem").textContent = "";
  playing.hideProblem();
  results.setAttribute("aria-busy", "true");
  // Skeletons that only flash up are worse than none.
  const skeletons = isMore || isRetry ? 0 : setTimeout(showSkeletons, SKELETON_DELAY_MS);
  try {
    const answer = await search(query, { ...optionsIn(location.search), ...state }, signal);
    clearTimeout(skeletons);
    notice.stopRetrying();
    const before = current.shown;
    if (!isMore) grid.clear();
    showAnswer(query, state, answer);
    if (isMore) {
      history.replaceState(state, "");
      grid.focus(Math.min(before, answer.hits.length - 1));
    } else {
      playing.showPlace();
    }
  } catch (problem) {
    clearTimeout(skeletons);
    if (signal.aborted) return;
    if (isMore) {
      byId("more-problem").textContent = problem.message;
    } else {
      setView("problem");
      grid.clear();
      tally.clear();
      notice.showProblem(problem, () => runSearch(query, state, { isRetry: true }));
    }
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

function searchLonger() {
  history.replaceState({ ...remembered(), deadlineMs: MORE_TIME_MS }, "");
  showAddress();
  leaveNote();
}

function switchOnRerank() {
  applyOptions({ ...optionsIn(location.search), rerank: true });
  leaveNote();
}

/** Takes the focus from the note, which will disappear. In the search box it would open a phone's keyboard. */
const leaveNote = () => main.focus({ preventScroll: true });

// --- The address ---------------------------------------------------------------------------------------------

const queryInAddress = () => (new URLSearchParams(location.search).get("q") ?? "").trim();

function showAddress() {
  const query = queryInAddress();
  shownSearch = withPlace(location.search, null);
  notice.stopRetrying();
  why.close();
  playing.close();
  input.value = query;
  optionsPanel.show(optionsIn(location.search));
  document.title = query ? `${query} – Reelfind` : "Reelfind";
  if (query) {
    if (isTouch() && [input, document.body].includes(document.activeElement)) main.focus({ preventScroll: true });
    runSearch(query, remembered());
    return;
  }
  notice.hide();
  byId("query-problem").textContent = "";
  setView("initial");
  showLibrary();
}

/** Goes to a query as a link would: adds an entry to the history, unless query and options are unchanged. */
function goTo(query, options) {
  optionsPanel.settle();
  const part = searchPart(query, options);
  const address = part || location.pathname;
  if (part === searchPart(queryInAddress(), optionsIn(location.search))) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  showAddress();
}

/** Applies options from the panel: repeats the search that is shown; text being typed stays. */
function applyOptions(options) {
  const typed = input.value;
  if (queryInAddress()) {
    goTo(queryInAddress(), options);
    input.value = typed;
    return;
  }
  history.replaceState(null, "", searchPart("", options) || location.pathname);
  shownSearch = withPlace(location.search, null);
}

// --- Events --------------------------------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!optionsPanel.check()) {
    optionsPanel.open();
    return;
  }
  const query = input.value.trim();
  if (query) {
    goTo(query, optionsPanel.options);
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
  const isCovered = playing.isOpen || why.isOpen;
  if (event.key !== "/" || event.altKey || event.ctrlKey || event.metaKey || typing || isCovered) return;
  event.preventDefault();
  input.focus();
  input.select();
});

// Links to queries (the brand, the examples) work without loading the page again; the brand resets the options.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.button !== 0 || hasModifier(event) || link.target) return;
  if (!link.matches("#brand, .examples a")) return;
  event.preventDefault();
  const query = new URL(link.href).searchParams.get("q") ?? "";
  goTo(query, optionsIn(query ? location.search : ""));
  if (!queryInAddress()) input.focus();
});

more.addEventListener("click", () => {
  runSearch(current.query, { ...remembered(), topK: current.topK * 2 }, { isMore: true });
});

window.addEventListener("popstate", () => {
  if (playing.settle()) return;
  why.close();
  // A jump to an anchor (the skip link) changes neither the query nor the place.
  if (withPlace(location.search, null) !== shownSearch) showAddress();
  else playing.showPlace();
});
window.addEventListener("online", () => {
  if (notice.isWaiting) showAddress();
});

main.querySelector("noscript")?.remove();
showAddress();
showSession();
