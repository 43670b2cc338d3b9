// The index: its facts in the header and in the panel, and the rebuild with its progress.

import * as api from "./api.js";
import { byId, bytes, count, el, fillSelect, plural, shortDigest } from "./view.js";

const POLL_MS = 500;
const POLL_FAILURES = 10; // a restart of the server takes some seconds

function fact(name, ...value) {
  return el("div", {}, el("dt", { textContent: name }), el("dd", {}, ...value));
}

function builtText(built) {
  if (!built) return "never";
  const when = new Date(built);
  const words = when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return el("time", { dateTime: built, textContent: words });
}

function drawHeader(index) {
  const model = el("li", { textContent: `model ${shortDigest(index.model)}`, title: index.model });
  byId("status").replaceChildren(
    el("li", { textContent: plural(index.count, "picture") }),
    el("li", { textContent: `${index.kind} index` }),
    model,
  );
  byId("notice").hidden = !index.sample;
  byId("notice").textContent = index.notice ?? "These are sample pictures.";
}

function drawPanel(index) {
  byId("index-facts").replaceChildren(
    fact("Corpus", index.corpus),
    fact("Pictures", count(index.count)),
    fact("Kind", `${index.kind}, ${index.metric}`),
    fact("Dimension", String(index.dimension)),
    fact("Generation", String(index.generation)),
    fact("Last build", builtText(index.built)),
    fact("Model", el("code", { textContent: index.model })),
  );
  byId("index-labels").replaceChildren(
    ...Object.entries(index.labels).map(([name, n]) =>
      el("li", {}, el("span", { textContent: name }), el("span", { textContent: count(n) })),
    ),
  );
}

function drawControls(index) {
  byId("drop-limit").textContent = `Up to ${bytes(index.limits.max_upload_bytes)}.`;
  const labels = Object.keys(index.labels).sort();
  fillSelect(byId("filter-label"), [["", "any"], ...labels.map((name) => [name, name])]);
  const splits = Object.keys(index.splits).sort();
  fillSelect(byId("filter-split"), [["", "any"], ...splits.map((name) => [name, name])]);
  const limits = [12, 24, 48, 96].filter((n) => n <= index.limits.max_limit);
  fillSelect(byId("limit"), (limits.length ? limits : [index.limits.max_limit]).map((n) => [String(n), String(n)]));
}

export function drawIndex(index) {
  drawHeader(index);
  drawPanel(index);
  drawControls(index);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function drawJob(job) {
  const bar = byId("rebuild-progress");
  const { done = 0, total = 0, stage = "" } = job.progress ?? {};
  if (total > 0) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value"); // length unknown
  }
  byId("rebuild-count").textContent = total > 0 ? `${count(done)} of ${count(total)}` : "";
  // A live region: written only when the words change, or a reader would repeat them.
  const words = job.state === "queued" ? "Waiting to start." : `Rebuilding: ${stage || "working"}.`;
  if (byId("rebuild-state").textContent !== words) byId("rebuild-state").textContent = words;
}

async function follow(job) {
  let failures = 0;
  while (job.state === "queued" || job.state === "running") {
    drawJob(job);
    await pause(POLL_MS);
    try {
      job = await api.getJob(job.id);
      failures = 0;
    } catch (error) {
      failures += 1;
      if (error.status !== 0 || failures >= POLL_FAILURES) throw error;
    }
  }
  return job;
}

/** An error of a job may be a string or a problem; either way, words. */
function jobError(error) {
  return typeof error === "string" ? error : (error?.detail ?? "no reason was given");
}

/** The job of a new rebuild, or of the one that runs already, perhaps from before a reload. */
async function startOrJoin() {
  try {
    return await api.startRebuild();
  } catch (error) {
    if (error.status === 409 && error.problem.job) return api.getJob(error.problem.job);
    throw error;
  }
}

/** Starts a rebuild, follows it to its end, then calls `refresh` for the new facts. */
async function rebuild(refresh) {
  const button = byId("rebuild");
  const bar = byId("rebuild-progress");
  const state = byId("rebuild-state");
  button.disabled = true;
  bar.hidden = false;
  bar.removeAttribute("value");
  state.className = "";
  state.textContent = "Asking for a rebuild.";
  try {
    const job = await follow(await startOrJoin());
    if (job.state !== "succeeded") throw new Error(`The rebuild failed: ${jobError(job.error)}`);
    const index = await refresh();
    state.textContent = `Rebuilt: generation ${index.generation}.`;
  } catch (error) {
    state.className = "bad";
    state.textContent = error.message;
  } finally {
    button.disabled = false;
    bar.hidden = true;
    byId("rebuild-count").textContent = "";
  }
}

export function watchRebuild(refresh) {
  byId("rebuild").addEventListener("click", () => rebuild(refresh));
}
