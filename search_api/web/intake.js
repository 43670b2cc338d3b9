// How a picture reaches the page: chosen, dropped anywhere, or pasted.

import { byId, showError } from "./view.js";

/** Calls `take(file)` with the first picture of each choice, drop or paste. */
export function watchPictures(take) {
  const takeFirst = (list) => {
    const files = [...(list ?? [])];
    const file = files.find((candidate) => candidate.type.startsWith("image/")) ?? files[0];
    if (file) take(file);
    return file !== undefined;
  };

  byId("file").addEventListener("change", (event) => {
    takeFirst(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });

  document.addEventListener("paste", (event) => {
    if (takeFirst(event.clipboardData?.files)) event.preventDefault();
  });

  const veil = byId("drop-veil");
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // or the browser would open the file in place of the page
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) veil.hidden = true; // left the window, not an element
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    veil.hidden = true;
    if (!takeFirst(event.dataTransfer?.files)) {
      showError("What was dropped is not a file. Save the picture first, then drop its file here.");
    }
  });
}
