/**
 * The Jobs panel: this key's jobs, newest first, kept up to date by asking.
 *
 * It asks rather than listens, because a browser opens six connections to a server and a list may show more jobs than
 * that. Unfinished jobs are asked for one by one, which tells their places in the queue and carries no results.
 */

import { getJson, Problem, requestJson } from "./connection.js";
import { say } from "./elements.js";
import { isOver } from "./job-events.js";
import { JobRow } from "./job-row.js";
import { kindInWords, stateInWords } from "./job-words.js";

const PAGE = 20;
const BUSY_MS = 1_000;
const IDLE_MS = 5_000;
const TROUBLE_MS = 1_500;
/** The list itself is read in every so many rounds of a busy time. */
const LIST_ROUNDS = 3;
/** Unfinished jobs asked for in a round without the list: those that are next to change. */
const MAX_ASKED = 8;

const $ = (id) => document.getElementById(id);

export class JobsPanel {
  #panel = $("jobs-panel");
  #list = $("jobs");
  #rows = new Map();
  #deleted = new Set();
  #older = false;
  #life = new AbortController();
  #wake = () => {};
  #stale = true;
  #nameOf;

  /** `nameOf(id)` is how a model is called. */
  constructor({ nameOf }) {
    this.#nameOf = nameOf;
    $("jobs-more").addEventListener("click", () => this.#readOlder());
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  /** Begin, or begin anew with another key. */
  start() {
    this.#life.abort();
    this.#life = new AbortController();
    this.#rows.clear();
    this.#list.replaceChildren();
    this.refresh();
    this.#follow(this.#life.signal);
  }

  /** Look at the list at once: something is known to have changed. */
  refresh() {
    this.#stale = true;
    this.#wake();
  }

  async #follow(signal) {
    for (let round = 0; !signal.aborted; round += 1) {
      if (round % LIST_ROUNDS === 0) this.#stale = true;
      if (!(await this.#look(signal))) return;
      const trouble = this.#panel.dataset.state === "error";
      await this.#rest(trouble ? TROUBLE_MS : this.#unfinished.length > 0 ? BUSY_MS : IDLE_MS);
    }
  }

  /** Ask once. False when there is no point in asking again. */
  async #look(signal) {
    try {
      if (this.#stale) {
        this.#stale = false;
        this.#merge(await requestJson("v1/jobs", { parameters: { limit: PAGE }, signal }));
        await this.#ask(this.#unfinished, signal);
      } else {
        await this.#ask(this.#unfinished.slice(-MAX_ASKED), signal);
      }
      this.#showState(null);
    } catch (problem) {
      if (signal.aborted) return false;
      if (!(problem instanceof Problem)) throw problem;
      this.#stale = true;
      this.#showState(problem);
      // A new key starts this anew; asking for one again would empty the field it is typed into.
      return problem.status !== 401;
    }
    return true;
  }

  /** Resolves after a while, or when there is something to look at; in a page that nobody sees, only then. */
  #rest(milliseconds) {
    return new Promise((resolve) => {
      const timer = document.hidden ? 0 : setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      // Somebody asked for a look while the last one was under way; after trouble it can wait.
      if (this.#stale && this.#panel.dataset.state !== "error") this.#wake();
    });
  }

  get #unfinished() {
    return [...this.#list.children].map(({ dataset }) => this.#rows.get(dataset.jobId)).filter((row) => !isOver(row.job));
  }

  async #ask(rows, signal) {
    await Promise.all(rows.map(async ({ job: { id } }) => {
      try {
        this.#update(await requestJson(`v1/jobs/${id}`, { signal }));
      } catch (problem) {
        if (problem.status !== 404) throw problem;
        this.#remove(id);
      }
    }));
  }

  /** Bring the list in step with its newest page; what is older stays if it follows on that. */
  #merge({ data, last_id: last, has_more: more }) {
    const followsOn = this.#rows.has(last);
    const kept = new Set(data.map(({ id }) => id));
    let older = false;
    for (const { dataset: { jobId } } of [...this.#list.children]) {
      if (!kept.has(jobId) && !(older && followsOn && more)) this.#remove(jobId);
      older ||= jobId === last;
    }
    const oldest = this.#list.lastElementChild?.dataset.jobId;
    if (!followsOn || !more || oldest === last) this.#older = more;
    let place = null;
    for (const job of data.filter(({ id }) => !this.#deleted.has(id))) {
      const { element } = this.#update(job);
      const wanted = place ? place.nextElementSibling : this.#list.firstElementChild;
      if (element !== wanted) this.#list.insertBefore(element, wanted);
      place = element;
    }
  }

  async #readOlder() {
    const after = this.#list.lastElementChild?.dataset.jobId;
    if (!after) return;
    $("jobs-more").disabled = true;
    try {
      const page = await getJson("v1/jobs", { limit: PAGE, after });
      // Something newer may have come or gone meanwhile; the end of the list must still be where the page begins.
      if (this.#list.lastElementChild?.dataset.jobId !== after) return;
      for (const job of page.data) this.#list.append(this.#update(job).element);
      this.#older = page.has_more;
      this.#showState(null);
    } catch (problem) {
      this.#showState(problem);
    } finally {
      $("jobs-more").disabled = false;
    }
  }

  #update(job) {
    let row = this.#rows.get(job.id);
    const before = row?.job;
    if (!row) {
      row = new JobRow(job, { onCancel: () => this.#cancel(job.id), onDelete: () => this.#delete(job.id) });
      this.#rows.set(job.id, row);
    }
    row.update(job, this.#nameOf(job.model), Date.now() / 1000);
    if (before && !isOver(before) && isOver(row.job)) {
      $("jobs-announcer").textContent = `${kindInWords(row.job)}: ${stateInWords(row.job)}`;
    }
    return row;
  }

  #remove(id) {
    const element = this.#rows.get(id)?.element;
    this.#rows.delete(id);
    if (!element) return;
    const focused = element.contains(document.activeElement);
    const next = element.nextElementSibling ?? element.previousElementSibling;
    element.remove();
    if (focused) (next?.querySelector("button:not([hidden])") ?? this.#list).focus();
  }

  async #cancel(id) {
    try {
      this.#update(await requestJson(`v1/jobs/${id}/cancel`, { method: "POST" }));
      this.refresh();
    } catch (problem) {
      this.#showState(problem);
    }
  }

  async #delete(id) {
    this.#deleted.add(id);
    try {
      await requestJson(`v1/jobs/${id}`, { method: "DELETE" });
    } catch (problem) {
      if (problem.status !== 404) {
        this.#deleted.delete(id);
        this.#showState(problem);
        return;
      }
    }
    this.#remove(id);
    this.#showState(null);
  }

  #showState(problem) {
    const count = (status) => [...this.#rows.values()].filter(({ job }) => job.status === status).length;
    const [running, waiting] = [count("running"), count("queued")];
    this.#panel.dataset.state = problem ? "error" : running + waiting > 0 ? "working" : "idle";
    const counts = [running && `${running} running`, waiting && `${waiting} waiting`].filter(Boolean).join(", ");
    const quiet = this.#rows.size > 0 ? "Nothing is running" : "No jobs yet";
    say($("jobs-status"), problem ? "Not up to date" : counts || quiet);
    $("jobs-error").hidden = !problem;
    $("jobs-error-message").textContent = problem?.message ?? "";
    $("jobs-error-way-out").textContent = problem?.passing ? "Trying again…" : problem?.wayOut ?? "";
    $("jobs-empty").hidden = this.#rows.size > 0;
    $("jobs-more").hidden = !this.#older;
  }
}
