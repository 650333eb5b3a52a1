// A hit as a card: its best frame, its strip, its name, time span and score.

import { frameAddress } from "./api.js";
import { element } from "./dom.js";
import { clock, clockSpan, fileName, score } from "./format.js";
import { bestFrame, scoreName } from "./ranking.js";
import { buildStrip, termsOf } from "./strip.js";

export const nameOf = (hit) => hit.title || fileName(hit.path);

/** The large thumbnail, a button that plays the hit. `show(frame)` shows a frame on it; null: the best one. */
function buildShot(hit, open) {
  const best = bestFrame(hit.frames);
  const span = clockSpan(hit.start_seconds, hit.end_seconds);
  const image = element("img", { class: "shot-image", alt: "", decoding: "async", "data-frame-id": best?.frame_id });
  const time = element("span", { class: "shot-time" });
  const terms = element("span", { class: "shot-terms" });
  const shot = element(
    "button",
    {
      class: "shot",
      type: "button",
      tabindex: -1,
      "aria-label": `Play ${nameOf(hit)}, ${span}, ${scoreName(hit).toLowerCase()} ${score(hit.score)}`,
      onclick: () => open(hit, null),
    },
    image,
    element("span", { class: "shot-chip" }, time, terms),
  );
  image.addEventListener("error", () => shot.setAttribute("data-missing", "No thumbnail"));
  image.addEventListener("load", () => shot.removeAttribute("data-missing"));
  const show = (frame) => {
    const shown = frame ?? best;
    if (!shown) return;
    image.src = frameAddress(shown.frame_id, hit.snapshot);
    time.textContent = clock(shown.pts_seconds);
    terms.textContent = termsOf(shown);
  };
  show(null);
  return { shot, show };
}

function buildScore(hit) {
  const name = scoreName(hit);
  const title = hit.reranked
    ? "How well this moment fits the description; the bar compares it with the other results"
    : "Similarity of the description and this moment; the bar compares it with the best result";
  return element(
    "span",
    { class: "card-score", title },
    element("span", { class: "meter" }, element("span")),
    element("span", { class: "unseen", text: `${name} ` }),
    element("span", { class: "card-value", text: score(hit.score) }),
  );
}

/** Builds a card. `open(hit, frame | null)` plays the hit, `explain(hit)` opens its explanation. */
export function buildCard(hit, { open, explain }) {
  const name = nameOf(hit);
  const { shot, show } = buildShot(hit, open);
  const strip = buildStrip(hit, { choose: (frame) => open(hit, frame), preview: show });
  const why = element("button", {
    class: "why",
    type: "button",
    tabindex: -1,
    "aria-label": `Why? ${name}`,
    "aria-haspopup": "dialog",
    title: "Why this result",
    text: "Why?",
    onclick: () => explain(hit),
  });
  const card = element(
    "article",
    { class: "card" },
    element("div", { class: "film" }, shot, strip),
    element("h3", { class: "card-name", dir: "auto", title: name === hit.path ? name : `${name}\n${hit.path}`, text: name }),
    element(
      "p",
      { class: "card-facts" },
      element("span", { class: "card-span", text: clockSpan(hit.start_seconds, hit.end_seconds) }),
      buildScore(hit),
      why,
    ),
  );
  // A click elsewhere on the card plays too, unless it ends a selection of text.
  card.addEventListener("click", (event) => {
    if (!event.target.closest("button") && getSelection().isCollapsed) open(hit, null);
  });
  return card;
}
