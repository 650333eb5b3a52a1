// A video, or a moment of one, as a picture with its name, where nothing was searched for.

import { frameAddress, posterAddress } from "./api.js";
import { addressOf } from "./asked.js";
import { element, hasModifier, rove } from "./dom.js";
import { pictureByKey } from "./arrows.js";
import { nameOf } from "./card.js";
import { clock, clockSpan, day } from "./format.js";


function buildPicture(address) {
  const image = element("img", { alt: "", loading: "lazy", decoding: "async", src: address });
  image.addEventListener("error", () => image.parentElement.setAttribute("data-missing", "No picture"));
  return image;
}

function buildTile({ name, path, label, picture, chip, facts, tags, like }, play) {
  const shot = play
    ? element(
        "button",
        { class: "tile-shot", type: "button", tabindex: -1, "aria-label": label, onclick: (event) => play(event) },
        buildPicture(picture),
        element("span", { class: "shot-chip" }, element("span", { class: "shot-time", text: chip })),
      )
    : element("div", { class: "tile-shot", "data-missing": "Not indexed" });
  const similar = like && element("a", { class: "similar", "data-page": true, href: like, text: "Similar" });
  if (similar) similar.setAttribute("aria-label", `More like ${name}`);
  return element(
    "li",
    {},
    shot,
    element("h3", { class: "tile-name", dir: "auto", title: path, text: name }),
    element("p", { class: "tile-facts" }, element("span", { text: facts, dir: "auto" }), similar || ""),
    tags.length ? buildTags(tags) : "",
  );
}

/** Tags, each a link to the videos that have it. */
export function buildTags(tags) {
  const links = tags.map((tag) =>
    element("a", { class: "tag", "data-page": true, dir: "auto", href: addressOf({ tags: [tag] }), text: tag }),
  );
  return element("p", { class: "tags", "aria-label": "Tags" }, ...links);
}

/** A video of a list. `play(videoId, seconds)` plays it; one that was not indexed says why. */
export function buildVideo(video, snapshot, play) {
  const isThere = video.num_segments > 0;
  const name = nameOf(video);
  const dates = video.captured_at ? day(video.captured_at) : "";
  const why = [video.reason, video.missing ? "The file is missing." : ""].filter(Boolean).join(" ");
  return buildTile(
    {
      name,
      path: video.path,
      label: `Play ${name}, ${clock(video.duration_seconds)}`,
      picture: posterAddress(video.video_id, snapshot),
      chip: clock(video.duration_seconds),
      facts: why || dates,
      tags: video.tags,
      like: isThere && addressOf({ like: video.video_id }),
    },
    isThere && (() => play(video.video_id, 0)),
  );
}

/** A moment that was drawn at random. */
export function buildMoment(moment, snapshot, play) {
  const span = clockSpan(moment.start_seconds, moment.end_seconds);
  const name = nameOf(moment);
  return buildTile(
    {
      name,
      path: moment.path,
      label: `Play ${name} from ${clock(moment.pts_seconds)}`,
      picture: frameAddress(moment.frame_id, snapshot),
      chip: clock(moment.pts_seconds),
      facts: span,
      tags: [],
      like: addressOf({ frame: moment.frame_id }),
    },
    () => play(moment.video_id, moment.pts_seconds),
  );
}

/** Lets the arrow keys move between the pictures of a list, which has one tab stop. */
export function walkable(list) {
  const shots = () => [...list.querySelectorAll("button.tile-shot")];
  list.addEventListener("focusin", (event) => {
    const shot = event.target.closest("li")?.querySelector("button.tile-shot");
    if (shot) rove(shots(), shot);
  });
  list.addEventListener("keydown", (event) => {
    const shot = event.target.closest("li")?.querySelector("button.tile-shot");
    if (hasModifier(event) || !shot) return;
    const next = pictureByKey(event.key, shots(), shot);
    if (next === null) return;
    event.preventDefault();
    next?.focus();
  });
  return {
    /** Shows these items in place of those before; the first is the tab stop. */
    show(items) {
      list.replaceChildren(...items);
      rove(shots(), shots()[0]);
    },
    add(items) {
      list.append(...items);
      rove(shots(), shots().find((shot) => shot === document.activeElement) ?? shots()[0]);
    },
    focus: (index) => list.children[index]?.querySelector("button, a")?.focus(),
  };
}
