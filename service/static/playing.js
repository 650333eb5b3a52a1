// Joins the player with the results and the address: what is played, and the place that is linked.

import { fetchVideo, searchVideo } from "./api.js";
import { byId } from "./dom.js";
import { PlaceHistory, placeIn } from "./place.js";
import { Player, startOf } from "./player.js";
import { hitsOf } from "./ranking.js";
import { holds } from "./results.js";

// Marks on the timeline of one video.
const MOST_MOMENTS = 50;

/** How far a time is from a hit, in seconds. */
const distance = (hit, seconds) =>
  holds(hit, seconds) ? 0 : Math.min(Math.abs(hit.start_seconds - seconds), Math.abs(hit.end_seconds - seconds));

export class Playing {
  #grid;
  #question;
  #player;
  #history = new PlaceHistory();
  #lookup = null;

  /**
   * `question()` gives `{text, options}` of the search that is shown; `explain(hit)` opens an explanation;
   * `leave()` is called when the player closes and the hit is not among the results.
   */
  constructor(grid, { question, explain, leave }) {
    this.#grid = grid;
    this.#question = question;
    this.#player = new Player({
      closed: (hit, isByPage) => {
        if (!isByPage) this.#history.leave();
        if (hit && !grid.focusHit(hit)) leave();
      },
      moved: (hit, seconds) => this.#history.move({ video: hit.video_id, seconds }),
      explain,
      findMoments: (hit, signal) => this.#findMoments(hit, signal),
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

  /** Closes the player, because the page shows something else. */
  close() {
    this.#lookup?.abort();
    this.#player.close();
  }

  /** Whether a move in the history only ends what closing the player began. */
  settle() {
    return this.#history.settle();
  }

  hideProblem() {
    byId("place-problem").hidden = true;
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
      const hit = this.#grid.hitAt(place.video, place.seconds) ?? (await this.#nearest(place, signal));
      if (signal.aborted) return;
      if (hit) this.#player.open(hit, this.#grid.relevanceScale, place.seconds);
      else this.#showProblem("Nothing in the video of this link can be searched.");
    } catch (problem) {
      if (signal.aborted) return;
      const isGone = problem.status === 404;
      this.#showProblem(isGone ? "The video of this link is no longer in the library." : problem.message);
    }
  }

  async #momentsIn(videoId, signal) {
    const { text, options } = this.#question();
    return hitsOf(await searchVideo(videoId, text, { ...options, topK: MOST_MOMENTS }, signal));
  }

  /** The moment of a video that holds a time or is nearest to it; undefined if the video has none. */
  async #nearest({ video, seconds }, signal) {
    const moments = await this.#momentsIn(video, signal);
    return moments.reduce((best, hit) => (distance(hit, seconds) < distance(best, seconds) ? hit : best), moments[0]);
  }

  /** The moments of a hit's video, and what is known of the video; null for what cannot be found. */
  async #findMoments(hit, signal) {
    const answers = [this.#momentsIn(hit.video_id, signal), fetchVideo(hit.video_id, signal)];
    const [moments, video] = await Promise.allSettled(answers);
    return { moments: moments.value ?? null, video: video.value ?? null };
  }

  #showProblem(text) {
    this.#history.forget();
    byId("place-problem").hidden = false;
    byId("place-problem").firstElementChild.textContent = text;
  }
}
