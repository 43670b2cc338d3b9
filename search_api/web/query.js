// A query: its form in the address, the request that runs it, its description.
//
//   {kind: "upload", file, url}              an uploaded picture; kept in memory only
//   {kind: "sample", id}         #try=12     a picture of the corpus, searched as if uploaded
//   {kind: "similar", id}        #id=12      the neighbours of a picture of the corpus
//   {kind: "recommend", ...}     #like=1,2&unlike=3; #unlike=3 alone goes with an uploaded picture

import * as api from "./api.js";
import { labelOf } from "./text.js";

const uploads = []; // pictures of this visit, so that "back" can return to them

/** Keeps a picture and returns the history state that leads back to it. */
export function keepUpload(file) {
  uploads.push({ kind: "upload", file, url: URL.createObjectURL(file) });
  return { upload: uploads.length - 1 };
}

const isId = (text) => /^\d+$/.test(text ?? "");
const parseIds = (text) => (text ?? "").split(",").filter(isId).map(Number);

/** The query in the address; null for the start page, undefined for an anchor within the page. */
export function parseAddress(hash, historyState) {
  if (hash === "" || hash === "#") {
    if (historyState?.upload === undefined) return null;
    return uploads[historyState.upload] ?? { kind: "lost" };
  }
  const values = new URLSearchParams(hash.slice(1));
  if (isId(values.get("id"))) return { kind: "similar", id: Number(values.get("id")) };
  if (isId(values.get("try"))) return { kind: "sample", id: Number(values.get("try")) };
  const positive = parseIds(values.get("like"));
  const negative = parseIds(values.get("unlike"));
  if (positive.length) return { kind: "recommend", positive, negative };
  if (!negative.length || historyState?.upload === undefined) return undefined;
  const upload = uploads[historyState.upload];
  return upload ? { kind: "recommend", positive, negative, upload } : { kind: "lost" };
}

export function recommendAddress(positive, negative) {
  const parts = [];
  if (positive.length) parts.push(`like=${positive.join(",")}`);
  if (negative.length) parts.push(`unlike=${negative.join(",")}`);
  return `#${parts.join("&")}`;
}

/** The uploaded picture that the query uses, or null. */
export const uploadOf = (query) =>
  query?.kind === "upload" ? query : (query?.kind === "recommend" && query.upload) || null;

/** The history state that leads back to that picture. */
export function uploadState(query) {
  const upload = uploadOf(query);
  return upload ? { upload: uploads.indexOf(upload) } : null;
}

/** Requests one page of the query's neighbours. */
export async function search(query, page, signal) {
  if (query.kind === "similar") return api.searchSimilar(query.id, page, signal);
  if (query.kind === "recommend" && query.upload) {
    return api.recommendByPicture(query.upload.file, query.negative, page, signal);
  }
  if (query.kind === "recommend") {
    return api.recommend(query.positive, query.negative, page, signal);
  }
  query.file ??= await api.getImageFile(query.id, signal);
  return api.searchByPicture(query.file, page, signal);
}

/** Loads the point of the query's picture into `query.point`, if it is a picture of the corpus. */
export async function loadPoint(query, signal) {
  if (query.kind !== "similar" && query.kind !== "sample") return;
  query.point ??= await api.getImage(query.id, signal);
}

const hashes = (ids) => ids.map((id) => `#${id}`).join(", ");

/** {title, text, pictures: [[url, alternative text]]} for the query panel. */
export function describe(query) {
  if (query.kind === "upload") {
    const title = "Your picture";
    return { title, text: query.file.name, pictures: [[query.url, title]] };
  }
  if (query.kind === "recommend") {
    const less = query.negative.length ? `; less like ${hashes(query.negative)}` : "";
    const like = query.upload ? "your picture" : hashes(query.positive);
    const stored = query.positive.map((id) => [api.fileUrl(id), `Picture ${id}`]);
    return {
      title: "Search by example",
      text: `More like ${like}${less}`,
      pictures: query.upload ? [[query.upload.url, "Your picture"]] : stored,
    };
  }
  const label = query.point ? labelOf(query.point) : null;
  const name = label === null ? `Picture ${query.id}` : `${label}, picture ${query.id}`;
  const source = query.point?.payload?.source;
  return {
    title: query.kind === "sample" ? "Sample picture" : "More like this",
    text: source ? `${name} (${source})` : name,
    pictures: [[api.fileUrl(query.id), name]],
  };
}
