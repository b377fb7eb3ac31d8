/** One job in the list: made once, and brought up to date as often as the server is asked. */

import { make, say } from "./elements.js";
import { isOver } from "./job-events.js";
import { JobResults } from "./job-results.js";
import {
  ageInWords, attemptInWords, failureInWords, kindInWords, progressInWords, stateInWords,
} from "./job-words.js";

/** How long a second press of Delete counts as meaning it. */
const SURE_MS = 4_000;

export class JobRow {
  element = make("li", { className: "job" });
  #state = make("span", { className: "tag" });
  #model = make("span", { className: "job-model" });
  #age = make("time");
  #title = make("p", { className: "job-title", hidden: true });
  #bar = make("progress");
  #progress = make("span");
  #working = make("p", { className: "job-progress", hidden: true }, this.#bar, this.#progress);
  #note = make("p", { className: "job-note", hidden: true });
  #failure = make("p", { className: "job-failure", hidden: true });
  #results = make("div", { className: "job-results", hidden: true });
  #cancel = make("button", { type: "button", className: "quiet" }, "Cancel");
  #delete = make("button", { type: "button", className: "quiet" }, "Delete");
  #shown = null;
  #sure = 0;
  #job = null;

  /** `onCancel()` and `onDelete()` are called when a person wants that. */
  constructor(job, { onCancel, onDelete }) {
    const kind = make("strong", {}, kindInWords(job));
    this.element.dataset.jobId = job.id;
    this.element.append(
      make("div", { className: "job-head" }, this.#state, kind, this.#model, this.#age),
      make("div", { className: "job-body" },
        make("div", {}, this.#title, this.#working, this.#note, this.#failure, this.#results),
        make("div", { className: "row" }, this.#cancel, this.#delete)),
    );
    this.#cancel.addEventListener("click", onCancel);
    this.#delete.addEventListener("click", () => this.#sure ? onDelete() : this.#askWhetherSure());
  }

  get job() {
    return this.#job;
  }

  /** Show the job as it is at `now` (Unix seconds); `model` is how its model is called. */
  update(job, model, now) {
    if (this.#job && job.revision < this.#job.revision) return;
    // The list of jobs has no places in the queue: the last one known stays until the job is asked for.
    if (!job.queue && job.status === "queued" && this.#job?.status === "queued") job = { ...job, queue: this.#job.queue };
    this.#job = job;
    this.element.dataset.status = job.status;
    say(this.#state, stateInWords(job));
    say(this.#model, model);
    this.#model.title = model;
    say(this.#title, job.metadata.prompt ?? "");
    say(this.#note, attemptInWords(job));
    say(this.#failure, failureInWords(job));
    this.#showAge(now);
    this.#showProgress();
    this.#showResults();
    this.#delete.hidden = !isOver(job);
    // A button that is hidden loses the focus.
    if (isOver(job) && document.activeElement === this.#cancel) this.#delete.focus();
    this.#cancel.hidden = isOver(job);
  }

  #showAge(now) {
    const { created_at: created } = this.#job;
    say(this.#age, ageInWords(created, now));
    if (this.#age.dateTime) return;
    const moment = new Date(created * 1000);
    this.#age.dateTime = moment.toISOString();
    this.#age.title = moment.toLocaleString();
  }

  #showProgress() {
    const { status, progress } = this.#job;
    const words = progressInWords(this.#job);
    this.#working.hidden = isOver(this.#job) || (status === "queued" && !words);
    this.#progress.textContent = words;
    this.#bar.hidden = status !== "running";
    this.#bar.setAttribute("aria-label", "Progress of the job");
    if (progress?.total) Object.assign(this.#bar, { max: progress.total, value: progress.done });
    else this.#bar.removeAttribute("value");
  }

  #showResults() {
    if (this.#job.status !== "succeeded") return;
    if (this.#shown) this.#shown.refresh(this.#job);
    else this.#shown = new JobResults(this.#results, this.#job);
  }

  #askWhetherSure() {
    this.#delete.textContent = "Delete for good?";
    this.#sure = setTimeout(() => {
      this.#sure = 0;
      this.#delete.textContent = "Delete";
    }, SURE_MS);
  }
}
