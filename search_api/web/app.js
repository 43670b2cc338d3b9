// What the page knows and does: the query (also in the URL), its pages of neighbours, the marks.

import * as api from "./api.js";
import { drawIndex, joinRunning, watchRebuild } from "./index_panel.js";
import { watchPictures } from "./intake.js";
import {
  ask, describe, examplesAddress, findSubject, keepUpload, parseAddress, uploadOf, uploadState,
} from "./query.js";
import {
  announce, byId, bytes, clearError, drawExamples, drawMarks, drawPrediction, drawVote, labelOf,
  neighbour, picture, plural, setBusy, showError, timeText,
} from "./view.js";

const state = {
  index: null,
  query: null, // {kind: "upload" | "try" | "similar" | "recommend", ...}, see query.js
  answer: null, // the first page's answer
  points: [],
  expanded: false, // all classes shown
};
const CANDIDATES = 200; // of these the service chooses a varied page
const marks = new Map(); // id -> {sign: 1 | -1, label}
let running = null; // the AbortController of the newest request

// ---- The query and its address

function route() {
  const query = parseAddress(location.hash, history.state);
  if (query === undefined) return; // an anchor of the page itself
  clearError();
  if (query?.kind === "lost") {
    showStart();
    showError("That picture is no longer in memory. Choose it again.");
  } else if (query === null) {
    showStart();
  } else {
    if (query.kind === "recommend") adoptMarks(query);
    startQuery(query);
  }
}

function showStart() {
  running?.abort();
  setBusy(false);
  announce("");
  state.query = null;
  document.title = "Lookalike";
  byId("workspace").classList.remove("has-query");
  for (const id of ["query", "prediction", "vote", "result"]) byId(id).hidden = true;
  byId("examples").hidden = byId("example-list").children.length === 0;
  byId("drop-title").textContent = "Choose a picture";
}

function takeFile(file) {
  const limit = state.index?.limits.max_upload_bytes ?? Infinity;
  if (file.size > limit) {
    showError(
      `${file.name || "The picture"} has ${bytes(file.size)}; the limit is ${bytes(limit)}. ` +
        "Choose a smaller picture.",
    );
    return;
  }
  history.pushState(keepUpload(file), "", location.pathname + location.search);
  route();
}

// ---- Searching

const chosenFilter = () =>
  api.buildFilter({ label: byId("filter-label").value, split: byId("filter-split").value });

/** How a page is asked for: `diversity` is null where the nearest come first. */
const chosenPage = (limit, offset) => ({
  limit,
  offset,
  filter: chosenFilter(),
  diversity: byId("diversity").value === "" ? null : Number(byId("diversity").value),
});

/** Runs `work(signal)` as the newest request: an older one is aborted and draws nothing. */
async function newest(work, retry) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  setBusy(true);
  clearError();
  announce("Searching.");
  try {
    await work(mine.signal);
    return !mine.signal.aborted;
  } catch (error) {
    if (mine.signal.aborted || api.isAbort(error)) return false;
    const known = error instanceof api.ApiError;
    const mayPass = known && (error.status === 0 || error.status === 429 || error.status >= 500);
    showError(known ? error.message : `The page failed: ${error.message}`, mayPass ? retry : null);
    return false;
  } finally {
    if (running === mine) setBusy(false);
  }
}

async function startQuery(query) {
  state.query = query;
  state.expanded = false;
  showQuery(query);
  window.scrollTo(0, 0);
  if (await firstPage()) byId("result-title").focus({ preventScroll: true });
}

/** The first page of the query that stands; also after a change of filter or limit. */
async function firstPage() {
  const query = state.query;
  let drawn = false;
  await newest(async (signal) => {
    const page = chosenPage(Number(byId("limit").value || 12), 0);
    try {
      const [answer] = await Promise.all([ask(query, page, signal), findSubject(query, signal)]);
      if (signal.aborted) return;
      showQuery(query);
      showAnswer(answer, page);
      drawn = true;
    } catch (error) {
      // Neighbours of an earlier query must not stand beside this one.
      if (!signal.aborted) hideAnswer();
      throw error;
    }
  }, firstPage);
  return drawn;
}

const referenceOf = (query, answer) =>
  answer.prediction?.class ?? (query.subject ? labelOf(query.subject) : null);

const cardOf = (point) =>
  neighbour(point, {
    reference: referenceOf(state.query, state.answer),
    queryId: state.query.id ?? null,
    signOf: (id) => marks.get(id)?.sign,
    mark: toggleMark,
  });

function hideAnswer() {
  state.answer = null;
  state.points = [];
  for (const id of ["prediction", "vote", "result"]) byId(id).hidden = true;
}

function showAnswer(answer, page) {
  state.answer = answer;
  state.points = answer.points;
  drawPrediction(answer.prediction, state.expanded);
  drawVote(answer.vote, answer.points);
  byId("result").hidden = false;
  byId("points").replaceChildren(...answer.points.map(cardOf));
  byId("nothing").hidden = answer.points.length > 0;
  byId("nothing-text").textContent = page.filter
    ? "No picture fits these filters."
    : "There are no neighbours to show.";
  byId("clear-filters").hidden = !page.filter;
  drawMarks(marks, unmark, uploadOf(state.query));
  showSummary();
  showMore(answer.points.length === page.limit);
  const found = answer.prediction ? `Predicted class ${answer.prediction.class}. ` : "";
  announce(`${found}${plural(answer.points.length, "neighbour")} shown.`);
  if (answer.prediction) document.title = `${answer.prediction.class} \u00b7 Lookalike`;
  if (state.index && answer.generation !== state.index.generation) refreshIndex().catch(() => {});
}

function showSummary() {
  const reference = referenceOf(state.query, state.answer);
  const others = state.points.filter((p) => labelOf(p) !== null && labelOf(p) !== reference).length;
  const words = `${plural(state.points.length, "neighbour")} in ${timeText(state.answer.time)}`;
  const differ = reference !== null && others > 0 ? `; ${others} with a label other than ${reference}` : "";
  byId("summary").textContent = `${words}${differ}.`;
}

function mostShown() {
  const limits = state.index?.limits;
  const varied = byId("diversity").value === "" ? Infinity : CANDIDATES;
  return Math.min(state.index?.count ?? Infinity, limits?.max_limit ?? Infinity, varied);
}

function showMore(full) {
  const end = mostShown();
  byId("more").hidden = !full || state.points.length >= end;
}

async function nextPage() {
  const offset = state.points.length;
  const limit = Math.min(Number(byId("limit").value), mostShown() - offset);
  await newest(async (signal) => {
    const page = chosenPage(limit, offset);
    const answer = await ask(state.query, page, signal);
    if (signal.aborted) return;
    // A rebuild between two pages may move a picture from one to the other.
    const seen = new Set(state.points.map((point) => point.id));
    const fresh = answer.points.filter((point) => !seen.has(point.id));
    state.points = [...state.points, ...fresh];
    const cards = fresh.map(cardOf);
    byId("points").append(...cards);
    showSummary();
    showMore(fresh.length > 0 && answer.points.length === limit);
    announce(fresh.length ? `${plural(fresh.length, "more neighbour")} shown.` : "There are no more.");
    cards[0]?.querySelector("a").focus({ preventScroll: true });
  }, nextPage);
}

// ---- The query panel

function showQuery(query) {
  byId("workspace").classList.add("has-query");
  byId("examples").hidden = true;
  byId("query").hidden = false;
  byId("drop-title").textContent = "Choose another picture";
  const { title, text, pictures } = describe(query);
  byId("query-title").textContent = title;
  byId("query-text").textContent = text;
  byId("query-pictures").replaceChildren(...pictures.map(([src, alt]) => picture(src, alt)));
  document.title = `${title} \u00b7 Lookalike`;
}

// ---- Marks

function toggleMark(point, sign) {
  if (marks.get(point.id)?.sign === sign) marks.delete(point.id);
  else marks.set(point.id, { sign, label: labelOf(point) });
  drawMarks(marks, unmark, uploadOf(state.query));
}

function unmark(id) {
  marks.delete(id);
  drawMarks(marks, unmark, uploadOf(state.query));
  // The button that was pressed is gone; the reader's place must not be.
  (byId("chips").querySelector(".remove") ?? byId("result-title")).focus();
}

/** Takes the marks from an address, and asks for the labels that are not known yet. */
function adoptMarks({ positive, negative }) {
  const known = new Map(marks);
  marks.clear();
  for (const [ids, sign] of [[positive, 1], [negative, -1]]) {
    for (const id of ids) marks.set(id, { sign, label: known.get(id)?.label ?? null });
  }
  const unknown = [...marks].filter(([, mark]) => mark.label === null);
  Promise.allSettled(
    unknown.map(async ([id, mark]) => {
      mark.label = labelOf(await api.getImage(id));
    }),
  ).then(() => drawMarks(marks, unmark, uploadOf(state.query)));
}

function searchByMarks() {
  const ids = (wanted) => [...marks].filter(([, { sign }]) => sign === wanted).map(([id]) => id);
  // The user's own picture takes the place of a picture marked with +.
  const upload = ids(1).length ? null : uploadState(state.query);
  history.pushState(upload, "", examplesAddress(ids(1), ids(-1)));
  route();
}

// ---- Start

async function refreshIndex() {
  state.index = await api.getIndex();
  drawIndex(state.index);
  return state.index;
}

async function start() {
  clearError();
  try {
    await refreshIndex();
  } catch (error) {
    showError(error.message, start);
    return;
  }
  joinRunning(refreshIndex).catch(() => {}); // what runs is shown; nothing else needs it
  const many = state.index.classes.length > 10;
  api
    .getExamples(many ? 1 : 2)
    .then(({ points }) => drawExamples(points))
    .catch(() => drawExamples([])) // samples are a convenience; their absence needs no words
    .then(() => {
      byId("examples").hidden = state.query !== null || byId("example-list").children.length === 0;
    });
  route();
}

const changeFilter = () => state.query && firstPage();
for (const id of ["filter-label", "filter-split", "diversity", "limit"]) byId(id).addEventListener("change", changeFilter);
byId("clear-filters").addEventListener("click", () => {
  byId("filter-label").value = "";
  byId("filter-split").value = "";
  firstPage().then(() => byId("result-title").focus());
});
byId("more").addEventListener("click", nextPage);
byId("all-classes").addEventListener("click", () => {
  state.expanded = !state.expanded;
  drawPrediction(state.answer.prediction, state.expanded);
});
byId("recommend").addEventListener("click", searchByMarks);
byId("clear-marks").addEventListener("click", () => {
  marks.clear();
  drawMarks(marks, unmark, uploadOf(state.query));
  byId("result-title").focus();
});
history.scrollRestoration = "manual";
window.addEventListener("popstate", route);
watchPictures(takeFile);
watchRebuild(refreshIndex);
start();
