// @ts-check
// One generation's events. The server keeps them as a numbered log, so a page that was closed, reloaded or cut off
// asks for what came after the last number it saw, and misses nothing.

const LONGEST_WAIT_MILLISECONDS = 8000;
const MOST_ATTEMPTS = 8;

/**
 * @typedef {object} StreamListener
 * @property {(text: string) => void} text more text at the end
 * @property {(html: string) => void} html the whole answer so far, rendered
 * @property {(result: Record<string, any>, wasResumed: boolean) => void} done the whole answer; pieces of its text may
 *   have been missed when the connection had to be taken up again
 * @property {(message: string) => void} error the generation failed, or can no longer be reached
 */

/**
 * Follow a generation from its first event until it is done. Returns a function that stops listening (not generating).
 * @param {string} id
 * @param {StreamListener} listener
 * @returns {() => void}
 */
export function followGeneration(id, listener) {
  let after = "";
  let attempts = 0;
  let wasResumed = false;
  let timer = 0;
  /** @type {EventSource|null} */
  let source = null;

  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };

  /** @param {string} name @param {(data: any) => void} act */
  const on = (name, act) =>
    source?.addEventListener(name, (event) => {
      if (!(event instanceof MessageEvent)) return;
      if (event.lastEventId) after = event.lastEventId;
      attempts = 0;
      act(JSON.parse(event.data));
    });

  const open = () => {
    source = new EventSource(`/api/generations/${id}/events${after ? `?after=${encodeURIComponent(after)}` : ""}`);
    on("text", (data) => listener.text(data.text));
    on("html", (data) => listener.html(data.html));
    on("done", (data) => {
      close();
      listener.done(data, wasResumed);
    });
    source.addEventListener("error", (event) => {
      if (event instanceof MessageEvent) {
        close();
        listener.error(JSON.parse(event.data).message);
      } else {
        retry();
      }
    });
  };

  // The browser's own reconnection gives up at the first refused connection; this one waits for a restart.
  const retry = () => {
    source?.close();
    attempts += 1;
    wasResumed = true;
    if (attempts > MOST_ATTEMPTS) {
      close();
      listener.error("The connection was lost and could not be taken up again.");
      return;
    }
    timer = window.setTimeout(open, Math.min(LONGEST_WAIT_MILLISECONDS, 250 * 2 ** attempts));
  };

  open();
  return close;
}
