/** Jobs in plain words. */

import { isOver } from "./job-events.js";

const KINDS = { image: "Images", video: "Video", speech: "Speech", transcription: "Transcript" };
const STATES = {
  queued: "Waiting",
  running: "Running",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};

export function kindInWords(job) {
  return KINDS[job.type] ?? job.type;
}

export function stateInWords(job) {
  if (job.cancel_requested && !isOver(job)) return "Cancelling…";
  return STATES[job.status] ?? job.status;
}

/** What there is to say of a job that is not over: its place in the queue, or how far it is. */
export function progressInWords(job) {
  if (job.status === "queued") return queueInWords(job.queue);
  if (job.status !== "running" || !job.progress) return "";
  const { done, total, unit, stage } = job.progress;
  if (stage) return stageInWords(job.progress);
  if (unit === "bytes") return `${sizeInWords(done)} so far`;
  if (unit === "seconds") return total ? `${time(done)} of ${time(total)}` : `${time(done)} so far`;
  return total ? `${done} of ${total} ${unit}` : "";
}

function stageInWords({ stage, step, steps, frame, frames }) {
  if (stage === "denoising") return `Step ${step} of ${steps}`;
  return stage === "decoding" ? `Frame ${frame} of ${frames}` : "Made elsewhere, nobody knows how far";
}

function queueInWords(queue) {
  if (!queue) return "";
  const place = queue.position === 1 ? "Next in line" : `Number ${queue.position} in line`;
  return queue.eta_seconds === null ? place : `${place}, begins in about ${time(queue.eta_seconds)}`;
}

/** Which attempt it is if it is not the first, and why the last one failed. */
export function attemptInWords(job) {
  if (isOver(job)) return job.attempt > 1 ? `Took ${job.attempt} attempts.` : "";
  if (!job.failures) return job.attempt > 1 ? `Attempt ${job.attempt}.` : "";
  const reason = job.error?.message ? ` The one before: ${job.error.message}` : "";
  return `Attempt ${job.status === "queued" ? job.attempt + 1 : job.attempt}.${reason}`;
}

/** What ended a job that did not end well, as the server words it. */
export function failureInWords(job) {
  if (job.status === "expired") return "It waited too long for its turn.";
  return job.status === "failed" ? job.error?.message || "The server does not say why." : "";
}

/** How long ago a moment was, both in Unix seconds. */
export function ageInWords(moment, now) {
  const seconds = Math.max(0, now - moment);
  if (seconds < 60) return "just now";
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  const days = Math.floor(seconds / 86_400);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

export function sizeInWords(bytes) {
  if (bytes < 1_000) return `${bytes} bytes`;
  return bytes < 1_000_000 ? `${Math.round(bytes / 1_000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}

function time(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}
