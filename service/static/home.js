// What is there when nothing is asked: videos and moments as pictures, folders, failures, examples, past searches.

import { drawMoments, fetchExamples, fetchFacets, fetchFolders, listVideos } from "./api.js";
import { addressOf } from "./asked.js";
import { byId, element } from "./dom.js";
import { buildFolder } from "./folders.js";
import { count } from "./format.js";
import { forgetSearches, recentSearches } from "./recent.js";
import { buildMoment, buildVideo, walkable } from "./tile.js";

const MOST_PICTURES = 12;
const MOST_SEARCHES = 8;
const FOUND = { op: "in", field: "verdict", values: ["ok", "partial"] };
const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class Home {
  #videos = walkable(byId("home-videos-grid"));
  #moments = walkable(byId("home-moments-grid"));
  #play;
  // Back leads to the same moments.
  #seed = newSeed();
  #signal = null;

  /** `play(videoId, seconds)` plays a video. */
  constructor({ play }) {
    this.#play = play;
    byId("home-moments-others").addEventListener("click", () => {
      this.#seed = newSeed();
      this.#showMoments().catch(() => {});
    });
    byId("home-searches-clear").addEventListener("click", () => {
      forgetSearches();
      this.#showSearches();
      byId("main").focus({ preventScroll: true });
    });
  }

  /** Shows a library; parts that cannot be had are left out. */
  async show(library, signal) {
    this.#signal = signal;
    this.#showSearches();
    const parts = [];
    if (library.num_videos > 0) {
      parts.push(this.#showVideos(), this.#showMoments(), this.#showFolders(), this.#showExamples());
    } else {
      this.clear();
    }
    await Promise.allSettled([...parts, this.#showFailures()]);
  }

  /** Shows nothing of a library. */
  clear() {
    for (const name of ["videos", "moments", "folders", "failures"]) byId(`home-${name}`).hidden = true;
    byId("examples").replaceChildren();
  }

  /** Shows again what the titles and tags of videos are part of. */
  async showAgain() {
    await Promise.allSettled([this.#showVideos(), this.#showMoments(), this.#showExamples()]);
  }

  async #showVideos() {
    const wanted = { filter: FOUND, sort: "-indexed_at", limit: MOST_PICTURES };
    const { videos, snapshot } = await listVideos(wanted, this.#signal);
    this.#videos.show(videos.map((video) => buildVideo(video, snapshot, this.#play)));
    byId("home-videos").hidden = videos.length === 0;
  }

  async #showMoments() {
    const { moments, snapshot } = await drawMoments(MOST_PICTURES, this.#seed, this.#signal);
    this.#moments.show(moments.map((moment) => buildMoment(moment, snapshot, this.#play)));
    byId("home-moments").hidden = moments.length === 0;
  }

  async #showFolders() {
    const { folders } = await fetchFolders(null, this.#signal);
    byId("home-folders-list").replaceChildren(...folders.map(buildFolder));
    byId("home-folders").hidden = folders.length === 0;
  }

  async #showFailures() {
    const { failures } = await fetchFacets(this.#signal);
    const items = failures.map(({ verdict, reason, num_videos: number }) =>
      element(
        "li",
        {},
        element("a", { "data-page": true, href: addressOf({ verdict }), text: count(number, "file") }),
        element("span", { class: "failure-reason", dir: "auto", text: reason }),
      ),
    );
    byId("home-failures-list").replaceChildren(...items);
    byId("home-failures").hidden = items.length === 0;
  }

  async #showExamples() {
    const { examples } = await fetchExamples(this.#signal);
    const links = examples.map(({ text }) =>
      element("li", {}, element("a", { "data-page": true, dir: "auto", href: addressOf({ text }), text })),
    );
    byId("examples").replaceChildren(...links);
  }

  #showSearches() {
    const items = recentSearches()
      .slice(0, MOST_SEARCHES)
      .map(({ part, label }) => element("li", {}, element("a", { "data-page": true, dir: "auto", href: part, text: label })));
    byId("home-searches-list").replaceChildren(...items);
    byId("home-searches").hidden = items.length === 0;
  }
}
