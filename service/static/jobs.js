// Adding a folder of the server, and the indexing runs: how far they are, and a button that ends them.

import { cancelJob, fetchJobs, jobEvents, startIndexJob } from "./api.js";
import { byId, element, fill, showWords, withCode } from "./dom.js";
import { count, footage } from "./format.js";

const ENDED = ["succeeded", "failed", "cancelled"];
const STAGES = { pictures: "Reading pictures", speech: "Hearing what is said", screen: "Reading what is written", shots: "Finding cuts" };

function wordsOf(job) {
  const { state, note, progress, summary } = job;
  if (job.is_cancelling && !ENDED.includes(state)) return "Saves what it has done, and ends.";
  if (state === "queued") return note ?? "Waits for its turn.";
  if (state === "interrupted") return note ?? "Starts again.";
  if (job.waits_for_library) return note ?? "Waits for another process that writes the library.";
  if (state === "running") {
    if (!progress) return "Looks for files.";
    const left = progress.seconds_left === null ? "" : `, about ${footage(progress.seconds_left)} left`;
    return `${STAGES[progress.stage] ?? progress.stage}: ${progress.done} of ${count(progress.total, "file")}${left}`;
  }
  if (state === "failed") return note ?? "Failed.";
  if (!summary) return state === "cancelled" ? "Cancelled." : "Done.";
  const failures = summary.failures ? `, ${count(summary.failures, "file")} not or not wholly indexed` : "";
  const files = count(summary.files, "file");
  return `${state === "cancelled" ? "Cancelled" : "Done"}: ${files}, ${summary.unchanged} unchanged${failures}.`;
}

/** A run as it is shown. */
class JobItem {
  #job;
  #words = element("p", { class: "job-words", role: "status" });
  #bar = element("progress", { "aria-label": "Progress", hidden: true });
  #cancel = element("button", { class: "quiet small", type: "button", text: "Cancel" });

  constructor(job, cancel) {
    const paths = job.paths.join(", ");
    this.#cancel.setAttribute("aria-label", `Cancel ${paths}`);
    this.#cancel.addEventListener("click", () => cancel(this));
    this.node = element(
      "li",
      { class: "job" },
      element("p", { class: "job-path", dir: "auto", text: paths }),
      this.#cancel,
      this.#bar,
      this.#words,
    );
    this.update(job);
  }

  get jobId() {
    return this.#job.job_id;
  }

  get hasEnded() {
    return ENDED.includes(this.#job.state);
  }

  /** Shows what has become different. */
  update(change) {
    this.#job = { ...this.#job, ...change };
    const { state, progress } = this.#job;
    this.node.dataset.state = state;
    showWords(this.#words, wordsOf(this.#job));
    this.#bar.hidden = state !== "running";
    if (progress?.total > 0) {
      this.#bar.max = progress.total;
      this.#bar.value = progress.done;
    } else this.#bar.removeAttribute("value");
    this.#cancel.hidden = this.hasEnded || Boolean(this.#job.is_cancelling);
  }
}

export class JobPanel {
  #list = byId("jobs");
  #path = byId("job-path");
  #problem = byId("job-problem");
  #items = new Map();
  #streams = new Map();
  #published;
  #timer = 0;

  /** `published()` is called when a run has published what it has done. */
  constructor({ published }) {
    this.#published = published;
    byId("job-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
  }

  /** Shows the panel where whoever looks may start runs; where the service refuses, it is hidden. */
  async show(isAllowed) {
    const panel = byId("home-jobs");
    if (!isAllowed) {
      panel.hidden = true;
      return;
    }
    try {
      await this.#refresh();
      panel.hidden = false;
    } catch {
      panel.hidden = true;
    }
  }

  async #refresh() {
    const { jobs } = await fetchJobs();
    const items = jobs.map((job) => {
      const item = this.#items.get(job.job_id) ?? new JobItem(job, (each) => this.#cancel(each));
      item.update(job);
      return item;
    });
    this.#items = new Map(items.map((item) => [item.jobId, item]));
    fill(this.#list, items.map((item) => item.node));
    // One stream only: a browser has six connections to a server. The next run to end stands last.
    const next = items.findLast((item) => !item.hasEnded);
    if (next) this.#follow(next);
  }

  #follow(item) {
    const { jobId } = item;
    if (this.#streams.has(jobId)) return;
    const stream = jobEvents(jobId);
    this.#streams.set(jobId, stream);
    const on = (name, act) => stream.addEventListener(name, (event) => act(JSON.parse(event.data)));
    on("progress", (progress) => item.update({ progress }));
    on("published", () => this.#publish());
    on("state", ({ state, note }) => {
      item.update({ state, note });
      if (!item.hasEnded) return;
      stream.close();
      this.#streams.delete(jobId);
      // The list has what the run did. A moment later the snapshot is served.
      this.#refresh().catch(() => {});
      this.#publish();
    });
    stream.addEventListener("error", () => {
      if (stream.readyState === EventSource.CLOSED) this.#streams.delete(jobId);
    });
  }

  /** Tells of what was published, once for events that come together, as when a stream begins. */
  #publish() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#published(), 200);
  }

  async #start() {
    const path = this.#path.value.trim();
    this.#problem.replaceChildren();
    if (!path) {
      this.#say("Name a folder of the server, such as /media/videos.");
      return;
    }
    try {
      await startIndexJob(path);
      this.#path.value = "";
      await this.#refresh();
    } catch (problem) {
      this.#say(problem.message);
    }
  }

  async #cancel(item) {
    try {
      item.update(await cancelJob(item.jobId));
      this.#path.focus();
    } catch (problem) {
      this.#say(problem.message);
    }
  }

  #say(text) {
    this.#problem.replaceChildren(...withCode(text));
    this.#path.focus();
  }
}
