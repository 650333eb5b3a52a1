// The strip: a moment's frames in time order, each above a bar that shows its relevance to the query. Salient
// frames are larger and outlined, with their match scores below, if there are any.

import { frameAddress } from "./api.js";
import { element, hasModifier, rove } from "./dom.js";
import { clock, fineClock, score, signed } from "./format.js";
import { bestFrame, isMatched } from "./ranking.js";

/** Maps relevance to 0…1, on one scale for all hits of an answer, so that strips can be compared. */
export function relevanceScale(hits) {
  let low = Infinity;
  let high = -Infinity;
  for (const hit of hits) {
    for (const frame of hit.frames) {
      low = Math.min(low, frame.relevance);
      high = Math.max(high, frame.relevance);
    }
  }
  const range = high - low;
  return (relevance) => (range > 1e-9 ? (relevance - low) / range : 1);
}

/** A frame's time, with tenths of a second if the frames of the hit are less than a second apart. */
export function timeOf(hit, frame) {
  const close = (hit.end_seconds - hit.start_seconds) / hit.frames.length < 1;
  return (close ? fineClock : clock)(frame.pts_seconds);
}

const hasMatch = (frame) => frame.match_score !== null && frame.match_score !== undefined;

/** A frame's relevance, and its match score if there is one, as text. */
export const termsOf = (frame) =>
  `relevance ${score(frame.relevance)}${hasMatch(frame) ? `, match ${signed(frame.match_score)}` : ""}`;

function buildCell(hit, frame, isBest, { choose, times }) {
  const time = timeOf(hit, frame);
  const kind = frame.salient ? ", salient" : "";
  const cell = element(
    "button",
    {
      class: "cell",
      type: "button",
      tabindex: -1,
      "aria-label": `Play from ${time}${kind}, ${termsOf(frame)}${isBest ? ", the best frame" : ""}`,
      title: `${time}${kind}, ${termsOf(frame)}`,
      "data-frame-id": frame.frame_id,
      "data-salient": frame.salient,
      "data-best": isBest,
      onclick: () => choose(frame),
    },
    element("img", { src: frameAddress(frame.frame_id, hit.snapshot), alt: "", loading: "lazy", decoding: "async" }),
    element("span", { class: "cell-bar" }, element("span")),
  );
  if (times) cell.append(element("span", { class: "cell-time", text: time }));
  if (isMatched(hit)) {
    const match = hasMatch(frame) ? signed(frame.match_score, 1) : "";
    cell.append(element("span", { class: "cell-match", "aria-hidden": "true", text: match }));
  }
  return cell;
}

/** A list of frame buttons. `choose` and `preview` are called with a frame; `times` shows the times below. */
export function buildStrip(hit, { choose, preview = null, times = false, tabStops = false }) {
  const best = bestFrame(hit.frames);
  const cells = hit.frames.map((frame) => {
    const cell = buildCell(hit, frame, frame === best, { choose, times });
    if (preview) {
      cell.addEventListener("pointerenter", () => preview(frame));
      cell.addEventListener("focus", () => preview(frame));
    }
    return cell;
  });
  const strip = element("ol", { class: "strip", role: "list", "aria-label": "Frames", "data-matched": isMatched(hit) });
  strip.append(...cells.map((cell, index) => element("li", { "data-salient": hit.frames[index].salient }, cell)));
  if (preview) {
    strip.addEventListener("pointerleave", () => preview(null));
    strip.addEventListener("focusout", () => preview(null));
  }
  if (tabStops) {
    rove(cells, cells[hit.frames.indexOf(best)]);
    strip.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || hasModifier(event)) return;
      event.preventDefault();
      const index = cells.indexOf(event.target.closest(".cell"));
      const next = cells[Math.min(cells.length - 1, Math.max(0, index + step))];
      rove(cells, next);
      next.focus();
    });
  }
  return strip;
}

/** Draws the bars of a strip made by `buildStrip` for the same hit. */
export function drawBars(strip, hit, scale) {
  strip.querySelectorAll(".cell").forEach((cell, index) => {
    cell.style.setProperty("--relevance", scale(hit.frames[index].relevance).toFixed(3));
  });
}
