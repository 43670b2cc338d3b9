// The API key, where the server wants one: asked for in a dialog, kept until the tab is closed.

import { byId } from "./view.js";

const NAME = "lookalike-key";
let asking = null; // the promise of the dialog that is open

/** The key to send, or null. */
export const currentKey = () => sessionStorage.getItem(NAME);

export const keyHeaders = () => {
  const key = currentKey();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
};

/** Asks for a key, saying why; true once there is a new one. Several askers share one dialog. */
export function askForKey(why) {
  asking ??= ask(why).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(why) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  byId("key-why").textContent = why;
  input.value = "";
  dialog.returnValue = ""; // what closing by Escape leaves
  // Not a submit button: the first of those is what Enter presses.
  byId("key-cancel").onclick = () => dialog.close("");
  dialog.showModal();
  return new Promise((resolve) => {
    const close = () => {
      const key = input.value.trim();
      input.value = "";
      const given = dialog.returnValue === "use" && key !== "";
      if (given) sessionStorage.setItem(NAME, key);
      resolve(given);
    };
    dialog.addEventListener("close", close, { once: true });
  });
}

/** Shows the picture at `url`; <img> alone cannot send a key, so with one it is fetched. */
export async function showPicture(image, url) {
  if (currentKey() === null || !url.startsWith("/")) {
    image.src = url;
    return;
  }
  try {
    const response = await fetch(url, { headers: keyHeaders() });
    if (!response.ok) throw new Error(String(response.status));
    const local = URL.createObjectURL(await response.blob());
    const forget = () => URL.revokeObjectURL(local);
    image.addEventListener("load", forget, { once: true });
    image.addEventListener("error", forget, { once: true });
    image.src = local;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}
