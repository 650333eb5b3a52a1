// The strip: a segment's frames in time order, each over a bar that shows its relevance to the query.

import { frameAddress } from "./api.js";
import { element, hasModifier, rove } from "./dom.js";
import { clock, fineClock, score } from "./format.js";

/** The frame with the highest relevance; the earliest of equals. */
export function mostRelevant(frames) {
  return frames.reduce((best, frame) => (frame.relevance > best.relevance ? frame : best), frames[0]);
}

/** Maps relevance to 0…1, on one scale for all the hits of an answer, so that strips can be compared. */
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

/** A list of frame buttons. `choose` and `preview` are called with a frame; `times` writes the times below. */
export function buildStrip(hit, { choose, preview = null, times = false, tabStops = false }) {
  const best = mostRelevant(hit.frames);
  const close = (hit.end_seconds - hit.start_seconds) / hit.frames.length < 1;
  const time = (frame) => (close ? fineClock : clock)(frame.pts_seconds);
  const cells = hit.frames.map((frame) => {
    const label = `${time(frame)}, relevance ${score(frame.relevance)}`;
    const cell = element(
      "button",
      {
        class: "cell",
        type: "button",
        tabindex: -1,
        "aria-label": `Play from ${label}${frame === best ? ", the best frame" : ""}`,
        title: label,
        "data-frame-id": frame.frame_id,
        "data-best": frame === best,
        onclick: () => choose(frame),
      },
      element("img", { src: frameAddress(frame.frame_id, hit.snapshot), alt: "", loading: "lazy", decoding: "async" }),
      element("span", { class: "cell-bar" }, element("span")),
    );
    if (times) cell.append(element("span", { class: "cell-time", text: time(frame) }));
    if (preview) {
      cell.addEventListener("pointerenter", () => preview(frame));
      cell.addEventListener("focus", () => preview(frame));
    }
    return cell;
  });
  const strip = element("ol", { class: "strip", role: "list", "aria-label": "Frames" });
  strip.append(...cells.map((cell) => element("li", {}, cell)));
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
