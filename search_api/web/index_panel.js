// The index: its facts in the header and in the panel, and its jobs with their progress.

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { bytes, count, plural, sentence, shortDigest } from "./text.js";

const POLL_MS = 500;
const POLL_FAILURES = 10; // a restart of the server takes several seconds
const SKIPPED_SHOWN = 20;
const PAGE_SIZES = [12, 24, 48, 96];

// What a job does, and what it is called.
const JOB_KINDS = {
  rebuild: ["Rebuilding", "Rebuild"],
  compact: ["Compacting changes", "Compaction"],
  embed: ["Embedding", "Embedding"],
  switch: ["Switching models", "Model switch"],
  sync: ["Following the corpus", "Sync"],
};
const kindOf = (job) => JOB_KINDS[job.kind] ?? JOB_KINDS.rebuild;

function fact(name, value) {
  return el("div", {}, el("dt", { textContent: name }), el("dd", {}, value));
}

function builtText(built) {
  if (!built) return "never";
  const when = new Date(built);
  const text = when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return el("time", { dateTime: built, textContent: text });
}

function drawHeader(index) {
  byId("status").replaceChildren(
    el("li", { textContent: plural(index.count, "picture") }),
    el("li", { textContent: `${index.kind} index` }),
    el("li", { textContent: `model ${shortDigest(index.model)}`, title: index.model }),
  );
  byId("notice").hidden = !index.sample;
  byId("notice").textContent = index.notice ?? "These are sample pictures.";
}

function drawFacts(index) {
  byId("index-facts").replaceChildren(
    fact("Corpus", index.corpus),
    fact("Pictures", count(index.count)),
    fact("Kind", `${index.kind}, ${index.metric}`),
    fact("Dimension", String(index.dimension)),
    fact("Generation", String(index.generation)),
    fact("Last built", builtText(index.built)),
    fact("Model", el("code", { textContent: index.model })),
  );
  byId("index-labels").replaceChildren(
    ...Object.entries(index.labels).map(([name, n]) =>
      el("li", {}, el("span", { textContent: name }), el("span", { textContent: count(n) })),
    ),
  );
}

/** Fills a select with values, "" shown as "any"; keeps the selection if it is still there. */
function fillSelect(select, values) {
  const selected = select.value;
  // An open list stays open while the index grows.
  if ([...select.options].map((option) => option.value).join("\n") === values.join("\n")) return;
  select.replaceChildren(
    ...values.map((value) => el("option", { value, textContent: value === "" ? "any" : value })),
  );
  if (values.includes(selected)) select.value = selected;
}

function drawControls(index) {
  byId("drop-limit").textContent = `Up to ${bytes(index.limits.max_upload_bytes)}.`;
  fillSelect(byId("filter-label"), ["", ...Object.keys(index.labels).sort()]);
  fillSelect(byId("filter-split"), ["", ...Object.keys(index.splits).sort()]);
  const sizes = PAGE_SIZES.filter((n) => n <= index.limits.max_limit);
  fillSelect(byId("limit"), (sizes.length ? sizes : [index.limits.max_limit]).map(String));
}

export function drawIndex(index) {
  drawHeader(index);
  drawFacts(index);
  drawControls(index);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** ", 12 s left", rounded because it is an estimate. */
function timeLeft(seconds) {
  if (typeof seconds !== "number" || seconds < 1) return "";
  if (seconds < 90) return `, ${Math.ceil(seconds)} s left`;
  return `, ${Math.round(seconds / 60)} min left`;
}

/** Draws the bar `name`-progress, and `name`-count next to it. */
function drawBar(name, job) {
  const bar = byId(`${name}-progress`);
  const { done = 0, total = 0 } = job.progress ?? {};
  if (total > 0) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value"); // length unknown
  }
  byId(`${name}-count`).textContent =
    total > 0 ? `${count(done)} of ${count(total)}${timeLeft(job.eta_seconds)}` : "";
}

/** Writes to a live region only on a change, or screen readers repeat it. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function drawProgress(job) {
  drawBar("rebuild", job);
  const stage = job.progress?.stage ?? "";
  const [doing] = kindOf(job);
  const running = stage ? `${doing}: ${stage}.` : `${doing}.`;
  setText(byId("rebuild-state"), job.state === "queued" ? "Waiting to start." : running);
}

const isActive = (job) => job.state === "queued" || job.state === "running";

/** Draws the job until it ends: from the server's event stream, and by polling without one. */
async function waitForEnd(job) {
  drawProgress(job);
  try {
    for await (const update of api.jobEvents(job.id)) {
      job = update;
      if (isActive(job)) drawProgress(job);
    }
  } catch (error) {
    if (error.status !== undefined && ![0, 404, 503].includes(error.status)) throw error;
  }
  return poll(job);
}

async function poll(job) {
  let failures = 0;
  while (isActive(job)) {
    drawProgress(job);
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

/** The pictures that the job skipped: the first of them, with reasons. */
async function drawSkipped(job) {
  byId("rebuild-skipped").hidden = !job.skipped;
  if (!job.skipped) return;
  const log = await api.getJobLog(job.id, SKIPPED_SHOWN);
  byId("rebuild-skipped-count").textContent = `${plural(log.total, "picture")} skipped:`;
  const more = log.total - log.entries.length;
  byId("rebuild-skipped-list").replaceChildren(
    ...log.entries.map((entry) =>
      el("li", {}, el("code", { textContent: entry.source }), `: ${entry.reason}`),
    ),
    ...(more > 0 ? [el("li", { textContent: `and ${count(more)} more` })] : []),
  );
}

/** The job of a new rebuild, or the one already running, perhaps started before a reload. */
async function startOrJoin() {
  try {
    return await api.startRebuild();
  } catch (error) {
    if (error.status === 409 && error.problem.job) return api.getJob(error.problem.job);
    throw error;
  }
}

/** "Rebuild failed: the disk is full." A job's error is a string or a problem. */
function endText(job, generation) {
  const [, name] = kindOf(job);
  if (job.state === "succeeded") return `${name} complete: generation ${generation}.`;
  const reason = typeof job.error === "string" ? job.error : job.error?.detail;
  return sentence(`${name} ${job.state}: ${reason ?? "no reason given"}`);
}

/** Follows the job that `begin` returns to its end, then calls `refresh` for the new facts. */
async function trackJob(begin, refresh) {
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
        cancel.disabled = error.status === 409; // it has ended already
        if (error.status !== 409) state.textContent = error.message;
      }
    };
    job = await waitForEnd(job);
    await drawSkipped(job);
    if (job.state === "failed") throw new Error(endText(job));
    const index = await refresh();
    state.textContent = endText(job, index.generation);
  } catch (error) {
    state.className = "failed";
    state.textContent = error.message;
  } finally {
    button.disabled = false;
    cancel.hidden = true;
    bar.hidden = true;
    byId("rebuild-count").textContent = "";
  }
}

export function listenForRebuild(refresh) {
  byId("rebuild").addEventListener("click", () => {
    byId("rebuild-state").textContent = "Requesting a rebuild.";
    trackJob(startOrJoin, refresh);
  });
}

/** Shows the job already running, as after a reload of the page. */
export async function joinRunningJob(refresh) {
  const { jobs = [] } = await api.listJobs(1);
  const [job] = jobs;
  if (job && isActive(job) && !byId("rebuild").disabled) trackJob(async () => job, refresh);
}

/** "The index is incomplete (rebuild failed)", of the last job. */
function stoppedText(job) {
  const [, name] = kindOf(job ?? {});
  const why = job && job.state !== "succeeded" ? ` (${name.toLowerCase()} ${job.state})` : "";
  return `The index is incomplete${why}`;
}

/** Shows above the page how far the first build is; `index` is null before the first batch. */
export async function drawFirstBuild(index) {
  const { jobs = [] } = await api.listJobs(1);
  const [job] = jobs;
  const active = job !== undefined && isActive(job);
  byId("building").hidden = false;
  byId("building-progress").hidden = !active;
  byId("building-count").textContent = "";
  if (active) drawBar("building", job);
  const searches = index
    ? "searches find what is embedded so far"
    : "searches are possible once the first pictures are embedded";
  const stage = job?.progress?.stage || "starting";
  const doing = active ? `Building the index: ${stage}` : stoppedText(job);
  setText(byId("building-state"), `${doing}; ${searches}.`);
}

export function hideFirstBuild() {
  byId("building").hidden = true;
}
