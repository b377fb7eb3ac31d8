/** What the Images and the Video panel have in common: a prompt becomes a job, which is followed to its end. */

import { getJson, Problem, requestJson } from "./connection.js";
import { say } from "./elements.js";
import { followJob, isOver } from "./job-events.js";
import { failureInWords, progressInWords, stateInWords } from "./job-words.js";

/** What a job is told apart by in the list of jobs; a prompt may be longer. */
const TITLE_CHARACTERS = 200;

/**
 * A panel whose elements have ids that begin with `name` ("image") or `plural` ("images").
 *
 * `work` is what it makes: `read()` is what is asked for, beside prompt and model; `submit(wish)` sends it and resolves to
 * {id}; `expect(wish | null)` prepares the place of its results, `preview(job)`, `finish(job)` and `abandon()` fill it.
 */
export class MakingPanel {
  #name;
  #plural;
  #work;
  #onModel;
  #onJob;
  #panel;
  #prompt;
  #model;
  #job = null;
  /** Cancelled before the server said which job it is. */
  #unwanted = false;
  #following = new AbortController();

  /** `onModel(id)` is told which model is at work; `onJob()` that there is a job more, or that one has changed. */
  constructor(name, plural, work, { onModel, onJob }) {
    this.#name = name;
    this.#plural = plural;
    this.#work = work;
    this.#onModel = onModel;
    this.#onJob = onJob;
    this.#panel = this.#all("panel");
    this.#prompt = this.#one("prompt");
    this.#model = this.#one("model");
    this.#all("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#generate();
    });
    this.#one("cancel").addEventListener("click", () => this.#cancel());
    this.#all("retry").addEventListener("click", () => this.#generate());
    this.#one("absent-model").addEventListener("change", () => this.#showWayToModel());
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#all("form").requestSubmit();
    });
  }

  get state() {
    return this.#panel.dataset.state;
  }

  /** Offer these models, each {id, label, available, embedded, description}; those that cannot run here are told apart. */
  offerModels(models) {
    const chosen = this.#model.value;
    const [here, absent] = [models.filter((model) => model.available), models.filter((model) => !model.available)];
    const group = document.createElement("optgroup");
    group.label = "Not on this machine";
    group.disabled = true;
    group.append(...absent.map(({ id, label }) => new Option(label, id)));
    this.#model.replaceChildren(new Option("auto", "auto"), ...here.map(({ id, label }) => new Option(label, id)));
    if (absent.length > 0) this.#model.append(group);
    this.#model.value = here.some(({ id }) => id === chosen) ? chosen : "auto";
    this.#one("absent-model").replaceChildren(...absent.map((model) => {
      const option = new Option(model.label, model.id);
      Object.assign(option.dataset, { description: model.description, embedded: model.embedded });
      return option;
    }));
    this.#all("absent").hidden = here.length > 0;
    this.#one("absent-choice").hidden = absent.length === 0;
    this.#all("form").hidden = here.length === 0;
    this.#showWayToModel();
  }

  /** Take up the job this tab followed before it was reloaded. */
  async resume() {
    const id = sessionStorage.getItem(this.#stored);
    if (!id || this.#job) return;
    try {
      const job = await getJson(`v1/jobs/${id}`);
      if (!this.#busy) this.#follow(job);
    } catch (problem) {
      // It was deleted, or is another key's; anything else the list of jobs tells.
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 404) sessionStorage.removeItem(this.#stored);
    }
  }

  /** The job that this tab follows, so that a reload takes it up again. */
  get #stored() {
    return `sonoreel.${this.#name}Job`;
  }

  get #busy() {
    return ["sending", "working"].includes(this.state);
  }

  #one(part) {
    return document.getElementById(`${this.#name}-${part}`);
  }

  #all(part) {
    return document.getElementById(`${this.#plural}-${part}`);
  }

  #enter(state, status) {
    const focused = document.activeElement;
    this.#panel.dataset.state = state;
    this.#panel.dataset.trouble = "false";
    say(this.#all("status"), status);
    this.#one("generate").disabled = this.#busy;
    this.#one("cancel").disabled = !this.#busy;
    this.#all("error").hidden = state !== "error";
    this.#one("progress").hidden = !this.#busy;
    // A button that is disabled or hidden loses the focus: hand it to the one that is useful next.
    const lost = this.#panel.contains(focused) && (focused.disabled || focused.closest("[hidden]"));
    if (lost) this.#one(this.#busy ? "cancel" : "generate").focus();
  }

  #showWayToModel() {
    const chosen = this.#one("absent-model").selectedOptions[0];
    if (!chosen) return;
    this.#one("absent-description").textContent = chosen.dataset.description;
    const pull = chosen.dataset.embedded === "true" ? "" : `\nsonoreel models pull ${chosen.value}`;
    this.#one("absent-commands").textContent = `pip install 'sonoreel[diffusion]'${pull}`;
  }

  #wish() {
    const prompt = this.#prompt.value.trim();
    const metadata = { prompt: prompt.slice(0, TITLE_CHARACTERS) };
    return { prompt, model: this.#model.value, ...this.#work.read(), metadata };
  }

  async #generate() {
    if (this.#busy) return;
    if (!this.#prompt.value.trim()) {
      this.#prompt.focus();
      return;
    }
    const wish = this.#wish();
    this.#job = null;
    this.#unwanted = false;
    this.#work.expect(null);
    this.#one("progress").removeAttribute("value");
    this.#enter("sending", "Sending…");
    try {
      const { id } = await this.#work.submit(wish);
      sessionStorage.setItem(this.#stored, id);
      const job = await getJson(`v1/jobs/${id}`);
      this.#onJob();
      this.#work.expect(wish);
      this.#follow(job);
      if (this.#unwanted) this.#cancel();
    } catch (problem) {
      this.#fail(problem);
    }
  }

  async #follow(job) {
    this.#following.abort();
    this.#following = new AbortController();
    this.#job = job;
    if (!isOver(job)) this.#enter("working", stateInWords(job));
    this.#show(job);
    if (isOver(job)) return;
    try {
      await followJob(job.id, {
        onJob: (now) => this.#show(now),
        onTrouble: (problem) => this.#showTrouble(problem),
        signal: this.#following.signal,
      });
    } catch (problem) {
      this.#fail(problem.status === 404 ? new Problem("The job was deleted.") : problem);
    }
  }

  #show(job) {
    this.#job = job;
    this.#onModel(job.model);
    this.#work.preview(job);
    if (!isOver(job)) {
      this.#showProgress(job);
      return;
    }
    this.#onJob();
    if (job.status === "succeeded") this.#work.finish(job);
    this.#work.abandon();
    if (job.status === "succeeded" || job.status === "cancelled") this.#enter("idle", stateInWords(job));
    else this.#fail(new Problem(failureInWords(job)));
  }

  #showProgress(job) {
    const words = progressInWords(job);
    say(this.#all("status"), job.cancel_requested || !words ? stateInWords(job) : words);
    const { done, total } = (job.status === "running" && job.progress) || {};
    const bar = this.#one("progress");
    if (total) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
  }

  #showTrouble(problem) {
    this.#panel.dataset.trouble = String(problem !== null);
    if (problem) say(this.#all("status"), "Connection lost, trying again…");
    else this.#showProgress(this.#job);
  }

  async #cancel() {
    say(this.#all("status"), "Cancelling…");
    this.#unwanted = true;
    if (!this.#job) return;
    try {
      await requestJson(`v1/jobs/${this.#job.id}/cancel`, { method: "POST" });
    } catch (problem) {
      say(this.#all("status"), problem.message);
    }
  }

  #fail(problem) {
    this.#following.abort();
    this.#work.abandon();
    this.#all("error-message").textContent = problem.message;
    this.#all("error-way-out").textContent = problem.wayOut ?? "";
    this.#enter("error", "Stopped");
  }
}

/** The values of these input elements, by name, as far as something is in them. */
export function filledIn(fields) {
  const values = {};
  for (const [name, field] of Object.entries(fields)) {
    const value = field.value.trim();
    if (value) values[name] = field.type === "number" ? Number(value) : value;
  }
  return values;
}

/** Send a wish as JSON, or, with a file, as a form that has the file in the field `fileField`. */
export function sendWish(path, wish, { headers = {}, file, fileField, formPath = path }) {
  if (!file) {
    const json = { "Content-Type": "application/json", ...headers };
    return requestJson(path, { method: "POST", headers: json, body: JSON.stringify(wish) });
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(wish)) {
    form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  form.append(fileField, file);
  return requestJson(formPath, { method: "POST", headers, body: form });
}
