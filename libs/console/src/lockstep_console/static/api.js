// What is asked of the console's process: only GET, only this origin. The token stays in this module's memory.

let token = "";

/** Take the token out of the address, so that neither history nor a copied link holds it. */
export function takeToken() {
  const match = /^#token=([^&/]+)(\/.*)?$/.exec(location.hash);
  if (!match) return;
  token = decodeURIComponent(match[1]);
  history.replaceState(null, "", `#${match[2] || "/"}`);
}

/** Use a token that a person typed. */
export function useToken(typed) {
  token = typed.trim();
}

/** A refusal, in the service's words: reason, message, next. */
export class Refusal extends Error {
  constructor(told) {
    super(told.message || "the console does not answer");
    this.reason = told.reason || "UNREACHABLE";
    this.next = told.next || "see whether the console still runs; it is asked again by itself";
  }
}

async function ask(path, { signal, headers = {} } = {}) {
  const shown = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  let answer;
  try {
    answer = await fetch(path, { signal, headers: shown, credentials: "omit", redirect: "error", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({});
  }
  if (!answer.ok) throw new Refusal(await answer.json().catch(() => ({})));
  return answer;
}

/** An answer that has not come by then was lost on the way; the console itself gives up on a service before. */
const ANSWER_MAX = 150_000;

/** A document. Throws Refusal. */
export async function get(path, signal) {
  const answer = await ask(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MAX)]) });
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({});
  }
}

const PAUSE_MAX = 10_000;
const SILENCE_MAX = 30_000;
/** What another try with the same question does not change. */
const FINAL = new Set(["TOKEN_REQUIRED", "HOST_UNKNOWN", "FIELD_INVALID", "PLAN_NOT_FOUND"]);

/**
 * Follow a stream of events for as long as the signal lets it, over lost connections: the last cursor is shown again, so that nothing is missed.
 * `take(event, document)` returns true to end it; `lost(refusal)` is told each time that the stream is gone.
 */
export async function follow(path, signal, take, lost) {
  let cursor = "";
  let failures = 0;
  while (!signal.aborted) {
    const silence = new AbortController();
    const stop = () => silence.abort();
    signal.addEventListener("abort", stop);
    let timer = setTimeout(stop, SILENCE_MAX);
    try {
      const headers = cursor ? { "Last-Event-ID": cursor } : {};
      const answer = await ask(path, { signal: silence.signal, headers });
      for await (const { event, id, data } of events(answer.body)) {
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE_MAX);
        failures = 0;
        if (id) cursor = id;
        if (take(event, data)) return;
      }
      lost(new Refusal({ message: "the stream ended" }));
    } catch (error) {
      if (signal.aborted) return;
      const refusal = error instanceof Refusal ? error : new Refusal({ message: "the stream was lost" });
      lost(refusal);
      if (FINAL.has(refusal.reason)) return;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
    failures += 1;
    await paused(Math.min(500 * 2 ** failures, PAUSE_MAX) * (0.5 + Math.random() / 2), signal);
  }
}

function paused(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/** The events of a body (HTML standard, server-sent events; one line of data each). */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => {
          const colon = line.indexOf(": ");
          return [line.slice(0, colon), line.slice(colon + 2)];
        }));
        yield { event: fields.event, id: fields.id, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
