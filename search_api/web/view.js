// Draws the query, the prediction, the results and the messages. Text from the API is set as text
// (textContent, attributes), never as HTML.

import { fileUrl } from "./api.js";
import { currentKey, keyHeaders } from "./api_key.js";
import { byId, el } from "./dom.js";
import { labelOf, percent, predictionNote, voteText } from "./text.js";

const PIXELATED_BELOW = 128; // pixels; smoothing only blurs an enlarged picture this small

export function picture(url, alt) {
  const image = el("img", { alt, draggable: false, decoding: "async" });
  image.addEventListener("load", () => {
    image.classList.toggle("pixelated", image.naturalWidth < PIXELATED_BELOW);
  });
  // The server reads formats that browsers do not show.
  image.addEventListener("error", () => {
    image.replaceWith(el("span", { className: "no-preview", textContent: "No preview" }));
  });
  load(image, url);
  return image;
}

/** Loads `url` into the image; with fetch where a key is set, as <img> cannot send one. */
async function load(image, url) {
  if (currentKey() === null || !url.startsWith("/")) {
    image.src = url;
    return;
  }
  try {
    const response = await fetch(url, { headers: keyHeaders() });
    if (!response.ok) throw new Error(String(response.status));
    const blobUrl = URL.createObjectURL(await response.blob());
    const revoke = () => URL.revokeObjectURL(blobUrl);
    image.addEventListener("load", revoke, { once: true });
    image.addEventListener("error", revoke, { once: true });
    image.src = blobUrl;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

const TOP_CLASSES = 5;
const LISTED = 20; // the API lists no more

export function drawPrediction(prediction, expanded, labels) {
  byId("prediction").hidden = !prediction;
  if (!prediction) return;
  const none = prediction.class === null;
  byId("predicted-class").textContent = prediction.class ?? "None of these";
  byId("confidence").textContent = none ? "" : `${percent(prediction.confidence)} confidence`;
  byId("prediction-note").textContent = predictionNote(prediction, labels);
  // What the classes would be, if it were one of them, means little.
  const sorted = none
    ? []
    : Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  const shown = expanded ? sorted : sorted.slice(0, TOP_CLASSES);
  byId("probabilities").replaceChildren(
    ...shown.map(([name, p]) => {
      const fill = el("span", { className: "fill" });
      fill.style.width = `${100 * p}%`;
      const track = el("span", { className: "track" }, fill);
      track.setAttribute("aria-hidden", "true");
      return el(
        "li",
        { className: name === prediction.nearest_class ? "first" : "" },
        el("span", { className: "name", textContent: name, title: name }),
        track,
        el("span", { className: "number", textContent: percent(p) }),
      );
    }),
  );
  const toggle = byId("all-classes");
  toggle.hidden = sorted.length <= TOP_CLASSES;
  toggle.textContent = expanded
    ? `Show the top ${TOP_CLASSES}`
    : `Show ${sorted.length < LISTED ? "all" : "the top"} ${sorted.length} classes`;
  toggle.setAttribute("aria-expanded", String(expanded));
}

export function drawVote(vote, points) {
  byId("vote").hidden = !vote;
  if (!vote) return;
  byId("vote").replaceChildren(voteText(vote, points), el("strong", { textContent: vote.class }));
}

function exampleToggle(point, sign, { signOf, onToggle }) {
  const action = sign > 0 ? "More like" : "Less like";
  const button = el("button", {
    type: "button",
    className: "example-toggle",
    textContent: sign > 0 ? "+" : "\u2212",
    title: `${action} this`,
  });
  button.dataset.sign = String(sign);
  button.setAttribute("aria-label", `${action} picture ${point.id}`);
  button.setAttribute("aria-pressed", String(signOf(point.id) === sign));
  button.addEventListener("click", () => onToggle(point, sign));
  return button;
}

/** One neighbour: a link to more like it, its label, score and split, and its example buttons. */
export function neighbourCard(point, { reference, queryId, ...examples }) {
  const label = labelOf(point);
  const name = label ?? "no label";
  const labelClass = label === null ? "label muted" : "label";
  const differs = reference !== null && label !== null && label !== reference;
  const isQuery = point.id === queryId;
  const image = picture(point.image_url, "");
  image.loading = "lazy";
  const link = el(
    "a",
    { href: `#id=${point.id}`, title: point.payload?.source ?? "" },
    image,
    differs ? el("span", { className: "tag", textContent: "other label" }) : null,
    isQuery ? el("span", { className: "tag same", textContent: "your query" }) : null,
  );
  const facts = [name, `picture ${point.id}`, `score ${point.score.toFixed(3)}`];
  if (differs) facts.push(`label other than ${reference}`);
  if (isQuery) facts.push("the picture you searched with");
  link.setAttribute("aria-label", `More like this: ${facts.join(", ")}`);
  const card = el(
    "li",
    { className: differs ? "point differs" : "point" },
    link,
    el(
      "div",
      { className: "line" },
      el("span", { className: labelClass, textContent: name, title: name }),
      el("span", { className: "score", textContent: point.score.toFixed(3) }),
    ),
    el(
      "div",
      { className: "line" },
      el("span", { className: "split", textContent: point.payload?.split ?? "" }),
      el(
        "span",
        { className: "pair" },
        exampleToggle(point, 1, examples),
        exampleToggle(point, -1, examples),
      ),
    ),
  );
  card.dataset.id = String(point.id);
  return card;
}

function exampleChip(id, { sign, label }, onRemove) {
  const name = label === null ? `#${id}` : `${label} #${id}`;
  const remove = el("button", { type: "button", className: "remove", textContent: "\u00d7" });
  remove.setAttribute("aria-label", `Remove ${name}`);
  remove.addEventListener("click", () => onRemove(id));
  const action = sign > 0 ? "more like" : "less like";
  return el(
    "li",
    { className: sign > 0 ? "chip" : "chip less-like" },
    el("span", { textContent: sign > 0 ? "+" : "\u2212", ariaHidden: "true" }),
    el("span", { className: "visually-hidden", textContent: action }),
    picture(fileUrl(id), ""),
    name,
    remove,
  );
}

/**
 * The examples as chips and as pressed buttons; `examples` maps id -> {sign, label}. An uploaded
 * picture counts as a positive example, so that negative ones are enough.
 */
export function drawExamples(examples, onRemove, hasUpload) {
  byId("examples").hidden = examples.size === 0;
  byId("chips").replaceChildren(
    ...[...examples].map(([id, example]) => exampleChip(id, example, onRemove)),
  );
  const hasPositive = [...examples.values()].some(({ sign }) => sign > 0);
  byId("recommend").disabled = !hasPositive && !hasUpload;
  const hint = hasUpload ? "Finds more pictures like yours." : "Press + on at least one picture.";
  byId("examples-hint").textContent = hasPositive ? "" : hint;
  for (const button of document.querySelectorAll("#points .example-toggle")) {
    const id = Number(button.closest(".point").dataset.id);
    const pressed = examples.get(id)?.sign === Number(button.dataset.sign);
    button.setAttribute("aria-pressed", String(pressed));
  }
}

export function drawSamples(points) {
  byId("sample-list").replaceChildren(
    ...points.map((point) => {
      const name = labelOf(point) ?? `#${point.id}`;
      const link = el("a", { href: `#try=${point.id}` }, picture(point.image_url, ""), name);
      link.setAttribute("aria-label", `Search with a sample picture: ${name}`);
      return el("li", {}, link);
    }),
  );
}

export function clearError() {
  byId("error").replaceChildren();
}

/** Shows the message in the alert region, with a "Try again" button where `retry` is given. */
export function showError(message, retry = null) {
  const button = retry && el("button", { type: "button", textContent: "Try again" });
  button?.addEventListener("click", () => retry());
  byId("error").replaceChildren(
    el("p", { className: "error" }, el("span", { textContent: message }), button),
  );
  announce("");
}

/** For screen readers only; the page shows the same elsewhere. */
export function announce(text) {
  byId("announce").textContent = text;
}

export function setBusy(busy) {
  byId("loading").hidden = !busy;
  byId("workspace").setAttribute("aria-busy", String(busy));
}
