/**
 * A job as it changes, from `/v1/jobs/{id}/events`.
 *
 * Over fetch, because an EventSource cannot send an Authorization header, and a key in an address ends up in logs.
 */

import { Problem, request, unreachable } from "./connection.js";

/** Between two attempts to connect: doubled each time. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 2_000;

export function isOver(job) {
  return job.status !== "queued" && job.status !== "running";
}

/**
 * Call `onJob(job)` for every change until the job is over; resolves then, or when `signal` is aborted.
 *
 * A lost connection is taken up again where it was: `onTrouble(problem)` says so, and `onTrouble(null)` that it is over.
 * Throws Problem for what waiting does not mend: the job is gone (404), or the key is wrong (401).
 */
export async function followJob(id, { onJob, onTrouble, signal }) {
  let seen = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const headers = seen ? { "Last-Event-ID": seen } : {};
      const response = await request(`v1/jobs/${id}/events`, { headers, signal });
      onTrouble(null);
      for await (const event of readEvents(response.body)) {
        seen = event.id;
        wait = FIRST_WAIT_MS;
        const job = JSON.parse(event.data);
        onJob(job);
        if (isOver(job)) return;
      }
      // The server ended the stream: it restarts, or the job was deleted, which the next request tells.
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem) || !problem.passing) throw problem;
      onTrouble(problem);
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

/** The server-sent events of a stream of bytes, each {id, name, data}. Throws Problem when the connection breaks. */
async function* readEvents(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event.data) yield event;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw unreachable();
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  const event = { id: "", name: "", data: "" };
  for (const line of block.split("\n")) {
    const [, field, value] = line.match(/^(\w*): ?(.*)$/s) ?? [];
    if (field === "id" || field === "data") event[field] = value;
    else if (field === "event") event.name = value;
  }
  return event;
}

/** Resolves after `milliseconds`, or as soon as `signal` is aborted. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, milliseconds);
    signal.addEventListener("abort", wake);
  });
}
