// Steps through the single frames of a video, by the times of the frames that the browser shows.

// The usual length of a frame, until it is known.
const USUAL_SECONDS = 1 / 25;
// Into a frame, or before one: times are rounded, and no frame is so short.
const INTO_FRAME_SECONDS = 0.001;
// A frame that comes after about the usual length follows at once: none lies between.
const LIKE_USUAL = 0.1;
// A browser that shows the same frame again need not say so.
const SAME_FRAME_MS = 150;
// A frame may stay for long; further than this is not looked.
const MOST_SECONDS = 30;

export class FrameStepper {
  #video;
  #isBusy = false;
  // When the frame that is shown appears, in the player's time; null: not known.
  #shown = null;

  #makeWhole;

  /**
   * `makeWhole(seconds)` loads the frame whole that appears at a time, if only its end is there, and resolves to whether
   * it had to.
   */
  constructor(video, makeWhole) {
    this.#video = video;
    this.#makeWhole = makeWhole;
    this.#follow();
  }

  #follow() {
    if (!this.#isExact) return;
    this.#video.requestVideoFrameCallback((now, frame) => {
      this.#shown = frame.mediaTime;
      this.#follow();
    });
  }

  get #isExact() {
    return "requestVideoFrameCallback" in HTMLVideoElement.prototype;
  }

  /** Shows the next frame (1) or the one before (−1) of a video with so many frames a second; it stops there. */
  async step(direction, fps) {
    const video = this.#video;
    video.pause();
    if (this.#isBusy || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    this.#isBusy = true;
    try {
      const usual = fps > 0 ? 1 / fps : USUAL_SECONDS;
      if (!this.#isExact || this.#shown === null) await this.#show(video.currentTime + direction * usual);
      else if (direction < 0) await this.#showPrevious(this.#shown);
      else await this.#showNext(this.#shown, usual);
    } finally {
      this.#isBusy = false;
    }
  }

  async #showPrevious(from) {
    const own = (await this.#makeWhole(from)) ? await this.#show(from + INTO_FRAME_SECONDS) : from;
    await this.#show(own - INTO_FRAME_SECONDS);
  }

  async #showNext(from, usual) {
    let ahead = 1.02 * usual;
    let next = await this.#show(from + ahead);
    while (next <= from && ahead < MOST_SECONDS && from + ahead < this.#video.duration) {
      ahead = ahead * 1.5;
      next = await this.#show(from + ahead);
    }
    if (next <= from || Math.abs(next - from - usual) < LIKE_USUAL * usual) return;
    // Frames may lie between: go back as long as there is one.
    for (;;) {
      const before = await this.#show(next - INTO_FRAME_SECONDS);
      if (before <= from) break;
      next = before;
    }
    await this.#show(next + INTO_FRAME_SECONDS);
  }

  /** Goes to a time. Resolves to when the frame appears that is shown there. */
  async #show(seconds) {
    const video = this.#video;
    const sought = new Promise((resolve) => video.addEventListener("seeked", resolve, { once: true }));
    const painted = this.#isExact
      ? new Promise((resolve) => video.requestVideoFrameCallback((now, frame) => resolve(frame.mediaTime)))
      : sought;
    video.currentTime = Math.max(0, Math.min(seconds, video.duration || seconds));
    await sought;
    const late = new Promise((resolve) => setTimeout(resolve, SAME_FRAME_MS, this.#shown));
    return Promise.race([painted, late]);
  }
}
