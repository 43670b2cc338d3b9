// A query: how it is written in the address, how it is asked, how it is described.
//
//   {kind: "upload", file, url}              a picture of the user's; kept in memory only
//   {kind: "try", id}            #try=12     a picture of the corpus, searched as if uploaded
//   {kind: "similar", id}        #id=12      the neighbours of a picture of the corpus
//   {kind: "recommend", ...}     #like=1,2&unlike=3; #unlike=3 together with a picture of the user's

import * as api from "./api.js";
import { labelOf } from "./view.js";

const uploads = []; // pictures of this visit, so that "back" can return to them

/** Keeps a picture and returns the history state that leads back to it. */
export function keepUpload(file) {
  uploads.push({ kind: "upload", file, url: URL.createObjectURL(file) });
  return { upload: uploads.length - 1 };
}

const isId = (text) => /^\d+$/.test(text ?? "");
const parseIds = (text) => (text ?? "").split(",").filter(isId).map(Number);

/** The query that the address names; null for the start page, undefined for another anchor. */
export function parseAddress(hash, historyState) {
  if (hash === "" || hash === "#") {
    if (historyState?.upload === undefined) return null;
    return uploads[historyState.upload] ?? { kind: "lost" };
  }
  const values = new URLSearchParams(hash.slice(1));
  if (isId(values.get("id"))) return { kind: "similar", id: Number(values.get("id")) };
  if (isId(values.get("try"))) return { kind: "try", id: Number(values.get("try")) };
  const positive = parseIds(values.get("like"));
  const negative = parseIds(values.get("unlike"));
  if (positive.length) return { kind: "recommend", positive, negative };
  if (!negative.length || historyState?.upload === undefined) return undefined;
  const upload = uploads[historyState.upload];
  return upload ? { kind: "recommend", positive, negative, upload } : { kind: "lost" };
}

export function examplesAddress(positive, negative) {
  const parts = [];
  if (positive.length) parts.push(`like=${positive.join(",")}`);
  if (negative.length) parts.push(`unlike=${negative.join(",")}`);
  return `#${parts.join("&")}`;
}

/** The picture of the user's that the query is about, or null. */
export const uploadOf = (query) =>
  query?.kind === "upload" ? query : (query?.kind === "recommend" && query.upload) || null;

/** The history state that leads back to it. */
export function uploadState(query) {
  const upload = uploadOf(query);
  return upload ? { upload: uploads.indexOf(upload) } : null;
}

/** One page of the query's neighbours, as the API answers. */
export async function ask(query, page, signal) {
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

/** The stored facts of the picture that is searched by, or null where there is no such picture. */
export async function findSubject(query, signal) {
  if (query.kind !== "similar" && query.kind !== "try") return null;
  query.subject ??= await api.getImage(query.id, signal);
  return query.subject;
}

const fileUrl = (id) => `/v1/images/${id}/file`;
const hashes = (ids) => ids.map((id) => `#${id}`).join(", ");

/** {title, text, pictures: [[url, alternative text]]} for the query panel. */
export function describe(query) {
  if (query.kind === "upload") {
    return { title: "Your picture", text: query.file.name, pictures: [[query.url, "Your picture"]] };
  }
  if (query.kind === "recommend") {
    const less = query.negative.length ? `; less like ${hashes(query.negative)}` : "";
    const like = query.upload ? "your picture" : hashes(query.positive);
    const stored = query.positive.map((id) => [fileUrl(id), `Picture ${id}`]);
    return {
      title: "Search by examples",
      text: `More like ${like}${less}`,
      pictures: query.upload ? [[query.upload.url, "Your picture"]] : stored,
    };
  }
  const label = query.subject ? labelOf(query.subject) : null;
  const name = label === null ? `Picture ${query.id}` : `${label}, picture ${query.id}`;
  const source = query.subject?.payload?.source;
  return {
    title: query.kind === "try" ? "Sample picture" : "More like this",
    text: source ? `${name} (${source})` : name,
    pictures: [[fileUrl(query.id), name]],
  };
}
