// The grid of hits: cards, skeletons, the fold with those that are less likely, and the arrow keys among them.

import { pictureByKey } from "./arrows.js";
import { buildCard, nameOf } from "./card.js";
import { byId, element, fill, hasModifier, rove } from "./dom.js";
import { isUnlikely } from "./level.js";
import { scoreScale } from "./ranking.js";
import { drawBars, relevanceScale } from "./strip.js";

// The key holds everything that a card shows, so that a card is reused only if nothing in it has changed.
const keyOf = (hit) =>
  JSON.stringify([
    hit.video_id,
    hit.start_seconds,
    hit.end_seconds,
    hit.snapshot,
    hit.reranked,
    hit.score,
    hit.match_score,
    hit.level,
  ]);

function buildSkeleton() {
  return element(
    "li",
    { class: "skeleton", "aria-hidden": "true" },
    element("div", { class: "skeleton-film" }),
    element("div", { class: "skeleton-line" }),
    element("div", { class: "skeleton-line" }),
  );
}

export class Grid {
  #list = byId("likely-grid");
  #fold = byId("fold");
  #foldButton = byId("fold-button");
  #folded = byId("fold-grid");
  #open;
  #explain;
  #leave;
  #items = new Map();
  #hits = [];
  #scale = null;

  /**
   * `open(hit, frame | null)` plays a hit; `explain(hit)` opens its explanation; `leave()` is called when the focus
   * moves up out of the grid.
   */
  constructor({ open, explain, leave }) {
    this.#open = open;
    this.#explain = explain;
    this.#leave = leave;
    for (const list of [this.#list, this.#folded]) {
      list.addEventListener("keydown", (event) => this.#onKey(event));
      list.addEventListener("focusin", (event) => this.#rove(event.target.closest("li:has(.shot)")));
    }
    this.#foldButton.addEventListener("click", () => this.#unfold(this.#folded.hidden));
  }

  /** The scale of the bars in all strips; null: nothing is shown. */
  get relevanceScale() {
    return this.#scale;
  }

  /** A hit's rank among those shown, from 1; 0 if it is not shown. */
  placeOf(hit) {
    return [...this.#items.keys()].indexOf(keyOf(hit)) + 1;
  }

  /** The hit that holds a time of a video; null if none does. */
  hitAt(videoId, seconds) {
    return this.#hits.find((hit) => hit.video_id === videoId && holds(hit, seconds)) ?? null;
  }

  #shots() {
    const lists = this.#folded.hidden ? [this.#list] : [this.#list, this.#folded];
    return lists.flatMap((list) => [...list.querySelectorAll(".shot")]);
  }

  /** Tab stops at one card only: at its picture, its links and its line of text. */
  #rove(item) {
    if (!item) return;
    for (const list of [this.#list, this.#folded]) {
      rove(list.querySelectorAll(".shot"), item.querySelector(".shot"));
      rove(list.querySelectorAll(".why"), item.querySelector(".why"));
      rove(list.querySelectorAll(".similar"), item.querySelector(".similar"));
      rove(list.querySelectorAll(".line-play"), item.querySelector(".line-play"));
    }
  }

  #unfold(isOpen) {
    this.#folded.hidden = !isOpen;
    this.#foldButton.setAttribute("aria-expanded", String(isOpen));
    this.#rove(this.#list.firstElementChild);
  }

  clear() {
    this.#items.clear();
    this.#hits = [];
    this.#scale = null;
    this.#list.replaceChildren();
    this.#folded.replaceChildren();
    this.#fold.hidden = true;
    this.#unfold(false);
  }

  showSkeletons(number) {
    this.clear();
    this.#list.replaceChildren(...Array.from({ length: number }, buildSkeleton));
  }

  /**
   * Shows the hits, best first; cards of hits that are already shown are reused. Those that are less likely are
   * folded, unless the answer is no more than guesses.
   */
  show(hits, { isGuess }) {
    this.#scale = relevanceScale(hits);
    const shareOf = scoreScale(hits);
    const actions = { open: this.#open, explain: this.#explain };
    const items = new Map();
    for (const hit of hits) {
      const item = this.#items.get(keyOf(hit)) ?? element("li", {}, buildCard(hit, actions));
      drawBars(item.querySelector(".strip"), hit, this.#scale);
      const share = shareOf(hit.score);
      item.style.setProperty("--share", share.toFixed(3));
      item.querySelector(".meter")?.setAttribute("aria-valuenow", Math.round(100 * share));
      items.set(keyOf(hit), item);
    }
    this.#items = items;
    this.#hits = hits;
    const isFolded = (hit) => !isGuess && isUnlikely(hit);
    const itemsOf = (some) => some.map((hit) => items.get(keyOf(hit)));
    const less = hits.filter(isFolded);
    fill(this.#list, itemsOf(hits.filter((hit) => !isFolded(hit))));
    fill(this.#folded, itemsOf(less));
    this.#fold.hidden = less.length === 0;
    this.#foldButton.textContent = `${less.length.toLocaleString("en")} less likely`;
    this.#rove(document.activeElement?.closest(".grid > li") ?? this.#list.firstElementChild);
  }

  /** Gives the focus to the hit at an index, or to the fold that hides it. */
  focus(index) {
    const item = [...this.#items.values()][index];
    if (!item) return;
    if (this.#folded.hidden && this.#folded.contains(item)) this.#foldButton.focus();
    else item.querySelector(".shot").focus();
  }

  /** Gives the focus back to a hit's card. Returns whether the card is shown. */
  focusHit(hit) {
    const place = this.placeOf(hit);
    this.focus(place - 1);
    return place > 0;
  }

  /** Shows the new title of a video, and its tags when it is played again. */
  rename({ video_id: videoId, title, tags }) {
    for (const hit of this.#hits) {
      if (hit.video_id !== videoId) continue;
      Object.assign(hit, { title, tags });
      this.#items.get(keyOf(hit)).querySelector(".card-name").textContent = nameOf(hit);
    }
  }

  #onKey(event) {
    if (hasModifier(event) || !event.target.closest("li")) return;
    const shots = this.#shots();
    const current = event.target.closest("li").querySelector(".shot");
    const next = pictureByKey(event.key, shots, current);
    if (next === null) return;
    event.preventDefault();
    if (next) next.focus();
    else if (event.key === "ArrowUp") this.#leave();
  }
}

/** Whether a hit holds a time: one of its span, or the start of one of its frames. */
export const holds = (hit, seconds) =>
  (hit.start_seconds <= seconds && seconds < hit.end_seconds) ||
  hit.frames.some((frame) => Math.abs(frame.pts_seconds - seconds) < 0.001);
