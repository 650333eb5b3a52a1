// Joins the player with the results and the address: what is played, and the place that is linked.

import { fetchVideo, searchVideo } from "./api.js";
import { byId } from "./dom.js";
import { PlaceHistory, placeIn } from "./place.js";
import { Player, startOf } from "./player.js";
import { hitsOf } from "./ranking.js";
import { holds } from "./results.js";
import { relevanceScale } from "./strip.js";

// Marks on the timeline of one video.
const MOST_MOMENTS = 50;

/** How far a time is from a hit, in seconds. */
const distance = (hit, seconds) =>
  holds(hit, seconds) ? 0 : Math.min(Math.abs(hit.start_seconds - seconds), Math.abs(hit.end_seconds - seconds));

/** The moment that holds a time or is nearest to it; undefined if there is none. */
const nearest = (moments, seconds) =>
  moments.reduce((best, hit) => (distance(hit, seconds) < distance(best, seconds) ? hit : best), moments[0]);

export class Playing {
  #grid;
  #question;
  #player;
  #history = new PlaceHistory();
  #lookup = null;
  // What had the focus when a video was played that is no hit.
  #opener = null;
  // The moments that were found with a hit that is no result.
  #momentsOf = new WeakMap();

  /**
   * `question()` gives `{question, options}` of the search that is shown, or a null question if none is; `explain(hit)`
   * opens an explanation; `leave()` is called when the player closes and the hit is not among the results. `tools` are
   * told which moment is shown.
   */
  constructor(grid, { question, explain, leave, tools }) {
    this.#grid = grid;
    this.#question = question;
    this.#player = new Player({
      closed: (hit, isByPage) => {
        if (!isByPage) this.#history.leave();
        const opener = this.#opener;
        this.#opener = null;
        if (!hit || grid.focusHit(hit)) return;
        if (opener?.isConnected) opener.focus();
        else leave();
      },
      moved: (hit, seconds) => this.#history.move({ video: hit.video_id, seconds }),
      explain,
      findMoments: (hit, signal) => this.#findMoments(hit, signal),
      tools,
    });
  }

  get isOpen() {
    return this.#player.isOpen;
  }

  /** Plays a hit from a frame, or from its best one if `frame` is null. */
  play(hit, frame) {
    const seconds = frame?.pts_seconds ?? startOf(hit);
    if (this.#player.isOpen && this.#player.videoId === hit.video_id) {
      this.#player.go(hit, seconds);
      return;
    }
    this.#player.open(hit, this.#grid.relevanceScale, seconds);
    this.#history.enter({ video: hit.video_id, seconds });
  }

  /** Plays a video that is no hit from a time on. */
  playVideo(videoId, seconds) {
    this.#opener = document.activeElement;
    this.#history.enter({ video: videoId, seconds });
    this.showPlace();
  }

  /** Closes the player, because the page shows something else. */
  close() {
    this.#lookup?.abort();
    byId("place-problem").hidden = true;
    this.#player.close();
  }

  /** Shows the new title and tags of a video, if it is the one that is played. */
  rename(video) {
    this.#player.rename(video);
  }

  /** Whether a move in the history only ends what closing the player began. */
  settle() {
    return this.#history.settle();
  }

  /** Opens the player at the place in the address, or closes it if there is none. */
  async showPlace() {
    this.#lookup?.abort();
    const place = placeIn(location.search);
    if (!place) {
      this.#player.close();
      return;
    }
    this.#lookup = new AbortController();
    const { signal } = this.#lookup;
    try {
      const known = this.#grid.hitAt(place.video, place.seconds);
      const moments = known ? [] : await this.#momentsIn(place.video, signal);
      if (signal.aborted) return;
      const hit = known ?? nearest(moments, place.seconds);
      const scale = this.#grid.relevanceScale ?? relevanceScale(moments);
      if (hit && !known) this.#momentsOf.set(hit, moments);
      if (hit) this.#player.open(hit, scale, place.seconds);
      else this.#showProblem("Nothing in the video of this link can be searched.");
    } catch (problem) {
      if (signal.aborted) return;
      const isGone = problem.status === 404;
      this.#showProblem(isGone ? "The video of this link is no longer in the library." : problem.message);
    }
  }

  /** The moments of a video that fit the search; without a search, those that are most like the whole video. */
  async #momentsIn(videoId, signal) {
    const { question, options } = this.#question();
    const asked = question ?? { query: { video_id: videoId, include_example: true } };
    return hitsOf(await searchVideo(videoId, asked, { ...options, topK: MOST_MOMENTS }, signal));
  }

  /** The moments of a hit's video, and what is known of the video; null for what cannot be found. */
  async #findMoments(hit, signal) {
    const known = this.#momentsOf.get(hit);
    const answers = [known ?? this.#momentsIn(hit.video_id, signal), fetchVideo(hit.video_id, signal)];
    const [moments, video] = await Promise.allSettled(answers);
    return { moments: moments.value ?? null, video: video.value ?? null };
  }

  #showProblem(text) {
    this.#history.forget();
    byId("place-problem").hidden = false;
    byId("place-problem").firstElementChild.textContent = text;
  }
}
