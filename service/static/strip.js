// The frames of a moment in time order: in a card as bars that show how well each fits the query, and in the player
// as pictures above such bars. Salient frames have yellow bars.

import { frameAddress } from "./api.js";
import { element, hasModifier, rove } from "./dom.js";
import { clock, fineClock } from "./format.js";
import { bestFrame } from "./ranking.js";

/**
 * Maps relevance to 0…1, on one scale for all hits of an answer, so that strips can be compared. It is null where
 * the library's model says nothing of single frames: their bars are short.
 */
export function relevanceScale(hits) {
  let low = Infinity;
  let high = -Infinity;
  for (const hit of hits) {
    for (const { relevance } of hit.frames) {
      if (relevance === null) continue;
      low = Math.min(low, relevance);
      high = Math.max(high, relevance);
    }
  }
  const range = high - low;
  // Other moments of the video, which the player shows, may lie outside.
  return (relevance) => {
    if (relevance === null) return 0;
    return range > 1e-9 ? Math.min(1, Math.max(0, (relevance - low) / range)) : 1;
  };
}

/** A frame's time, with tenths of a second if the frames of the hit are less than a second apart. */
export function timeOf(hit, frame) {
  const close = (hit.end_seconds - hit.start_seconds) / hit.frames.length < 1;
  return (close ? fineClock : clock)(frame.pts_seconds);
}

function buildCell(hit, frame, choose) {
  const isBest = frame === bestFrame(hit.frames);
  const place = `${timeOf(hit, frame)}${frame.salient ? ", salient" : ""}`;
  return element(
    "button",
    {
      class: "cell",
      type: "button",
      tabindex: -1,
      "aria-label": `Play from ${place}${isBest ? ", the best frame" : ""}`,
      title: place,
      "data-frame-id": frame.frame_id,
      "data-salient": frame.salient,
      "data-best": isBest,
      onclick: () => choose(frame),
    },
    element("span", { class: "cell-bar" }, element("span")),
  );
}

function buildList(hit, cells, kind) {
  const strip = element("ol", { class: `strip ${kind}`, role: "list", "aria-label": "Frames" });
  strip.append(...cells.map((cell, index) => element("li", { "data-salient": hit.frames[index].salient }, cell)));
  return strip;
}

/**
 * The bars alone. `choose` is called with the frame that was clicked, `preview` with the one pointed at, or null. The
 * picture of a bar is loaded when it is pointed at or chosen, so that it is there where it is shown large.
 */
export function buildBars(hit, { choose, preview }) {
  const cells = hit.frames.map((frame) => {
    const picture = element("img", { alt: "", hidden: true });
    const load = () => {
      const address = frameAddress(frame.frame_id, hit.snapshot);
      if (picture.getAttribute("src") !== address) picture.src = address;
    };
    const point = () => {
      load();
      preview(frame);
    };
    const cell = buildCell(hit, frame, (chosen) => {
      load();
      choose(chosen);
    });
    cell.append(picture);
    cell.addEventListener("pointerenter", (event) => event.pointerType === "touch" || point());
    cell.addEventListener("focus", point);
    return cell;
  });
  const strip = buildList(hit, cells, "bars");
  strip.addEventListener("pointerleave", () => preview(null));
  strip.addEventListener("focusout", () => preview(null));
  return strip;
}

/** Pictures, bars and times, with a tab stop; the arrow keys lead from frame to frame. */
export function buildStrip(hit, { choose }) {
  const cells = hit.frames.map((frame) => {
    const cell = buildCell(hit, frame, choose);
    const address = frameAddress(frame.frame_id, hit.snapshot);
    cell.prepend(element("img", { src: address, alt: "", loading: "lazy", decoding: "async" }));
    cell.append(element("span", { class: "cell-time", text: timeOf(hit, frame) }));
    return cell;
  });
  rove(cells, cells[hit.frames.indexOf(bestFrame(hit.frames))]);
  const strip = buildList(hit, cells, "pictures");
  strip.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || hasModifier(event)) return;
    event.preventDefault();
    const index = cells.indexOf(event.target.closest(".cell"));
    const next = cells[Math.min(cells.length - 1, Math.max(0, index + step))];
    rove(cells, next);
    next.focus();
  });
  return strip;
}

/** Draws the bars of a strip of the same hit. */
export function drawBars(strip, hit, scale) {
  strip.querySelectorAll(".cell").forEach((cell, index) => {
    cell.style.setProperty("--relevance", scale(hit.frames[index].relevance).toFixed(3));
  });
}
