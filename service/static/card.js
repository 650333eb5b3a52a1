// A moment as a card: its best frame, up to two more salient ones, a bar for each frame, its name, times and level.

import { frameAddress } from "./api.js";
import { addressOf } from "./asked.js";
import { element } from "./dom.js";
import { clock, clockSpan, fileName } from "./format.js";
import { buildLevel, buildMeter, levelWord } from "./level.js";
import { bestFrame, furtherFrames } from "./ranking.js";
import { buildBars, timeOf } from "./strip.js";

const MOST_STILLS = 2;

export const nameOf = (hit) => hit.title || fileName(hit.path);

function buildImage(frame, hit) {
  const image = element("img", { alt: "", loading: "lazy", decoding: "async", "data-frame-id": frame?.frame_id });
  image.addEventListener("error", () => image.parentElement.setAttribute("data-missing", "No thumbnail"));
  image.addEventListener("load", () => image.parentElement.removeAttribute("data-missing"));
  if (frame) image.src = frameAddress(frame.frame_id, hit.snapshot);
  return image;
}

/** The large picture, a button that plays the hit. `show(frame)` shows a frame on it; null: the best one. */
function buildShot(hit, open) {
  const best = bestFrame(hit.frames);
  const words = [nameOf(hit), clockSpan(hit.start_seconds, hit.end_seconds), levelWord(hit)];
  const image = buildImage(best, hit);
  image.classList.add("shot-image");
  const time = element("span", { class: "shot-time", text: best ? timeOf(hit, best) : "" });
  const shot = element(
    "button",
    {
      class: "shot",
      type: "button",
      tabindex: -1,
      "aria-label": `Play ${words.filter(Boolean).join(", ")}`,
      onclick: () => open(hit, null),
    },
    image,
    element("span", { class: "shot-chip" }, time),
  );
  const show = (frame) => {
    const shown = frame ?? best;
    if (!shown) return;
    const address = frameAddress(shown.frame_id, hit.snapshot);
    if (image.getAttribute("src") !== address) image.src = address;
    time.textContent = timeOf(hit, shown);
  };
  return { shot, show };
}

/** Another salient frame, a button that plays from there. */
function buildStill(hit, frame, open) {
  const time = timeOf(hit, frame);
  return element(
    "button",
    {
      class: "still",
      type: "button",
      tabindex: -1,
      "aria-label": `Play from ${time}, salient`,
      "data-frame-id": frame.frame_id,
      onclick: () => open(hit, frame),
    },
    buildImage(frame, hit),
    element("span", { class: "shot-chip" }, element("span", { class: "shot-time", text: time })),
  );
}

/** What a line of text is called, and where it is from. */
const TEXT_SOURCES = {
  subtitles: ["Said", "From subtitles"],
  heard: ["Heard", "Heard in the sound"],
  seen: ["Written", "Read in the picture"],
  name: ["Name", "File name or title"],
  user: ["Name", "Title and tags that were given to it"],
};

/** The line of text that fits best, with the words that match marked, and a button that plays it; null if none does. */
function buildQuote(hit, open) {
  const match = hit.text_matches?.find((each) => each.kind !== "name") ?? hit.text_matches?.[0];
  if (!match) return null;
  // Marks count code points, as Python does.
  const letters = Array.from(match.text);
  const parts = [];
  let end = 0;
  for (const [start, stop] of match.marks) {
    parts.push(letters.slice(end, start).join(""), element("mark", { text: letters.slice(start, stop).join("") }));
    end = stop;
  }
  parts.push(letters.slice(end).join(""));
  const [label, origin] = TEXT_SOURCES[match.source];
  const attributes = { class: "card-quote", dir: "auto", "data-kind": match.kind, title: origin };
  const quote = element("p", attributes, element("span", { class: "unseen", text: `${label}: ` }), ...parts);
  // A name has no time of its own.
  const play = match.kind === "name" ? "" : buildLinePlay(hit, match.start_seconds, open);
  return element("div", { class: "card-line" }, play, quote);
}

/** A button that plays a hit from the start of a line. */
function buildLinePlay(hit, seconds, open) {
  return element("button", {
    class: "line-play",
    type: "button",
    tabindex: -1,
    "aria-label": `Play the line from ${clock(seconds)}`,
    text: clock(seconds),
    onclick: () => open(hit, { pts_seconds: seconds }),
  });
}

/** Builds a card. `open(hit, frame | null)` plays the hit from a frame, or another `{pts_seconds}`, `explain(hit)` opens its explanation. */
export function buildCard(hit, { open, explain }) {
  const name = nameOf(hit);
  const { shot, show } = buildShot(hit, open);
  const stills = furtherFrames(hit.frames, MOST_STILLS).map((frame) => buildStill(hit, frame, open));
  const bars = buildBars(hit, { choose: (frame) => open(hit, frame), preview: show });
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
  const best = bestFrame(hit.frames);
  const similar = element("a", {
    class: "similar",
    tabindex: -1,
    "data-page": true,
    "aria-label": `More like this: ${name}`,
    title: "More like this",
    href: best ? addressOf({ frame: best.frame_id }) : addressOf({ like: hit.video_id }),
    text: "Similar",
  });
  const title = name === hit.path ? name : `${name}\n${hit.path}`;
  const card = element(
    "article",
    { class: "card" },
    element("div", { class: "film", "data-stills": stills.length }, shot, ...stills, bars),
    element("h3", { class: "card-name", dir: "auto", title, text: name }),
    element(
      "p",
      { class: "card-facts" },
      element("span", { class: "card-span", text: clockSpan(hit.start_seconds, hit.end_seconds) }),
      buildLevel(hit) ?? buildMeter(),
      why,
    ),
    buildQuote(hit, open) ?? "",
    similar,
  );
  // A click elsewhere on the card plays too, unless it ends a selection of text.
  card.addEventListener("click", (event) => {
    if (!event.target.closest("button, a") && getSelection().isCollapsed) open(hit, null);
  });
  return card;
}
