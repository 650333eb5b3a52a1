// "Why this result": a dialog with a hit's salient frames and every term of its score.

import { frameAddress } from "./api.js";
import { nameOf } from "./card.js";
import { byId, element, withCode } from "./dom.js";
import { clockSpan, count, ordinal, score, signed } from "./format.js";
import { levelWord } from "./level.js";
import { decimalsThatAddUp, isMatched, skippedNote } from "./ranking.js";
import { timeOf } from "./strip.js";

/** A salient frame: a thumbnail that plays from there, above its scores. */
function buildFrame(hit, frame, scale, play) {
  const bar = element("span", { class: "proof-bar" }, element("span"));
  bar.style.setProperty("--relevance", scale(frame.relevance).toFixed(3));
  const terms = element(
    "dl",
    { class: "proof-terms" },
    element("div", {}, element("dt", { text: "relevance" }), element("dd", { text: score(frame.relevance) })),
  );
  if (frame.match_score !== null) {
    const match = element("dd", { class: "proof-match", text: signed(frame.match_score) });
    terms.append(element("div", {}, element("dt", { text: "match" }), match));
  }
  return element(
    "li",
    { class: "proof", "data-frame-id": frame.frame_id },
    element(
      "button",
      {
        class: "proof-shot",
        type: "button",
        "aria-label": `Play from ${timeOf(hit, frame)}`,
        onclick: () => play(frame),
      },
      element("img", { src: frameAddress(frame.frame_id, hit.snapshot), alt: "", decoding: "async" }),
      element("span", { class: "shot-chip" }, element("span", { class: "shot-time", text: timeOf(hit, frame) })),
    ),
    bar,
    terms,
  );
}

function describeFrames(hit, salient) {
  const isOne = salient.length === 1;
  const chosen = `The ${salient.length} of ${count(hit.frames.length, "frame")} that ${isOne ? "fits" : "fit"}`;
  const best = hit.frames.length === 1 ? "The only stored frame of this moment" : `${chosen} the description best`;
  if (!isMatched(hit)) return `${best}.`;
  const scores = isOne ? "its match score" : "their match scores";
  return `${best}, with ${scores}: above zero, the frame probably shows what you described; below, probably not.`;
}

/** The sum: one row per term, then the score. The rounded figures add up. */
function buildSum(hit, explanation) {
  const terms = [];
  if (explanation.match_score !== null) {
    const frames = explanation.frames.length;
    const details = [frames > 1 ? `mean of ${count(frames, "frame")}` : ""];
    const share = Math.round(100 * (explanation.similarity_share ?? 0));
    if (share) details.push(`${share} % by the similarity`);
    terms.push(["match", "Match", details.filter(Boolean).join(", "), explanation.match_score]);
  }
  if (explanation.tail_offset) terms.push(["offset", "Offset", "not re-ranked", explanation.tail_offset]);
  const weight = explanation.ensemble_lambda;
  const cosine = explanation.similarity.toFixed(4).replace("-", "−");
  terms.push(["similarity", "Similarity", weight === 1 ? "" : `${cosine} × ${weight}`, explanation.similarity_term]);
  if (explanation.hubness_term !== null) {
    const factor = Number((weight * explanation.hubness_weight).toPrecision(6));
    const detail = `${explanation.hubness.toFixed(4).replace("-", "−")} × ${factor}`;
    terms.push(["hubness", "Hubness", detail, explanation.hubness_term]);
  }
  if (explanation.text_term) terms.push(["text", "Text", "what is said, and the name", explanation.text_term]);
  const decimals = decimalsThatAddUp(
    terms.map((term) => term[3]),
    hit.score,
  );
  const rows = terms.map(([term, name, detail, value]) =>
    element(
      "tr",
      { "data-term": term },
      element("th", { scope: "row" }, name, detail && element("span", { class: "sum-detail", text: detail })),
      element("td", { text: terms.length > 1 ? signed(value, decimals) : score(value, decimals) }),
    ),
  );
  const total = element(
    "tr",
    { class: "sum-total", "data-term": "score" },
    element("th", { scope: "row", text: "Score" }),
    element("td", { text: score(hit.score, decimals) }),
  );
  return element("table", { class: "sum" }, element("tbody", {}, ...rows, ...(terms.length > 1 ? [total] : [])));
}

/** What the level rests on; null if the server gives none. */
function describeLevel(hit) {
  const word = levelWord(hit);
  if (word === null) return null;
  if (typeof hit.probability !== "number") return `${word}.`;
  const share = Math.round(100 * hit.probability);
  return `${word}: of 100 moments that score like this one, about ${share} show what was described.`;
}

/** Every frame with its numbers. */
function buildNumbers(hit) {
  const rows = hit.frames.map((frame) =>
    element(
      "tr",
      { "data-frame-id": frame.frame_id, "data-salient": frame.salient },
      element("th", { scope: "row", text: timeOf(hit, frame) }),
      element("td", { text: score(frame.relevance) }),
      element("td", { text: frame.match_score === null ? "" : signed(frame.match_score) }),
    ),
  );
  const names = ["Time", "Relevance", "Match"].map((name) => element("th", { scope: "col", text: name }));
  const head = element("thead", {}, element("tr", {}, ...names));
  const table = element("table", { class: "numbers" }, head, element("tbody", {}, ...rows));
  return element("details", {}, element("summary", { text: `All ${count(hit.frames.length, "frame")}` }), table);
}

function describeRank(hit, place, explanation) {
  if (!hit.reranked) {
    const less = explanation.hubness_term === null ? "" : ", less its hubness";
    return `Its rank depends only on the similarity of the description and the whole moment${less}.`;
  }
  const before = `Before re-ranking, its segment ranks ${ordinal(explanation.first_stage_rank)} in the library.`;
  if (!isMatched(hit)) return `${before} It was not among the candidates for re-ranking.`;
  return place > 0 ? `${before} After re-ranking, the moment ranks ${ordinal(place)}.` : before;
}

export class Why {
  #dialog = byId("why");
  #play;

  /** `play(hit, frame)` is called for the chosen frame, after the dialog has closed. */
  constructor({ play }) {
    this.#play = play;
    byId("why-close").addEventListener("click", () => this.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.close();
    });
  }

  get isOpen() {
    return this.#dialog.open;
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  /** Explains a hit with the rank `place`, from 1; `scale` is that of the bars in the grid. */
  open(hit, place, scale) {
    byId("why-name").textContent = nameOf(hit);
    byId("why-span").textContent = clockSpan(hit.start_seconds, hit.end_seconds);
    byId("why-body").replaceChildren(...this.#build(hit, place, scale));
    byId("why-body").scrollTop = 0;
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #build(hit, place, scale) {
    const parts = [];
    const play = (frame) => {
      this.close();
      this.#play(hit, frame);
    };
    const salient = hit.frames.filter((frame) => frame.salient);
    if (salient.length > 0) {
      const proofs = salient.map((frame) => buildFrame(hit, frame, scale, play));
      parts.push(
        element("ol", { class: "proofs", role: "list", "aria-label": "Salient frames", "data-many": salient.length > 4 }, ...proofs),
        element("p", { class: "sheet-words", text: describeFrames(hit, salient) }),
      );
    }
    const isRated = hit.frames.some((frame) => frame.relevance !== null);
    if (isRated && hit.frames.length > salient.length) parts.push(buildNumbers(hit));
    const level = describeLevel(hit);
    if (level) parts.push(element("h3", { text: "Level" }), element("p", { class: "sheet-words", text: level }));
    const { explanation } = hit;
    if (explanation) {
      parts.push(
        element("h3", { text: "Score" }),
        buildSum(hit, explanation),
        element("h3", { text: "Rank" }),
        element("p", { class: "sheet-words", text: describeRank(hit, place, explanation) }),
      );
    }
    const note = skippedNote(hit.skipped);
    if (note) parts.push(element("p", { class: "sheet-words" }, ...withCode(note.text)));
    if (explanation) parts.push(element("p", { class: "sheet-formula", text: explanation.formula }));
    return parts;
  }
}
