// The entry point: the page's state, the address, and what happens on each action of the user.

import * as api from "./api.js";
import { byId } from "./dom.js";
import {
  drawFirstBuild, drawIndex, hideFirstBuild, joinRunningJob, listenForRebuild,
} from "./index_panel.js";
import { listenForPictures } from "./picture_input.js";
import {
  describe, keepUpload, loadPoint, parseAddress, recommendAddress, search, uploadOf, uploadState,
} from "./query.js";
import { bytes, labelOf, plural, timeText } from "./text.js";
import {
  announce, clearError, drawExamples, drawPrediction, drawSamples, drawVote, neighbourCard, picture,
  setBusy, showError,
} from "./view.js";

const DIVERSITY_CANDIDATES = 200; // the server selects a varied page from this many neighbours
const NOT_READY = "urn:lookalike:problem:not-ready";
const BUILD_POLL_MS = 1500;
const BUILD_RETRY_MS = 5000;
const state = {
  index: null,
  query: null, // {kind: "upload" | "sample" | "similar" | "recommend", ...}, see query.js
  answer: null, // of the first page
  points: [],
  expanded: false, // all classes shown
};
const examples = new Map(); // id -> {sign: 1 | -1, label}
let newest = null; // the AbortController of the newest request

// ---- The query and its address

function route() {
  const query = parseAddress(location.hash, history.state);
  if (query === undefined) return;
  clearError();
  if (query?.kind === "lost") {
    showStart();
    showError("That picture is no longer in memory. Choose it again.");
  } else if (query === null) {
    showStart();
  } else {
    if (query.kind === "recommend") restoreExamples(query);
    startQuery(query);
  }
}

function showStart() {
  newest?.abort();
  setBusy(false);
  announce("");
  state.query = null;
  document.title = "Lookalike";
  byId("workspace").classList.remove("has-query");
  byId("query").hidden = true;
  hideAnswer();
  byId("samples").hidden = byId("sample-list").children.length === 0;
  byId("drop-title").textContent = "Choose a picture";
}

function searchFile(file) {
  const limit = state.index?.limits.max_upload_bytes ?? Infinity;
  if (file.size > limit) {
    showError(
      `${file.name || "The picture"} is ${bytes(file.size)}; the limit is ${bytes(limit)}. ` +
        "Choose a smaller picture.",
    );
    return;
  }
  history.pushState(keepUpload(file), "", location.pathname + location.search);
  route();
}

// ---- Searching

/** The parameters of a page of results; `diversity` is null for the nearest. */
const pageParams = (limit, offset) => ({
  limit,
  offset,
  filter: api.buildFilter({ label: byId("filter-label").value, split: byId("filter-split").value }),
  diversity: byId("diversity").value === "" ? null : Number(byId("diversity").value),
});

/** Runs `work(signal)` as the newest request: an older one is aborted and draws nothing. */
async function runNewest(work, retry) {
  newest?.abort();
  const own = new AbortController();
  newest = own;
  setBusy(true);
  clearError();
  announce("Searching.");
  try {
    await work(own.signal);
  } catch (error) {
    if (own.signal.aborted || api.isAbort(error)) return;
    const known = error instanceof api.ApiError;
    const temporary = known && (error.status === 0 || error.status === 429 || error.status >= 500);
    const message = known ? error.message : `Something went wrong on this page: ${error.message}`;
    showError(message, temporary ? retry : null);
  } finally {
    if (newest === own) setBusy(false);
  }
}

async function startQuery(query) {
  state.query = query;
  state.expanded = false;
  showQuery(query);
  window.scrollTo(0, 0);
  if (await firstPage()) byId("result-title").focus({ preventScroll: true });
}

/** Loads the first page of the current query, also after a change of filter; true once drawn. */
async function firstPage() {
  const query = state.query;
  let drawn = false;
  await runNewest(async (signal) => {
    const page = pageParams(Number(byId("limit").value || 12), 0);
    try {
      const [answer] = await Promise.all([search(query, page, signal), loadPoint(query, signal)]);
      if (signal.aborted) return;
      showQuery(query);
      showAnswer(answer, page);
      drawn = true;
    } catch (error) {
      // Neighbours of an earlier query must not stay on screen next to this one.
      if (!signal.aborted) hideAnswer();
      throw error;
    }
  }, firstPage);
  return drawn;
}

/** The label to compare neighbours with: the predicted class, or the query picture's own label.
 * A class that no stored picture is labelled with cannot be compared. */
function referenceLabel() {
  const predicted = state.answer.prediction?.class ?? null;
  if (predicted !== null && predicted in (state.index?.labels ?? {})) return predicted;
  return state.query.point ? labelOf(state.query.point) : null;
}

const cardOf = (point) =>
  neighbourCard(point, {
    reference: referenceLabel(),
    queryId: state.query.id ?? null,
    signOf: (id) => examples.get(id)?.sign,
    onToggle: toggleExample,
  });

function hideAnswer() {
  state.answer = null;
  state.points = [];
  for (const id of ["prediction", "vote", "result"]) byId(id).hidden = true;
}

function showAnswer(answer, page) {
  const { prediction, vote, points } = answer;
  state.answer = answer;
  state.points = points;
  drawPrediction(prediction, state.expanded, state.index?.labels ?? {});
  drawVote(vote, points);
  byId("result").hidden = false;
  byId("points").replaceChildren(...points.map(cardOf));
  byId("nothing").hidden = points.length > 0;
  byId("nothing-text").textContent = page.filter
    ? "No pictures match these filters."
    : "No neighbours found.";
  byId("clear-filters").hidden = !page.filter;
  showExamples();
  showSummary();
  showMore(points.length === page.limit);
  const name = prediction?.class ?? "none of these";
  const found = prediction ? `Predicted class: ${name}. ` : "";
  announce(`${found}${plural(points.length, "neighbour")} shown.`);
  if (prediction) document.title = `${name} \u00b7 Lookalike`;
  if (state.index && answer.generation !== state.index.generation) refreshIndex().catch(() => {});
}

function showSummary() {
  const reference = referenceLabel();
  const others = state.points.filter((p) => labelOf(p) !== null && labelOf(p) !== reference).length;
  const found = `${plural(state.points.length, "neighbour")} in ${timeText(state.answer.time)}`;
  const differ =
    reference !== null && others > 0 ? `; ${others} with a label other than ${reference}` : "";
  byId("summary").textContent = `${found}${differ}.`;
}

function maxShown() {
  const { count = Infinity, limits } = state.index ?? {};
  const candidates = byId("diversity").value === "" ? Infinity : DIVERSITY_CANDIDATES;
  return Math.min(count, limits?.max_limit ?? Infinity, candidates);
}

function showMore(full) {
  byId("more").hidden = !full || state.points.length >= maxShown();
}

async function nextPage() {
  const offset = state.points.length;
  const limit = Math.min(Number(byId("limit").value), maxShown() - offset);
  await runNewest(async (signal) => {
    const answer = await search(state.query, pageParams(limit, offset), signal);
    if (signal.aborted) return;
    // A rebuild between two pages may move a picture from one to the other.
    const seen = new Set(state.points.map((point) => point.id));
    const added = answer.points.filter((point) => !seen.has(point.id));
    state.points = [...state.points, ...added];
    const cards = added.map(cardOf);
    byId("points").append(...cards);
    showSummary();
    showMore(added.length > 0 && answer.points.length === limit);
    announce(
      added.length ? `${plural(added.length, "more neighbour")} shown.` : "No more neighbours.",
    );
    cards[0]?.querySelector("a").focus({ preventScroll: true });
  }, nextPage);
}

function showQuery(query) {
  byId("workspace").classList.add("has-query");
  byId("samples").hidden = true;
  byId("query").hidden = false;
  byId("drop-title").textContent = "Choose another picture";
  const { title, text, pictures } = describe(query);
  byId("query-title").textContent = title;
  byId("query-text").textContent = text;
  byId("query-pictures").replaceChildren(...pictures.map(([url, alt]) => picture(url, alt)));
  document.title = `${title} \u00b7 Lookalike`;
}

// ---- Positive and negative examples

const showExamples = () => drawExamples(examples, removeExample, uploadOf(state.query) !== null);

function toggleExample(point, sign) {
  if (examples.get(point.id)?.sign === sign) examples.delete(point.id);
  else examples.set(point.id, { sign, label: labelOf(point) });
  showExamples();
}

function removeExample(id) {
  examples.delete(id);
  showExamples();
  // The button that had the focus is gone.
  (byId("chips").querySelector(".remove") ?? byId("result-title")).focus();
}

/** Takes the examples from an address, and loads the labels that are not known yet. */
function restoreExamples({ positive, negative }) {
  const known = new Map(examples);
  examples.clear();
  for (const [ids, sign] of [[positive, 1], [negative, -1]]) {
    for (const id of ids) examples.set(id, { sign, label: known.get(id)?.label ?? null });
  }
  const unlabelled = [...examples].filter(([, example]) => example.label === null);
  Promise.allSettled(
    unlabelled.map(async ([id, example]) => {
      example.label = labelOf(await api.getImage(id));
    }),
  ).then(showExamples);
}

function searchByExamples() {
  const idsOf = (wanted) =>
    [...examples].filter(([, { sign }]) => sign === wanted).map(([id]) => id);
  // Pictures selected with + replace the uploaded picture.
  const upload = idsOf(1).length ? null : uploadState(state.query);
  history.pushState(upload, "", recommendAddress(idsOf(1), idsOf(-1)));
  route();
}

// ---- Start

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function refreshIndex() {
  state.index = await api.getIndex();
  drawIndex(state.index);
  return state.index;
}

async function loadSamples() {
  const perClass = state.index.classes.length > 10 ? 1 : 2;
  try {
    drawSamples((await api.getSamples(perClass)).points);
  } catch {
    drawSamples([]); // the page is complete without them
  }
  byId("samples").hidden = state.query !== null || byId("sample-list").children.length === 0;
}

/** Shows the first build until it is complete; the facts and the samples follow it. */
async function followFirstBuild() {
  try {
    if (!state.index.complete) await drawFirstBuild(state.index);
    while (!state.index.complete) {
      await pause(BUILD_POLL_MS);
      await refreshIndex();
      if (!state.index.complete) await drawFirstBuild(state.index);
    }
    loadSamples();
  } catch {
    await pause(BUILD_RETRY_MS); // the server may be restarting
    return followFirstBuild();
  }
  hideFirstBuild();
}

async function start() {
  clearError();
  try {
    await refreshIndex();
  } catch (error) {
    if (error.problem?.type === NOT_READY) {
      await drawFirstBuild(null).catch(() => {});
      setTimeout(start, BUILD_POLL_MS);
    } else {
      hideFirstBuild();
      showError(error.message, start);
    }
    return;
  }
  if (!state.index.complete) followFirstBuild();
  else hideFirstBuild();
  joinRunningJob(refreshIndex).catch(() => {}); // the page is complete without it
  loadSamples();
  route();
}

for (const id of ["filter-label", "filter-split", "diversity", "limit"]) {
  byId(id).addEventListener("change", () => state.query && firstPage());
}
byId("clear-filters").addEventListener("click", async () => {
  byId("filter-label").value = "";
  byId("filter-split").value = "";
  await firstPage();
  byId("result-title").focus();
});
byId("more").addEventListener("click", nextPage);
byId("all-classes").addEventListener("click", () => {
  state.expanded = !state.expanded;
  drawPrediction(state.answer.prediction, state.expanded, state.index?.labels ?? {});
});
byId("recommend").addEventListener("click", searchByExamples);
byId("clear-examples").addEventListener("click", () => {
  examples.clear();
  showExamples();
  byId("result-title").focus();
});
history.scrollRestoration = "manual";
window.addEventListener("popstate", route);
listenForPictures(searchFile);
listenForRebuild(refreshIndex);
start();
