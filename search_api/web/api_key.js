// The API key, where the server requires one: requested in a dialog, kept until the tab is closed.

import { byId } from "./dom.js";

const STORAGE_KEY = "lookalike-key";
let openDialog = null; // the promise of the dialog that is open

/** The key to send, or null. */
export const currentKey = () => sessionStorage.getItem(STORAGE_KEY);

export function keyHeaders() {
  const key = currentKey();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** Asks the user for a key; true once there is a new one. Concurrent calls share one dialog. */
export function requestKey(reason) {
  openDialog ??= showDialog(reason).finally(() => {
    openDialog = null;
  });
  return openDialog;
}

function showDialog(reason) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  byId("key-reason").textContent = reason;
  input.value = "";
  dialog.returnValue = ""; // closing with Escape leaves it as it is
  // Not a submit button: Enter presses the first of those.
  byId("key-cancel").onclick = () => dialog.close("");
  dialog.showModal();
  return new Promise((resolve) => {
    const close = () => {
      const key = input.value.trim();
      input.value = "";
      const given = dialog.returnValue === "use" && key !== "";
      if (given) sessionStorage.setItem(STORAGE_KEY, key);
      resolve(given);
    };
    dialog.addEventListener("close", close, { once: true });
  });
}
