// The HTTP API, one function per route. Every failure is an ApiError with a message for the user,
// except an abort, which stays a DOMException named "AbortError".

import { currentKey, keyHeaders, requestKey } from "./api_key.js";
import { sentence } from "./text.js";

export class ApiError extends Error {
  constructor(message, status, problem = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status; // 0 when there was no response
    this.problem = problem; // the members of problem+json, where the server sent it
  }
}

export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

const noResponse = () =>
  new ApiError("The server is not responding. Check that it is running, then try again.", 0);

/** Awaits `promise`; a failure of the network becomes an ApiError. */
async function received(promise) {
  try {
    return await promise;
  } catch (error) {
    throw isAbort(error) ? error : noResponse();
  }
}

/** The error of a response that is not 2xx, with the message of its problem+json, if any. */
async function errorOf(response) {
  const { status } = response;
  let problem = {};
  try {
    problem = await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
  }
  const text = [problem.detail, problem.title].find((t) => typeof t === "string" && t);
  const message = text ? sentence(text) : `The server returned an error (status ${status}).`;
  return new ApiError(message, status, problem);
}

const KEY_REASONS = {
  "urn:lookalike:problem:no-key": "This server requires an API key.",
  "urn:lookalike:problem:unknown-key":
    "The server does not recognise this key. Check it and try again.",
  "urn:lookalike:problem:read-only-key":
    "Your key allows searching only. To change the index, enter a key with write access.",
};

async function send(path, { params = {}, ...options } = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== null && value !== undefined) query.set(key, String(value));
  }
  const text = query.toString();
  const url = text ? `${path}?${text}` : path;
  for (;;) {
    const key = currentKey();
    const headers = { ...options.headers, ...keyHeaders() };
    const response = await received(fetch(url, { ...options, headers }));
    if (response.ok) return response;
    const error = await errorOf(response);
    const reason = KEY_REASONS[error.problem.type];
    if (reason === undefined) throw error;
    // Another request may have obtained a new key meanwhile; then only try again.
    if (currentKey() === key && !(await requestKey(reason))) {
      throw new ApiError(reason, error.status, error.problem);
    }
  }
}

async function getJson(path, options) {
  const response = await send(path, options);
  return received(response.json());
}

/** {"must": [...]} for the selected values, or null when nothing is selected. */
export function buildFilter(selected) {
  const must = Object.entries(selected)
    .filter(([, value]) => value !== "")
    .map(([key, value]) => ({ key, match: { value } }));
  return must.length ? { must } : null;
}

const pageParams = ({ limit, offset, filter, diversity }) => ({
  limit,
  offset,
  filter: filter && JSON.stringify(filter),
  diversity,
});

export const getIndex = () => getJson("/v1/index", { cache: "no-store" });

export const getSamples = (perClass) =>
  getJson("/v1/images/examples", { params: { per_class: perClass } });

export const getImage = (id, signal) => getJson(`/v1/images/${id}`, { signal });

export const fileUrl = (id) => `/v1/images/${id}/file`;

export async function getImageFile(id, signal) {
  const response = await send(fileUrl(id), { signal });
  return received(response.blob());
}

export function searchByPicture(picture, page, signal) {
  const form = new FormData();
  form.append("image", picture, picture.name ?? "picture");
  return getJson("/v1/search", { method: "POST", body: form, params: pageParams(page), signal });
}

export const searchSimilar = (id, page, signal) =>
  getJson(`/v1/images/${id}/similar`, { params: pageParams(page), signal });

export function recommend(positive, negative, page, signal) {
  const given = Object.entries(page).filter(([, value]) => value !== null && value !== undefined);
  const request = { positive, negative, strategy: "average_vector", ...Object.fromEntries(given) };
  return getJson("/v1/recommend", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
}

/** Like `recommend`, with an uploaded picture as the positive example. */
export function recommendByPicture(picture, negative, page, signal) {
  const form = new FormData();
  form.append("positive_images", picture, picture.name ?? "picture");
  for (const id of negative) form.append("negative", id);
  const params = pageParams(page);
  return getJson("/v1/recommend/images", { method: "POST", body: form, params, signal });
}

export const startRebuild = () => getJson("/v1/index/rebuild", { method: "POST" });

const jobPath = (id) => `/v1/jobs/${encodeURIComponent(id)}`;

export const getJob = (id) => getJson(jobPath(id), { cache: "no-store" });

export const listJobs = (limit) => getJson("/v1/jobs", { params: { limit }, cache: "no-store" });

export const getJobLog = (id, limit) =>
  getJson(`${jobPath(id)}/log`, { params: { limit }, cache: "no-store" });

export const cancelJob = (id) => getJson(jobPath(id), { method: "DELETE" });

/**
 * The job each time it changes, from the server's event stream; ends when the job or the server
 * does. Uses fetch because EventSource cannot send a key.
 */
export async function* jobEvents(id) {
  const aborter = new AbortController();
  const options = { cache: "no-store", signal: aborter.signal };
  const response = await send(`${jobPath(id)}/events`, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const lines = text.split("\n");
      text = lines.pop(); // not complete yet
      for (const line of lines) {
        if (line.startsWith("data:")) yield JSON.parse(line.slice("data:".length));
      }
    }
  } catch {
    throw noResponse();
  } finally {
    aborter.abort(); // frees the connection if the caller stops reading
  }
}
