// The index: its facts in the header and in the panel, and the rebuild with its progress.

import * as api from "./api.js";
import { byId, bytes, count, el, fillSelect, plural, shortDigest } from "./view.js";

const POLL_MS = 500;
const SKIPPED_SHOWN = 20;
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

/** Time left in words, rounded: it is an estimate. */
function timeLeft(seconds) {
  if (typeof seconds !== "number") return "";
  if (seconds < 1) return "";
  if (seconds < 90) return `, ${Math.ceil(seconds)} s left`;
  return `, ${Math.round(seconds / 60)} min left`;
}

function drawJob(job) {
  const bar = byId("rebuild-progress");
  const { done = 0, total = 0, stage = "" } = job.progress ?? {};
  if (total > 0) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value"); // length unknown
  }
  byId("rebuild-count").textContent =
    total > 0 ? `${count(done)} of ${count(total)}${timeLeft(job.eta_seconds)}` : "";
  // A live region: written only when the words change, or a reader would repeat them.
  const words = job.state === "queued" ? "Waiting to start." : `${doing(job)}: ${stage || "working"}.`;
  if (byId("rebuild-state").textContent !== words) byId("rebuild-state").textContent = words;
}

const doing = (job) =>
  ({ compact: "Folding in changes", embed: "Embedding", switch: "Changing the model" })[job.kind] ?? "Rebuilding";

const runs = (job) => job.state === "queued" || job.state === "running";

/** Draws the job until it is over: by the server's events, and by asking where there are none. */
async function follow(job) {
  drawJob(job);
  try {
    for await (const now of api.jobEvents(job.id)) {
      job = now;
      if (runs(job)) drawJob(job);
    }
  } catch (error) {
    if (error.status !== undefined && ![0, 404, 503].includes(error.status)) throw error;
  }
  return poll(job);
}

async function poll(job) {
  let failures = 0;
  while (runs(job)) {
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

/** What the job left out, the first of it with reasons. */
async function drawSkipped(job) {
  const box = byId("rebuild-skipped");
  box.hidden = !job.skipped;
  if (!job.skipped) return;
  const log = await api.getJobLog(job.id, SKIPPED_SHOWN);
  byId("rebuild-skipped-count").textContent = `${plural(log.total, "picture")} left out`;
  const more = log.total - log.entries.length;
  byId("rebuild-skipped-list").replaceChildren(
    ...log.entries.map((entry) =>
      el("li", {}, el("code", { textContent: entry.source }), ` ${entry.reason}`),
    ),
    ...(more > 0 ? [el("li", { textContent: `and ${count(more)} more` })] : []),
  );
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

/** Follows the job that `begin` gives to its end, then calls `refresh` for the new facts. */
async function show(begin, refresh) {
  const button = byId("rebuild");
  const cancel = byId("rebuild-cancel");
  const bar = byId("rebuild-progress");
  const state = byId("rebuild-state");
  button.disabled = true;
  bar.hidden = false;
  bar.removeAttribute("value");
  byId("rebuild-skipped").hidden = true;
  state.className = "";
  try {
    let job = await begin();
    cancel.hidden = false;
    cancel.disabled = false;
    cancel.onclick = async () => {
      cancel.disabled = true;
      try {
        await api.cancelJob(job.id);
      } catch (error) {
        cancel.disabled = error.status === 409; // it is over already
        if (error.status !== 409) state.textContent = error.message;
      }
    };
    job = await follow(job);
    await drawSkipped(job);
    if (job.state === "failed") throw new Error(`The rebuild failed: ${jobError(job.error)}`);
    const index = await refresh();
    state.textContent =
      job.state === "succeeded"
        ? `Rebuilt: generation ${index.generation}.`
        : `${job.state === "cancelled" ? "Cancelled" : "Interrupted"}: ${jobError(job.error)}.`;
  } catch (error) {
    state.className = "bad";
    state.textContent = error.message;
  } finally {
    button.disabled = false;
    cancel.hidden = true;
    bar.hidden = true;
    byId("rebuild-count").textContent = "";
  }
}

export function watchRebuild(refresh) {
  byId("rebuild").addEventListener("click", () => {
    byId("rebuild-state").textContent = "Asking for a rebuild.";
    show(startOrJoin, refresh);
  });
}

/** Shows the job that runs already, as after a reload of the page. */
export async function joinRunning(refresh) {
  const { jobs = [] } = await api.listJobs(1);
  if (jobs.length && runs(jobs[0]) && !byId("rebuild").disabled) show(async () => jobs[0], refresh);
}
