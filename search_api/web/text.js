// How values read on the page: numbers, sizes, times, labels. No DOM.

export const count = (n) => n.toLocaleString("en");

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** One decimal; "100.0%" and "0.0%" only when exact. */
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

/** With a capital and a full stop; the server's messages have neither. */
export function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}

/** Milliseconds in all and by stage: "11.0 ms (forward 7.1, search 3.0)". */
export function timeText(time) {
  const stages = Object.entries(time).filter(([name]) => name !== "total");
  const detail = stages.map(([name, ms]) => `${name} ${ms.toFixed(1)}`).join(", ");
  return `${time.total.toFixed(1)} ms${detail ? ` (${detail})` : ""}`;
}

const VOTE_SIZE = 10; // the API's vote counts the ten nearest

/** "9 of 10 neighbours are labelled ", or a percentage where the points do not give the share. */
export function voteText(vote, points) {
  const labelled = points.slice(0, VOTE_SIZE).filter((point) => labelOf(point) !== null);
  const agree = labelled.filter((point) => labelOf(point) === vote.class).length;
  if (labelled.length > 0 && Math.abs(agree / labelled.length - vote.share) < 0.005) {
    const verb = agree === 1 ? "is" : "are";
    return `${agree} of ${plural(labelled.length, "neighbour")} ${verb} labelled `;
  }
  return `${percent(vote.share)} of the nearest neighbours are labelled `;
}

/** "Unlike most stored pictures; the nearest class is tabby. These are the model's classes." */
export function predictionNote({ class: label, nearest_class: nearest, grade }, labels) {
  const compared = grade.charAt(0).toUpperCase() + grade.slice(1);
  const like = label === null ? `${compared}; the nearest class is ${nearest}.` : `${compared}.`;
  return nearest in labels ? like : `${like} These are the model's classes, not your labels.`;
}
