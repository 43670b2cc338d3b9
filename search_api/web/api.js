// The HTTP API, one function a route. Every failure is an ApiError with words for people,
// except an abort, which stays a DOMException named "AbortError".

import { askForKey, currentKey, keyHeaders } from "./key.js";

export class ApiError extends Error {
  constructor(message, status, problem = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status; // 0 when there was no answer
    this.problem = problem; // the members of problem+json, where the server sent it
  }
}

export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

/** The error of an answer that is not 2xx: problem+json's words, or else what there is. */
async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
  }
  const words = [problem.detail, problem.title].find((text) => typeof text === "string" && text);
  const message = words ?? `The server refused the request (status ${response.status}).`;
  return new ApiError(message, response.status, problem);
}

const NO_ANSWER = "The server is not answering. Check that it is running, then try again.";

async function send(path, { params = {}, ...options } = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== null && value !== undefined) query.set(key, String(value));
  }
  const text = query.toString();
  for (;;) {
    const key = currentKey();
    let response;
    try {
      const headers = { ...options.headers, ...keyHeaders() };
      response = await fetch(text ? `${path}?${text}` : path, { ...options, headers });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new ApiError(NO_ANSWER, 0);
    }
    if (response.ok) return response;
    const refused = await refusal(response);
    const why = KEY_WANTED[refused.problem.type];
    // Another request may have asked for the key meanwhile; then this one only tries again.
    if (why === undefined || (currentKey() === key && !(await askForKey(why)))) throw refused;
  }
}

const KEY_WANTED = {
  "urn:lookalike:problem:no-key": "This server answers those who have a key.",
  "urn:lookalike:problem:unknown-key": "The server does not know that key. Check it and try again.",
  "urn:lookalike:problem:read-only-key": "Your key may only search. Changing the index needs another.",
};

/** Reads the body of an answer; a body cut off half way counts as no answer. */
async function body(response, read) {
  try {
    return await response[read]();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(NO_ANSWER, 0);
  }
}

const getJson = async (path, options) => body(await send(path, options), "json");

/** {"must": [...]} for the chosen values, or null when nothing is chosen. */
export function buildFilter(chosen) {
  const must = Object.entries(chosen)
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

export const getExamples = (perClass) =>
  getJson("/v1/images/examples", { params: { per_class: perClass } });

export const getImage = (id, signal) => getJson(`/v1/images/${id}`, { signal });

export const getImageFile = async (id, signal) =>
  body(await send(`/v1/images/${id}/file`, { signal }), "blob");

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

/** As `recommend`, with an uploaded picture to look for. */
export function recommendByPicture(picture, negative, page, signal) {
  const form = new FormData();
  form.append("positive_images", picture, picture.name ?? "picture");
  for (const id of negative) form.append("negative", id);
  const params = pageParams(page);
  return getJson("/v1/recommend/images", { method: "POST", body: form, params, signal });
}

export const startRebuild = () => getJson("/v1/index/rebuild", { method: "POST" });

export const getJob = (id) =>
  getJson(`/v1/jobs/${encodeURIComponent(id)}`, { cache: "no-store" });

export const listJobs = (limit) => getJson("/v1/jobs", { params: { limit }, cache: "no-store" });

export const getJobLog = (id, limit) =>
  getJson(`/v1/jobs/${encodeURIComponent(id)}/log`, { params: { limit }, cache: "no-store" });

export const cancelJob = (id) =>
  getJson(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });

/**
 * The job, whenever it changes, from the server's events; ends when the job or the server does.
 * By fetch, as EventSource cannot send a key.
 */
export async function* jobEvents(id) {
  const path = `/v1/jobs/${encodeURIComponent(id)}/events`;
  const aborter = new AbortController();
  const response = await send(path, { cache: "no-store", signal: aborter.signal });
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
  } catch (error) {
    throw new ApiError(NO_ANSWER, 0, { cause: String(error) });
  } finally {
    aborter.abort(); // whoever stops reading frees the connection
  }
}
