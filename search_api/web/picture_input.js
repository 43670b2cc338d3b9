// The ways to give the page a picture: choose a file, drop it anywhere, or paste it.

import { byId } from "./dom.js";
import { showError } from "./view.js";

// Of these, many browsers know no type.
const ENDINGS = /\.(heic|heics|heif|heifs|hif|avif|avifs|jp2|j2k|j2c|jpc|jpf|jpx|jfif|jpe|tiff?|ico|dib|p[bgpnf]m)$/i;

function isPicture(file) {
  return file.type.startsWith("image/") || ENDINGS.test(file.name);
}

/** Calls `onPicture(file)` with the first picture of each choice, drop or paste. */
export function listenForPictures(onPicture) {
  const takeFirst = (list) => {
    const files = [...(list ?? [])];
    const file = files.find(isPicture) ?? files[0];
    if (file) onPicture(file);
    return file !== undefined;
  };

  byId("file").addEventListener("change", (event) => {
    takeFirst(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });

  document.addEventListener("paste", (event) => {
    if (takeFirst(event.clipboardData?.files)) event.preventDefault();
  });

  const overlay = byId("drop-overlay");
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // otherwise the browser opens the file instead of the page
    overlay.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) overlay.hidden = true; // left the window, not an element
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    overlay.hidden = true;
    if (!takeFirst(event.dataTransfer?.files)) {
      showError("That is not a file. Save the picture first, then drop the file here.");
    }
  });
}
