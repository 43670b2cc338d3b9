// Drawing. Everything from the API goes in as text (textContent, attributes), never as HTML.

import { showPicture } from "./key.js";

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; strings become text nodes, null is left out. */
export function el(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const count = (n) => n.toLocaleString("en");

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** One decimal, and never a rounded "100.0%" or "0.0%" for what is not. */
export function percent(p) {
  if (p > 0.999 && p < 1) return ">99.9%";
  if (p > 0 && p < 0.001) return "<0.1%";
  return `${(100 * p).toFixed(1)}%`;
}

export function bytes(n) {
  if (n >= 1024 * 1024) return `${+(n / 1024 / 1024).toFixed(1)} MB`;
  if (n >= 1024) return `${+(n / 1024).toFixed(1)} kB`;
  return plural(n, "byte");
}

export const shortDigest = (digest) => digest.replace(/^sha256:/, "").slice(0, 8);

export const labelOf = (point) => point.payload?.label ?? null;

const SMALL = 128; // pixels; below this, smoothing an enlarged picture only blurs it

export function picture(src, alt) {
  const image = el("img", { alt, draggable: false, decoding: "async" });
  image.addEventListener("load", () => {
    image.classList.toggle("pixelated", image.naturalWidth < SMALL);
  });
  // Some formats that the server reads, the browser does not.
  image.addEventListener("error", () => {
    image.replaceWith(el("span", { className: "no-preview", textContent: "No preview" }));
  });
  showPicture(image, src);
  return image;
}

const hiddenText = (text) => el("span", { className: "visually-hidden", textContent: text });

const TOP_CLASSES = 5;

export function drawPrediction(prediction, expanded) {
  byId("prediction").hidden = !prediction;
  if (!prediction) return;
  byId("predicted-class").textContent = prediction.class;
  byId("confidence").textContent = `${percent(prediction.confidence)} confidence`;
  const sorted = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  const shown = expanded ? sorted : sorted.slice(0, TOP_CLASSES);
  byId("probabilities").replaceChildren(
    ...shown.map(([name, p]) => {
      const fill = el("span", { className: "fill" });
      fill.style.width = `${100 * p}%`;
      const track = el("span", { className: "track" }, fill);
      track.setAttribute("aria-hidden", "true");
      return el(
        "li",
        { className: name === prediction.class ? "first" : "" },
        el("span", { className: "name", textContent: name, title: name }),
        track,
        el("span", { className: "number", textContent: percent(p) }),
      );
    }),
  );
  const toggle = byId("all-classes");
  toggle.hidden = sorted.length <= TOP_CLASSES;
  toggle.textContent = expanded ? `Show the top ${TOP_CLASSES}` : `Show all ${sorted.length} classes`;
  toggle.setAttribute("aria-expanded", String(expanded));
}

const VOTERS = 10; // the API's vote is of the ten nearest

/** "9 of 10 neighbours say cat" where that count gives the share, or else the share itself. */
export function voteText(vote, points) {
  const labelled = points.slice(0, VOTERS).filter((point) => labelOf(point) !== null);
  const agree = labelled.filter((point) => labelOf(point) === vote.class).length;
  const plain = labelled.length > 0 && Math.abs(agree / labelled.length - vote.share) < 0.005;
  if (plain) return [`${agree} of ${plural(labelled.length, "neighbour")} say `, vote.class];
  return [`${percent(vote.share)} of the neighbours' vote is for `, vote.class];
}

export function drawVote(vote, points) {
  byId("vote").hidden = !vote;
  if (!vote) return;
  const [words, name] = voteText(vote, points);
  byId("vote").replaceChildren(words, el("strong", { textContent: name }));
}

function markButton(point, sign, handlers) {
  const words = sign > 0 ? "More like" : "Less like";
  const button = el("button", {
    type: "button",
    className: "mark",
    textContent: sign > 0 ? "+" : "\u2212",
    title: `${words} this`,
  });
  button.dataset.sign = String(sign);
  button.setAttribute("aria-label", `${words} picture ${point.id}`);
  button.setAttribute("aria-pressed", String(handlers.signOf(point.id) === sign));
  button.addEventListener("click", () => handlers.mark(point, sign));
  return button;
}

/** One neighbour: a link that searches by it, its facts, and the two marks. */
export function neighbour(point, { reference, queryId, ...handlers }) {
  const label = labelOf(point);
  const name = label ?? "no label";
  const differs = reference !== null && label !== null && label !== reference;
  const image = picture(point.image_url, "");
  image.loading = "lazy";
  const link = el(
    "a",
    { href: `#id=${point.id}`, title: point.payload?.source ?? "" },
    image,
    differs ? el("span", { className: "tag", textContent: "differs" }) : null,
    point.id === queryId ? el("span", { className: "tag same", textContent: "this one" }) : null,
  );
  const facts = [name, `picture ${point.id}`, `score ${point.score.toFixed(3)}`];
  if (differs) facts.push(`differs from ${reference}`);
  if (point.id === queryId) facts.push("the picture that is searched by");
  link.setAttribute("aria-label", `More like this: ${facts.join(", ")}`);
  const item = el(
    "li",
    { className: differs ? "point differs" : "point" },
    link,
    el(
      "div",
      { className: "line" },
      el("span", { className: label === null ? "label muted" : "label", textContent: name, title: name }),
      el("span", { className: "score", textContent: point.score.toFixed(3) }),
    ),
    el(
      "div",
      { className: "line" },
      el("span", { className: "split", textContent: point.payload?.split ?? "" }),
      el("span", { className: "pair" }, markButton(point, 1, handlers), markButton(point, -1, handlers)),
    ),
  );
  item.dataset.id = String(point.id);
  return item;
}

/** The marked pictures as chips; `marks` maps id -> {sign, label}. With a picture of the user's,
 * `upload`, pictures marked as unlike are enough to search by. */
export function drawMarks(marks, unmark, upload) {
  byId("marks").hidden = marks.size === 0;
  byId("chips").replaceChildren(
    ...[...marks].map(([id, { sign, label }]) => {
      const name = label === null ? `#${id}` : `${label} #${id}`;
      const remove = el("button", { type: "button", className: "remove", textContent: "\u00d7" });
      remove.setAttribute("aria-label", `Remove ${name}`);
      remove.addEventListener("click", () => unmark(id));
      return el(
        "li",
        { className: sign > 0 ? "chip more-like" : "chip less-like" },
        el("span", { textContent: sign > 0 ? "+" : "\u2212", ariaHidden: "true" }),
        hiddenText(sign > 0 ? "more like" : "less like"),
        picture(`/v1/images/${id}/file`, ""),
        name,
        remove,
      );
    }),
  );
  const positive = [...marks.values()].some(({ sign }) => sign > 0);
  byId("recommend").disabled = !positive && !upload;
  const hint = upload ? "More like your picture." : "Mark at least one picture with +.";
  byId("marks-hint").textContent = positive ? "" : hint;
  for (const button of document.querySelectorAll("#points .mark")) {
    const id = Number(button.closest(".point").dataset.id);
    const pressed = marks.get(id)?.sign === Number(button.dataset.sign);
    button.setAttribute("aria-pressed", String(pressed));
  }
}

/** "12 neighbours in 11.0 ms (encode 7.1, search 3.0)". */
export function timeText(time) {
  const parts = Object.entries(time).filter(([name]) => name !== "total");
  const detail = parts.map(([name, ms]) => `${name} ${ms.toFixed(1)}`).join(", ");
  return `${time.total.toFixed(1)} ms${detail ? ` (${detail})` : ""}`;
}

export function drawExamples(points) {
  byId("example-list").replaceChildren(
    ...points.map((point) => {
      const name = labelOf(point) ?? `#${point.id}`;
      const link = el("a", { href: `#try=${point.id}` }, picture(point.image_url, ""), name);
      link.setAttribute("aria-label", `Search with a sample picture: ${name}`);
      return el("li", {}, link);
    }),
  );
}

/** Fills a select with [value, text] pairs and keeps what was chosen if it is still there. */
export function fillSelect(select, pairs) {
  const chosen = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, textContent: text })));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}

export function clearError() {
  byId("error").replaceChildren();
}

/** Says what went wrong in the alert region; `retry`, if given, is offered as a button. */
export function showError(message, retry = null) {
  const again = retry && el("button", { type: "button", textContent: "Try again" });
  again?.addEventListener("click", () => retry());
  byId("error").replaceChildren(
    el("p", { className: "error" }, el("span", { textContent: message }), again),
  );
  announce("");
}

/** For screen readers only; what it says is also to be seen elsewhere on the page. */
export function announce(words) {
  byId("announce").textContent = words;
}

export function setBusy(busy) {
  byId("loading").hidden = !busy;
  byId("workspace").setAttribute("aria-busy", String(busy));
}
