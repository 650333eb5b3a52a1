// Plays a stream that the server makes of a video which this browser cannot play (Media Source Extensions).
//
// The player's time is the video's own. Where it goes to a time that is not loaded, another stream begins there.

import { openStream, ServiceProblem } from "./api.js";

// So much is loaded ahead; below the second, a stream that was left is taken up again. Seconds.
const AHEAD_SECONDS = 30;
const SHORT_SECONDS = 10;
// What is played stays loaded for so long.
const BEHIND_SECONDS = 60;
// A time that a running stream reaches so soon is waited for.
const SOON_SECONDS = 4;
// A stream begins so long before the wanted time: its first frame appears when it begins, not at its own time.
const LEAD_SECONDS = 0.5;
const ROUNDING = 0.05;
// A stream that breaks off before it has begun is tried so often.
const MOST_TRIES = 3;
const EXACT = 0.0005;
const EVENTS = ["seeking", "timeupdate", "waiting"];

const happens = (target, type) => new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));
// As the server counts.
const inMilliseconds = (seconds) => Math.round(seconds * 1000) / 1000;
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export class Preview {
  #video;
  #videoId;
  #failed;
  #source = new MediaSource();
  #buffer = null;
  #address;
  // Another stream of this player ends the one before at the server.
  #viewer = crypto.getRandomValues(new Uint32Array(2)).join("-");
  // The stream that is read: where it began, how far it is, and how to end it; null: none is.
  #stream = null;
  // Where streams began whose first frame may have appeared before.
  #cuts = [];
  #check = () => this.#goOn();

  /**
   * Plays the video `videoId`, of a length in seconds, in the element `video`, from a time on. `failed(problem)` is
   * called with a ServiceProblem where the server makes no stream.
   */
  constructor(video, videoId, seconds, start, failed) {
    this.#video = video;
    this.#videoId = videoId;
    this.#failed = failed;
    this.#address = URL.createObjectURL(this.#source);
    video.src = this.#address;
    video.currentTime = start;
    for (const type of EVENTS) video.addEventListener(type, this.#check);
    happens(this.#source, "sourceopen").then(() => {
      URL.revokeObjectURL(this.#address);
      if (this.#source.readyState !== "open") return;
      if (seconds > 0) this.#source.duration = seconds;
      this.#beginBefore(start);
    });
  }

  /**
   * Loads the beginning of the frame that appears at a time, if a stream began in the middle of it. Resolves to whether
   * it did: the frame then appears earlier.
   */
  async makeWhole(seconds) {
    if (!this.#cuts.some((cut) => Math.abs(cut - seconds) < EXACT)) return false;
    this.#stream?.controller.abort();
    this.#stream = null;
    await this.#settled();
    // What is loaded from there on would hide how far the new stream is.
    this.#buffer.remove(seconds, Infinity);
    await this.#settled();
    this.#beginBefore(seconds);
    const stream = this.#stream;
    while (stream === this.#stream && stream.reached < seconds + LEAD_SECONDS) await pause(0.02);
    return true;
  }

  close() {
    URL.revokeObjectURL(this.#address);
    for (const type of EVENTS) this.#video.removeEventListener(type, this.#check);
    this.#stream?.controller.abort();
    this.#stream = null;
  }

  /** Begins a stream where the player needs what is neither loaded nor about to be. */
  #goOn() {
    const now = this.#video.currentTime;
    const end = this.#loadedFrom(now);
    if (!this.#buffer) return;
    if (end !== null && end >= this.#source.duration - ROUNDING) {
      // All is loaded from here on. Appending more, after going back, has opened the source again.
      if (!this.#stream && this.#source.readyState === "open") this.#source.endOfStream();
      return;
    }
    if (end !== null && end - now > (this.#stream ? 0 : SHORT_SECONDS)) return;
    const { start, reached } = this.#stream ?? {};
    if (this.#stream && now >= start - EXACT && now <= reached + SOON_SECONDS) return;
    if (end === null) this.#beginBefore(now);
    else this.#begin(inMilliseconds(end));
  }

  #beginBefore(seconds) {
    const start = inMilliseconds(Math.max(0, seconds - LEAD_SECONDS));
    if (start > 0) this.#cuts.push(start);
    this.#begin(start);
  }

  /** The end of what is loaded around a time; null if nothing is. */
  #loadedFrom(seconds) {
    const { buffered } = this.#video;
    for (let index = 0; index < buffered.length; index += 1) {
      if (buffered.start(index) <= seconds + EXACT && seconds < buffered.end(index)) return buffered.end(index);
    }
    return null;
  }

  async #begin(start, triesLeft = MOST_TRIES) {
    this.#stream?.controller.abort();
    const stream = { start, reached: start, controller: new AbortController() };
    this.#stream = stream;
    const { signal } = stream.controller;
    try {
      const answer = await this.#ask(start, signal);
      await this.#prepare(answer.headers.get("Content-Type"), start, signal);
      await this.#read(answer.body.getReader(), stream);
      if (signal.aborted) return;
      // The length was that of the file, which may differ a little.
      if (this.#source.readyState === "open") this.#source.endOfStream();
      this.#stream = null;
    } catch (problem) {
      if (signal.aborted) return;
      this.#stream = null;
      if (problem instanceof ServiceProblem) this.#failed(problem);
      // A connection that the server closed as nobody read, or that broke, is taken up when it is needed.
      else if (stream.reached > start) this.#goOn();
      else if (triesLeft > 1) this.#begin(start, triesLeft - 1);
      else this.#failed(new ServiceProblem("broken", "The preview of this video breaks off."));
    }
  }

  /** The answer of the server, which may be busy for a while. */
  async #ask(start, signal) {
    for (;;) {
      try {
        return await openStream(this.#videoId, start, this.#viewer, signal);
      } catch (problem) {
        if (signal.aborted || problem.kind !== "encoders-busy") throw problem;
        await pause(problem.retryAfterSeconds ?? 2);
        if (signal.aborted) throw problem;
      }
    }
  }

  async #prepare(type, start, signal) {
    if (!this.#buffer) {
      this.#buffer = this.#source.addSourceBuffer(type);
    } else {
      await this.#settled();
      if (signal.aborted) return;
      // Forget the part of a fragment that came last.
      this.#buffer.abort();
    }
    this.#buffer.timestampOffset = start;
  }

  async #read(reader, stream) {
    const { signal } = stream.controller;
    for (;;) {
      while (!signal.aborted && stream.reached - this.#video.currentTime > AHEAD_SECONDS) await pause(0.5);
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      await this.#append(value, signal);
      const { buffered } = this.#buffer;
      for (let index = 0; index < buffered.length; index += 1) {
        const holds = buffered.start(index) <= stream.reached + ROUNDING;
        if (holds) stream.reached = Math.max(stream.reached, buffered.end(index));
      }
      this.#cuts = this.#cuts.filter((cut) => cut <= stream.start || cut >= stream.reached);
    }
  }

  async #append(bytes, signal) {
    for (;;) {
      await this.#settled();
      if (signal.aborted) return;
      try {
        this.#buffer.appendBuffer(bytes);
        await this.#settled();
        return;
      } catch (error) {
        if (error.name !== "QuotaExceededError") throw error;
        const old = this.#video.currentTime - BEHIND_SECONDS / 4;
        if (old > 0) this.#buffer.remove(0, old);
        else await pause(1);
      }
    }
  }

  async #settled() {
    while (this.#buffer.updating) await happens(this.#buffer, "updateend");
  }
}
