// Calls the service's HTTP interface. Addresses are relative, so the page also works below a proxy's prefix.

const DEADLINE_MS = 30_000;

/** The event of the document when the service does not know who asks. */
export const NOT_LOGGED_IN = "reelfind:not-logged-in";

/**
 * An error whose message is for the reader. `kind` is the last part of the problem's type (`not-ready`, …), or
 * `unreachable` or `late` if there was no answer.
 */
export class ServiceProblem extends Error {
  constructor(kind, message, { status = 0, retryAfterSeconds = null } = {}) {
    super(message);
    this.name = "ServiceProblem";
    this.kind = kind;
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same request may succeed later. */
  get isTemporary() {
    return this.status === 0 || this.status === 503 || this.status === 429;
  }
}

// What the page calls the fields of a request.
const WORDS = {
  num_candidates: "Candidates (in Options)",
  num_salient_frames: "Salient frames (in Options)",
  top_k: "The number of results",
  deadline_ms: "The time limit",
};

/** A problem's text with the page's words for the fields at fault, which the problem lists. */
function inWords(text, errors) {
  const names = errors.map(({ pointer }) => String(pointer).replace("#/", "")).filter((name) => WORDS[name]);
  return names.reduce((words, name) => words.replaceAll(name, WORDS[name]), text);
}

/** The problem document (RFC 9457) of a failed response; its `detail` is written for people. */
export async function problemOf(response) {
  let body = {};
  try {
    body = (await response.json()) ?? {};
  } catch {
    // Not JSON: the answer is from a proxy, not from the service.
  }
  const text = [body.detail, body.title].find((value) => typeof value === "string" && value);
  const kind = String(body.type ?? "").split(":").pop();
  const retryAfter = Number(response.headers.get("Retry-After"));
  const message = text ? inWords(text, body.errors ?? []) : `The server answered with status ${response.status}.`;
  const retryAfterSeconds = Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : null;
  return new ServiceProblem(kind, message, { status: response.status, retryAfterSeconds });
}

async function fetchJson(address, { signal, ...options } = {}) {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let response;
  try {
    response = await fetch(address, { ...options, signal: signal ? AbortSignal.any([signal, deadline]) : deadline });
    if (response.ok) return response.status === 204 ? null : await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (deadline.aborted) {
      throw new ServiceProblem("late", `The server did not answer within ${DEADLINE_MS / 1000} seconds.`);
    }
    const message = navigator.onLine
      ? "Check that it is running (reelfind serve) and that the address is right."
      : "This device is offline.";
    throw new ServiceProblem("unreachable", message);
  }
  const problem = await problemOf(response);
  if (problem.kind === "not-logged-in") document.dispatchEvent(new CustomEvent(NOT_LOGGED_IN));
  throw problem;
}

export const fetchSession = () => fetchJson("v1/session");

/** Begins a session with a key: the browser keeps its cookie. */
export const logIn = (key) =>
  fetchJson("v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key }),
  });

export const logOut = () => fetchJson("v1/session", { method: "DELETE" });

export const fetchLibrary = (signal) => fetchJson("v1/library", { signal });

const ask = (address, text, { topK, rerank, numCandidates, numSalientFrames, deadlineMs = null }, signal) =>
  fetchJson(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({
      query: { text },
      top_k: topK,
      rerank,
      num_candidates: numCandidates,
      num_salient_frames: numSalientFrames,
      deadline_ms: deadlineMs,
      explain: true,
    }),
    signal,
  });

/** Runs a search. The server chooses numbers that are null. Hits come with the terms of their scores. */
export const search = (text, options, signal) => ask("v1/search", text, options, signal);

/** Finds the moments of one video, as a search does those of all. */
export const searchVideo = (videoId, text, options, signal) =>
  ask(`${videoAddress(videoId)}/moments`, text, options, signal);

const videoAddress = (videoId) => `v1/videos/${encodeURIComponent(videoId)}`;

export const fetchVideo = (videoId, signal) => fetchJson(videoAddress(videoId), { signal });

/** The address of a thumbnail. It names the snapshot that answered, so the browser may cache it for ever. */
export const frameAddress = (frameId, snapshot) =>
  `v1/frames/${encodeURIComponent(frameId)}.jpg?snapshot=${encodeURIComponent(snapshot)}`;
export const mediaAddress = (videoId) => `${videoAddress(videoId)}/media`;

export const streamAddress = (videoId, seconds) =>
  `${videoAddress(videoId)}/stream?start=${Number(Math.max(0, seconds).toFixed(3))}`;

/** The answer with a stream of a video from a time on. `viewer` names the player: its stream of before ends. */
export async function openStream(videoId, seconds, viewer, signal) {
  let response;
  try {
    response = await fetch(`${streamAddress(videoId, seconds)}&viewer=${viewer}`, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ServiceProblem("unreachable", "The server cannot be reached.");
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

/** Why the server does not deliver a media file, or null if it does. Asks for one byte of it. */
export async function mediaProblem(videoId) {
  try {
    const response = await fetch(mediaAddress(videoId), { headers: { Range: "bytes=0-0" } });
    return response.ok ? null : await problemOf(response);
  } catch {
    return new ServiceProblem("unreachable", "The server cannot be reached.");
  }
}
