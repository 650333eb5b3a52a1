// The grid of hits: cards, skeletons, and the arrow keys among them.

import { frameAddress } from "./api.js";
import { element, hasModifier, rove } from "./dom.js";
import { clock, clockSpan, fileName, score } from "./format.js";
import { buildStrip, drawBars, mostRelevant, relevanceScale } from "./strip.js";

export const nameOf = (hit) => hit.title || fileName(hit.path);

const keyOf = (hit) => `${hit.video_id} ${hit.start_seconds} ${hit.snapshot}`;

/** One hit: its best frame, its strip, its name, span and score. `open(hit, frame | null)` plays it. */
function buildCard(hit, open) {
  const best = mostRelevant(hit.frames);
  const name = nameOf(hit);
  const span = clockSpan(hit.start_seconds, hit.end_seconds);

  const image = element("img", { class: "shot-image", alt: "", decoding: "async", "data-frame-id": best?.frame_id });
  const time = element("span", { class: "shot-time" });
  const show = (frame) => {
    if (!frame) return;
    image.src = frameAddress(frame.frame_id, hit.snapshot);
    time.textContent = clock(frame.pts_seconds);
  };
  image.addEventListener("error", () => shot.setAttribute("data-missing", "No picture"));
  image.addEventListener("load", () => shot.removeAttribute("data-missing"));

  const shot = element(
    "button",
    {
      class: "shot",
      type: "button",
      tabindex: -1,
      "aria-label": `Play ${name}, ${span}, similarity ${score(hit.score)}`,
      onclick: () => open(hit, null),
    },
    image,
    time,
  );
  show(best);

  const strip = buildStrip(hit, {
    choose: (frame) => open(hit, frame),
    preview: (frame) => show(frame ?? best),
  });
  const card = element(
    "article",
    { class: "card" },
    element("div", { class: "film" }, shot, strip),
    element("h3", { class: "card-name", dir: "auto", title: name === hit.path ? name : `${name}\n${hit.path}`, text: name }),
    element(
      "p",
      { class: "card-facts" },
      element("span", { class: "card-span", text: span }),
      element(
        "span",
        { class: "card-score", title: "Similarity of the description and this stretch; the bar compares it with the best result" },
        element("span", { class: "meter" }, element("span")),
        element("span", { class: "unseen", text: "Similarity " }),
        element("span", { class: "card-value", text: score(hit.score) }),
      ),
    ),
  );
  // A click on the name plays too, unless it ends a selection of text.
  card.addEventListener("click", (event) => {
    if (!event.target.closest("button") && getSelection().isCollapsed) open(hit, null);
  });
  return card;
}

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
  #leave;
  #items = new Map();
  #scale = null;

  /** `open(hit, frame | null, scale)` plays a hit; `leave()` takes the focus when it moves up out of the grid. */
  constructor(list, { open, leave }) {
    this.#list = list;
    this.#open = open;
    this.#leave = leave;
    list.addEventListener("keydown", (event) => this.#onKey(event));
    list.addEventListener("focusin", (event) => {
      const shot = event.target.closest("li")?.querySelector(".shot");
      if (shot) rove(this.#shots(), shot);
    });
  }

  #shots() {
    return [...this.#list.querySelectorAll(".shot")];
  }

  clear() {
    this.#items.clear();
    this.#list.replaceChildren();
  }

  showSkeletons(number) {
    this.#items.clear();
    this.#list.replaceChildren(...Array.from({ length: number }, buildSkeleton));
  }

  /** Shows the hits, best first; cards that are there already (`More results`) stay as they are. */
  show(hits) {
    this.#scale = relevanceScale(hits);
    const best = hits[0]?.score ?? 0;
    const play = (hit, frame) => this.#open(hit, frame, this.#scale);
    const items = new Map();
    for (const hit of hits) {
      const item = this.#items.get(keyOf(hit)) ?? element("li", {}, buildCard(hit, play));
      drawBars(item.querySelector(".strip"), hit, this.#scale);
      const share = best > 0 ? Math.min(1, Math.max(0, hit.score / best)) : 0;
      item.style.setProperty("--share", share.toFixed(3));
      items.set(keyOf(hit), item);
    }
    this.#items = items;
    this.#list.replaceChildren(...items.values());
    const shots = this.#shots();
    rove(shots, shots[0]);
  }

  focus(index) {
    this.#shots()[index]?.focus();
  }

  /** Gives the focus back to a hit's card, when it is still there. */
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
        // From the row above a short last row, down leads to its end.
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
