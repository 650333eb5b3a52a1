// The grid of hits: cards, skeletons, and the arrow keys among them.

import { buildCard } from "./card.js";
import { element, hasModifier, rove } from "./dom.js";
import { scoreScale } from "./ranking.js";
import { drawBars, relevanceScale } from "./strip.js";

// The key holds everything that a card shows, so that a card is reused only if nothing in it has changed.
const keyOf = (hit) =>
  JSON.stringify([hit.video_id, hit.start_seconds, hit.snapshot, hit.reranked, hit.score, hit.match_score]);

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
  #list;
  #open;
  #explain;
  #leave;
  #items = new Map();
  #scale = null;

  /**
   * `open(hit, frame | null, scale)` plays a hit; `explain(hit, place, scale)` opens its explanation;
   * `leave()` is called when the focus moves up out of the grid.
   */
  constructor(list, { open, explain, leave }) {
    this.#list = list;
    this.#open = open;
    this.#explain = explain;
    this.#leave = leave;
    list.addEventListener("keydown", (event) => this.#onKey(event));
    list.addEventListener("focusin", (event) => this.#rove(event.target.closest("li:has(.shot)")));
  }

  /** The scale of the bars in all strips. */
  get relevanceScale() {
    return this.#scale;
  }

  /** A hit's rank among those shown, from 1; 0 if it is not shown. */
  placeOf(hit) {
    return [...this.#items.keys()].indexOf(keyOf(hit)) + 1;
  }

  #shots() {
    return [...this.#list.querySelectorAll(".shot")];
  }

  /** Tab stops at one card only: at its thumbnail, then at its explanation. */
  #rove(item) {
    if (!item) return;
    rove(this.#shots(), item.querySelector(".shot"));
    rove(this.#list.querySelectorAll(".why"), item.querySelector(".why"));
  }

  clear() {
    this.#items.clear();
    this.#list.replaceChildren();
  }

  showSkeletons(number) {
    this.#items.clear();
    this.#list.replaceChildren(...Array.from({ length: number }, buildSkeleton));
  }

  /** Shows the hits, best first; cards of hits that are already shown are reused. */
  show(hits) {
    this.#scale = relevanceScale(hits);
    const shareOf = scoreScale(hits);
    const actions = {
      open: (hit, frame) => this.#open(hit, frame, this.#scale),
      explain: (hit) => this.#explain(hit, this.placeOf(hit), this.#scale),
    };
    const items = new Map();
    for (const hit of hits) {
      const item = this.#items.get(keyOf(hit)) ?? element("li", {}, buildCard(hit, actions));
      drawBars(item.querySelector(".strip"), hit, this.#scale);
      item.style.setProperty("--share", shareOf(hit.score).toFixed(3));
      items.set(keyOf(hit), item);
    }
    this.#items = items;
    this.#list.replaceChildren(...items.values());
    this.#rove(this.#list.firstElementChild);
  }

  focus(index) {
    this.#shots()[index]?.focus();
  }

  /** Gives the focus back to a hit's card, if it is still shown. */
  focusHit(hit) {
    this.#items.get(keyOf(hit))?.querySelector(".shot").focus();
  }

  #onKey(event) {
    if (hasModifier(event) || !event.target.closest("li")) return;
    const shots = this.#shots();
    const index = shots.indexOf(event.target.closest("li").querySelector(".shot"));
    const top = shots[0]?.getBoundingClientRect().top;
    const columns = shots.filter((shot) => Math.abs(shot.getBoundingClientRect().top - top) < 2).length;
    let next;
    switch (event.key) {
      case "ArrowRight":
        next = index + 1;
        break;
      case "ArrowLeft":
        next = index - 1;
        break;
      case "ArrowDown":
        // From above the gap in a short last row, down leads to the last card.
        next = index + columns;
        if (next >= shots.length && Math.floor(index / columns) < Math.floor((shots.length - 1) / columns)) {
          next = shots.length - 1;
        }
        break;
      case "ArrowUp":
        next = index - columns;
        break;
      case "Home":
        next = 0;
        break;
      case "End":
        next = shots.length - 1;
        break;
      default:
        return;
    }
    event.preventDefault();
    if (next < 0) {
      if (event.key === "ArrowUp") this.#leave();
      return;
    }
    shots[next]?.focus();
  }
}
