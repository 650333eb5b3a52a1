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

/** The answer of a request that succeeded; throws a ServiceProblem, or what aborted the request. */
async function fetchAnswer(address, read, { signal, ...options } = {}) {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let response;
  try {
    response = await fetch(address, { ...options, signal: signal ? AbortSignal.any([signal, deadline]) : deadline });
    if (response.ok) return response.status === 204 ? null : await read(response);
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

const fetchJson = (address, options) => fetchAnswer(address, (response) => response.json(), options);

const sendJson = (method, address, body, { headers = {}, signal } = {}) =>
  fetchJson(address, {
    method,
    headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
    body: JSON.stringify(body),
    signal,
  });

export const fetchSession = () => fetchJson("v1/session");

/** Begins a session with a key: the browser keeps its cookie. */
export const logIn = (key) => sendJson("POST", "v1/session", { key });

export const logOut = () => fetchJson("v1/session", { method: "DELETE" });

export const fetchLibrary = (signal) => fetchJson("v1/library", { signal });

/**
 * Runs a search. `question` is `{query, filter, sort, picture}`; the picture is sent with the request. The server
 * chooses numbers that are null. Hits come with the terms of their scores.
 */
function ask(address, question, options, signal) {
  const { topK, rerank, numCandidates, numSalientFrames, deadlineMs = null, pageToken = null } = options;
  const request = {
    query: question.query,
    top_k: topK,
    rerank,
    num_candidates: numCandidates,
    num_salient_frames: numSalientFrames,
    deadline_ms: deadlineMs,
    explain: true,
  };
  if (question.filter) request.filter = question.filter;
  if (question.sort) request.sort = question.sort;
  if (pageToken) request.page_token = pageToken;
  if (!question.picture) return sendJson("POST", address, request, { signal });
  const body = new FormData();
  body.append("image", question.picture, "picture");
  body.append("request", JSON.stringify(request));
  return fetchJson(address, { method: "POST", body, signal });
}

/** Finds moments of all videos that the filter leaves. */
export const search = (question, options, signal) => ask("v1/search", question, options, signal);

/** Finds the moments of one video, as a search does those of all. */
export const searchVideo = (videoId, { query, picture }, options, signal) =>
  ask(`${videoAddress(videoId)}/moments`, { query, picture }, options, signal);

const videoAddress = (videoId) => `v1/videos/${encodeURIComponent(videoId)}`;

export const fetchVideo = (videoId, signal) => fetchJson(videoAddress(videoId), { signal });

/** A video with the ETag that a change of it names. */
export const fetchVideoToEdit = (videoId) =>
  fetchAnswer(videoAddress(videoId), async (response) => ({
    video: await response.json(),
    etag: response.headers.get("ETag"),
  }), { cache: "no-store" });

/** Changes what users say of a video, if it is still as the ETag says; else the problem has the status 412. */
export const annotateVideo = (videoId, change, etag) =>
  sendJson("PATCH", videoAddress(videoId), change, { headers: { "If-Match": etag } });

/** Lists videos: `wanted` is the request that `POST /v1/videos/list` takes. */
export const listVideos = (wanted, signal) => sendJson("POST", "v1/videos/list", wanted, { signal });

/** The folders in a folder; null: in the deepest that all videos are in. */
export const fetchFolders = (parent, signal) =>
  fetchJson(parent === null ? "v1/folders" : `v1/folders?parent=${encodeURIComponent(parent)}`, { signal });

export const fetchJobs = (signal) => fetchJson("v1/jobs?limit=5", { signal });
export const startIndexJob = (path) => sendJson("POST", "v1/jobs/index", { paths: [path] });
export const cancelJob = (jobId) => fetchJson(`v1/jobs/${encodeURIComponent(jobId)}`, { method: "DELETE" });
export const jobEvents = (jobId) => new EventSource(`v1/jobs/${encodeURIComponent(jobId)}/events`);

export const fetchFacets = (signal) => fetchJson("v1/facets", { signal });
export const fetchTags = (signal) => fetchJson("v1/tags?limit=200", { signal });
export const fetchExamples = (signal) => fetchJson("v1/examples", { signal });
export const drawMoments = (limit, seed, signal) =>
  fetchJson(`v1/moments/random?limit=${limit}&seed=${seed}`, { signal });

const ofSnapshot = (snapshot) => (snapshot === undefined ? "" : `?snapshot=${encodeURIComponent(snapshot)}`);

/** The address of a thumbnail. If it names the snapshot that answered, the browser may cache it for ever. */
export const frameAddress = (frameId, snapshot) =>
  `v1/frames/${encodeURIComponent(frameId)}.jpg${ofSnapshot(snapshot)}`;
export const posterAddress = (videoId, snapshot) => `${videoAddress(videoId)}/poster.jpg${ofSnapshot(snapshot)}`;
export const mediaAddress = (videoId) => `${videoAddress(videoId)}/media`;

const decimals = (seconds) => Number(Math.max(0, seconds).toFixed(3));
export const clipAddress = (videoId, start, end) =>
  `${videoAddress(videoId)}/clip?start=${decimals(start)}&end=${decimals(end)}`;

export const streamAddress = (videoId, seconds) =>
  `${videoAddress(videoId)}/stream?start=${decimals(seconds)}`;

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
