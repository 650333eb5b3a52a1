// The page: keeps query and options in the address, sends requests, and decides which state is shown.

import { ServiceProblem, fetchLibrary, search } from "./api.js";
import { askedIn, filterOf, isList, isSearch, queryOf } from "./asked.js";
import { byId, hasModifier } from "./dom.js";
import { Editing } from "./editing.js";
import { Filters, wordsOf } from "./filters.js";
import { count, footage } from "./format.js";
import { Home } from "./home.js";
import { JobPanel } from "./jobs.js";
import { isUnlikely } from "./level.js";
import { Notice } from "./notice.js";
import { OptionsPanel, optionsIn, searchPart } from "./options.js";
import { Paging } from "./paging.js";
import { PictureEntry, keepPicture, pictureNamed } from "./pictures.js";
import { withPlace } from "./place.js";
import { Playing } from "./playing.js";
import { MORE_TIME_MS, hitsOf } from "./ranking.js";
import { rememberSearch } from "./recent.js";
import { Grid } from "./results.js";
import { beginScroll, endScroll } from "./scrolling.js";
import { showSession } from "./session.js";
import { Tally } from "./tally.js";
import { MomentTools } from "./tools.js";
import { VideoList } from "./videos.js";
import { Why } from "./why.js";

const PAGE = 12;
const SKELETON_DELAY_MS = 150;
const ADD_FOLDER = "Name the folder of your videos below, or run `reelfind index` on it.";
const EMPTY_LIBRARY = "Run `reelfind index` on the folder of your videos; the server loads the result by itself.";

const form = byId("search-form");
const input = byId("query");
const main = byId("main");
const results = byId("results");

// On a touch screen, the focus in the search box opens a keyboard that covers the results.
const isTouch = () => matchMedia("(pointer: coarse)").matches;
const notice = new Notice(isTouch() ? main : input);
const tally = new Tally({ act: (action) => (action === "time" ? searchLonger() : switchOnRerank()) });
const optionsPanel = new OptionsPanel({ changed: () => applyOptions(optionsPanel.options) });
const explain = (hit) => why.open(hit, grid.placeOf(hit), grid.relevanceScale);
const why = new Why({ play: (hit, frame) => playing.play(hit, frame) });
const grid = new Grid({ open: (hit, frame) => playing.play(hit, frame), explain, leave: () => input.focus() });
const editing = new Editing({ saved: showChange });
const tools = new MomentTools({ edit: (videoId) => editing.open(videoId) });
const playing = new Playing(grid, {
  question: () => ({
    question: current.question,
    options: { ...optionsIn(location.search), deadlineMs: remembered().deadlineMs },
  }),
  explain,
  leave: () => main.focus({ preventScroll: true }),
  tools,
});
const play = (videoId, seconds) => playing.playVideo(videoId, seconds);
const home = new Home({ play });
const jobPanel = new JobPanel({
  published: () => {
    const asked = askedIn(location.search);
    // Also while a search has no answer yet: it would be cancelled.
    if (isSearch(asked) || isList(asked)) return;
    // The first library is opened in a moment: it is soon asked for again.
    notice.stopRetrying();
    showHome();
  },
});
const videoList = new VideoList({ play });
const filters = new Filters({ ask: (asked) => goTo(asked, optionsIn(location.search)) });
const paging = new Paging(byId("more"), byId("more-problem"), (isByButton) => addPage(isByButton));
const pictureEntry = new PictureEntry({
  search: async (file) => {
    const picture = await keepPicture(file);
    goTo({ ...askedIn(location.search), text: "", frame: "", like: "", picture, list: "" }, optionsIn(location.search));
  },
  refuse: (text) => {
    byId("query-problem").textContent = text;
  },
});

// What is shown: the question of the search, null if there is none; its hits; and the token of the page that follows.
const NOTHING = { question: null, hits: [], answer: null, nextPage: null, pages: 0 };
let current = NOTHING;
let request = null;
let shownSearch = null;
// Whether it is known what the library allows, or a promise of that.
let rights = null;

// --- What is shown -------------------------------------------------------------------------------------------

function setView(view) {
  document.documentElement.dataset.view = view;
  results.hidden = view !== "results";
  byId("videos").hidden = view !== "videos";
  byId("home").hidden = view !== "initial";
  if (view !== "results") grid.clear();
  if (view !== "videos") videoList.clear();
}

/** Begins a request: cancels the one in progress and a retry that is waiting. */
function begin() {
  notice.stopWaiting();
  request?.abort();
  request = new AbortController();
  return request.signal;
}

// --- The library ---------------------------------------------------------------------------------------------

/** What the library allows: pictures as queries, and changes. */
function showRights(library) {
  rights = true;
  pictureEntry.allow(library.cannot_query_image === null);
  tools.allowWrites(library.writes);
}

async function showHome() {
  const signal = begin();
  const line = byId("library");
  try {
    const library = await fetchLibrary(signal);
    notice.stopRetrying();
    const length = library.hours > 0 ? `, ${footage(library.hours * 3600)} of footage` : "";
    line.textContent = `${count(library.num_videos, "video")}${length}`;
    showRights(library);
    byId("asked-bar").hidden = library.num_videos === 0;
    if (library.problem) notice.show("The newest snapshot is not served", library.problem);
    else if (library.num_videos === 0) notice.show("The library is empty", library.jobs ? ADD_FOLDER : EMPTY_LIBRARY);
    else notice.hide();
    jobPanel.show(library.jobs);
    byId("home").hidden = false;
    // A run that publishes while a video is watched changes what lies behind it alone.
    if (!playing.isOpen) playing.showPlace();
    await home.show(library, signal);
    if (!signal.aborted) endScroll();
  } catch (problem) {
    if (signal.aborted) return;
    line.textContent = "";
    byId("home").hidden = problem.kind !== "not-ready";
    byId("asked-bar").hidden = true;
    home.clear();
    // Without a library, too, a run may be started, which makes one.
    jobPanel.show(problem.kind === "not-ready");
    notice.showProblem(problem, showHome);
  }
}

// --- Lists ---------------------------------------------------------------------------------------------------

async function showVideos(asked, { isRetry = false } = {}) {
  const signal = begin();
  if (!isRetry) notice.hide();
  try {
    const total = await videoList.show(asked, remembered().pages, signal);
    notice.stopRetrying();
    setView("videos");
    if (total === 0) notice.show("No videos", "No video of this library fits all of these filters. Remove one.");
    else notice.hide();
    endScroll();
    playing.showPlace();
  } catch (problem) {
    if (signal.aborted) return;
    setView("problem");
    notice.showProblem(problem, () => showVideos(asked, { isRetry: true }));
  }
}

// --- Searching -----------------------------------------------------------------------------------------------

/** The state of the history entry: how many pages to show, and the deadline after "Give it more time". */
const remembered = () => ({ pages: 1, deadlineMs: null, ...history.state });

/** What the service is asked; throws where this browser does not have the picture. */
async function questionOf(asked) {
  const picture = asked.picture ? await pictureNamed(asked.picture) : null;
  if (asked.picture && picture === null) {
    throw new Error("The picture of this address is not in this browser. Drop it here, or choose it again.");
  }
  return { query: queryOf(asked), filter: filterOf(asked), sort: asked.sort || null, picture };
}

function addAnswer(answer) {
  const hits = [...current.hits, ...hitsOf(answer)];
  const whole = current.answer ?? answer;
  current = { ...current, hits, answer: whole, nextPage: answer.next_page_token, pages: current.pages + 1 };
}

function showHits(deadlineMs) {
  const { hits, answer, nextPage } = current;
  const isGuess = answer.best_guess === true;
  tally.showAnswer({ ...answer, hits }, deadlineMs);
  grid.show(hits, { isGuess });
  // What follows is folded, too: it would be loaded to the end without being seen.
  paging.show({ hasMore: nextPage !== null, byScrolling: isGuess || !hits.length || !isUnlikely(hits.at(-1)) });
}

function showSkeletons() {
  notice.hide();
  setView("results");
  paging.show({ hasMore: false });
  tally.showBusy();
  grid.showSkeletons(PAGE);
}

function optionsOfPage(pageToken) {
  const { deadlineMs } = remembered();
  return { ...optionsIn(location.search), topK: PAGE, deadlineMs, pageToken };
}

/** Runs a search. With `isRetry`, the page stays as it is until there is an answer. */
async function runSearch(asked, { isRetry = false } = {}) {
  const signal = begin();
  const { pages, deadlineMs } = remembered();
  results.setAttribute("aria-busy", "true");
  // Skeletons that only flash up are worse than none.
  const skeletons = isRetry ? 0 : setTimeout(showSkeletons, SKELETON_DELAY_MS);
  try {
    const question = await questionOf(asked);
    const answers = [await search(question, optionsOfPage(null), signal)];
    while (answers.length < pages && answers.at(-1).next_page_token) {
      answers.push(await search(question, optionsOfPage(answers.at(-1).next_page_token), signal));
    }
    clearTimeout(skeletons);
    notice.stopRetrying();
    notice.hide();
    grid.clear();
    current = { ...NOTHING, question };
    answers.forEach(addAnswer);
    setView("results");
    showHits(deadlineMs);
    if (current.hits.length === 0) {
      notice.show("Nothing found", "No video in this library fits that description. Try other words, or fewer.");
    }
    endScroll();
    rememberSearch(withPlace(location.search, null), titleOf(asked));
    playing.showPlace();
  } catch (problem) {
    clearTimeout(skeletons);
    if (signal.aborted) return;
    setView("problem");
    tally.clear();
    if (problem instanceof ServiceProblem) notice.showProblem(problem, () => runSearch(asked, { isRetry: true }));
    else notice.show("That search did not work", problem.message);
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

/** Adds the page that follows; by the button, the focus goes to its first hit. */
async function addPage(isByButton) {
  const { signal } = request;
  const before = current.hits.length;
  const answer = await search(current.question, optionsOfPage(current.nextPage), signal);
  if (signal.aborted) return;
  const movesFocus = isByButton();
  addAnswer(answer);
  showHits(remembered().deadlineMs);
  history.replaceState({ ...history.state, pages: current.pages }, "");
  if (movesFocus) grid.focus(Math.min(before, current.hits.length - 1));
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

/** Shows a change of a video's title and tags, wherever the video is shown. */
function showChange(video) {
  grid.rename(video);
  playing.rename(video);
  const { view } = document.documentElement.dataset;
  const asked = askedIn(location.search);
  if (view === "videos") videoList.show(asked, remembered().pages, request.signal).catch(() => {});
  if (view === "initial") home.showAgain();
}

// --- The address ---------------------------------------------------------------------------------------------

const titleOf = (asked) => [asked.text, ...wordsOf(asked)].filter(Boolean).join(", ");

function showAddress() {
  const asked = askedIn(location.search);
  shownSearch = withPlace(location.search, null);
  notice.stopRetrying();
  why.close();
  editing.close();
  playing.close();
  byId("query-problem").textContent = "";
  beginScroll();
  input.value = asked.text;
  optionsPanel.show(optionsIn(location.search));
  filters.show(asked);
  byId("asked-bar").hidden = false;
  const title = titleOf(asked) || (isList(asked) ? "All videos" : "");
  document.title = title ? `${title} – Reelfind` : "Reelfind";
  current = NOTHING;
  if (isSearch(asked) || isList(asked)) {
    if (isTouch() && [input, document.body].includes(document.activeElement)) main.focus({ preventScroll: true });
    learnRights();
    if (isSearch(asked)) runSearch(asked);
    else showVideos(asked);
    return;
  }
  notice.hide();
  setView("initial");
  showHome();
}

/** Learns once what the library allows, where the home page has not been shown. */
function learnRights() {
  rights ??= fetchLibrary().then(showRights, () => (rights = null));
}

/** Goes to what is asked as a link would: adds an entry to the history, unless nothing changes. */
function goTo(asked, options) {
  optionsPanel.settle();
  const part = searchPart(asked, options);
  const address = part || location.pathname;
  if (part === searchPart(askedIn(location.search), optionsIn(location.search))) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  showAddress();
}

/** Applies options from the panel: repeats the search that is shown; text being typed stays. */
function applyOptions(options) {
  const typed = input.value;
  const asked = askedIn(location.search);
  if (isSearch(asked)) {
    goTo(asked, options);
    input.value = typed;
    return;
  }
  history.replaceState(null, "", searchPart(asked, options) || location.pathname);
  shownSearch = withPlace(location.search, null);
}

// --- Events --------------------------------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!optionsPanel.check()) {
    optionsPanel.open();
    return;
  }
  const text = input.value.trim();
  const asked = { ...askedIn(location.search), text, list: "" };
  if (isSearch(asked)) {
    goTo(asked, optionsPanel.options);
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
  const isCovered = playing.isOpen || why.isOpen || editing.isOpen;
  if (event.key !== "/" || event.altKey || event.ctrlKey || event.metaKey || typing || isCovered) return;
  event.preventDefault();
  input.focus();
  input.select();
});

// Links within the page work without loading it again; the brand resets the options.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.button !== 0 || hasModifier(event) || link.target) return;
  if (!link.matches("#brand, [data-page]")) return;
  event.preventDefault();
  const { search: part } = new URL(link.href);
  goTo(askedIn(part), optionsIn(link.id === "brand" ? "" : location.search));
  if (link.id === "brand") input.focus();
  else if (!main.contains(document.activeElement)) main.focus({ preventScroll: true });
});

window.addEventListener("popstate", () => {
  if (playing.settle()) return;
  why.close();
  editing.close();
  // A jump to an anchor (the skip link) changes neither what is asked nor the place.
  if (withPlace(location.search, null) !== shownSearch) showAddress();
  else playing.showPlace();
});
window.addEventListener("online", () => {
  if (notice.isWaiting) showAddress();
});

main.querySelector("noscript")?.remove();
showAddress();
showSession();
