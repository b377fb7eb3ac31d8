/** The Images panel: a prompt -> `/v1/images/...` as a job -> its previews, and its pictures. */

import { getJson, Problem, requestJson } from "./connection.js";
import { say } from "./elements.js";
import { followJob, isOver } from "./job-events.js";
import { failureInWords, progressInWords, stateInWords } from "./job-words.js";
import { Pictures } from "./pictures.js";
import { StartImage } from "./start-image.js";

/** The job that this tab follows, so that a reload takes it up again. */
const STORED_JOB = "sonoreel.imageJob";
/** What a job is told apart by in the list of jobs; a prompt may be longer. */
const TITLE_CHARACTERS = 200;

const $ = (id) => document.getElementById(id);

export class ImagesPanel {
  #panel = $("images-panel");
  #prompt = $("image-prompt");
  #model = $("image-model");
  #pictures = new Pictures($("pictures"));
  #start = new StartImage();
  #job = null;
  /** Cancelled before the server said which job it is. */
  #unwanted = false;
  #following = new AbortController();
  #onModel;
  #onJob;

  /** `onModel(id)` is told which model draws; `onJob()` that there is a job more, or that one has changed. */
  constructor({ onModel, onJob }) {
    this.#onModel = onModel;
    this.#onJob = onJob;
    $("images-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#generate();
    });
    $("image-cancel").addEventListener("click", () => this.#cancel());
    $("images-retry").addEventListener("click", () => this.#generate());
    $("absent-model").addEventListener("change", () => this.#showWayToModel());
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("images-form").requestSubmit();
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
    $("absent-model").replaceChildren(...absent.map((model) => {
      const option = new Option(model.label, model.id);
      Object.assign(option.dataset, { description: model.description, embedded: model.embedded });
      return option;
    }));
    $("images-absent").hidden = here.length > 0;
    $("absent-choice").hidden = absent.length === 0;
    $("images-form").hidden = here.length === 0;
    this.#showWayToModel();
  }

  /** Take up the job this tab followed before it was reloaded. */
  async resume() {
    const id = sessionStorage.getItem(STORED_JOB);
    if (!id || this.#job) return;
    try {
      const job = await getJson(`v1/jobs/${id}`);
      if (!this.#busy) this.#follow(job);
    } catch (problem) {
      // It was deleted, or is another key's; anything else the list of jobs tells.
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 404) sessionStorage.removeItem(STORED_JOB);
    }
  }

  get #busy() {
    return ["sending", "working"].includes(this.state);
  }

  #enter(state, status) {
    const focused = document.activeElement;
    this.#panel.dataset.state = state;
    this.#panel.dataset.trouble = "false";
    say($("images-status"), status);
    $("generate").disabled = this.#busy;
    $("image-cancel").disabled = !this.#busy;
    $("images-error").hidden = state !== "error";
    $("image-progress").hidden = !this.#busy;
    // A button that is disabled or hidden loses the focus: hand it to the one that is useful next.
    const lost = focused !== document.body && (focused.disabled || focused.closest("[hidden]"));
    if (lost) $(this.#busy ? "image-cancel" : "generate").focus();
  }

  #showWayToModel() {
    const chosen = $("absent-model").selectedOptions[0];
    if (!chosen) return;
    $("absent-description").textContent = chosen.dataset.description;
    const pull = chosen.dataset.embedded === "true" ? "" : `\nsonoreel models pull ${chosen.value}`;
    $("absent-commands").textContent = `pip install 'sonoreel[diffusion]'${pull}`;
  }

  /** What is asked for; what is left open is the model's to choose. */
  #wish() {
    const prompt = this.#prompt.value.trim();
    const wish = { prompt, model: this.#model.value, n: Number($("image-count").value) };
    const open = { size: $("image-size"), steps: $("image-steps"), seed: $("image-seed"), negative_prompt: $("image-avoid") };
    for (const [name, field] of Object.entries(open)) {
      const value = field.value.trim();
      if (value) wish[name] = field.type === "number" ? Number(value) : value;
    }
    return { ...wish, metadata: { prompt: prompt.slice(0, TITLE_CHARACTERS) } };
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
    this.#pictures.expect(0, "");
    $("image-progress").removeAttribute("value");
    this.#enter("sending", "Sending…");
    try {
      const job = await this.#submit(wish);
      sessionStorage.setItem(STORED_JOB, job.id);
      this.#onJob();
      this.#pictures.expect(wish.n, wish.prompt);
      this.#follow(job);
      if (this.#unwanted) this.#cancel();
    } catch (problem) {
      this.#fail(problem);
    }
  }

  #submit(wish) {
    const headers = { Prefer: "respond-async" };
    if (!this.#start.file) {
      headers["Content-Type"] = "application/json";
      return requestJson("v1/images/generations", { method: "POST", headers, body: JSON.stringify(wish) });
    }
    const form = new FormData();
    for (const [name, value] of Object.entries(wish)) {
      form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
    }
    form.append("image", this.#start.file);
    return requestJson("v1/images/edits", { method: "POST", headers, body: form });
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
    this.#pictures.preview(job.progress?.previews ?? []);
    if (!isOver(job)) {
      this.#showProgress(job);
      return;
    }
    this.#onJob();
    if (job.status === "succeeded") this.#pictures.finish(job.outputs);
    this.#pictures.abandon();
    if (job.status === "succeeded" || job.status === "cancelled") this.#enter("idle", stateInWords(job));
    else this.#fail(new Problem(failureInWords(job)));
  }

  #showProgress(job) {
    const words = progressInWords(job);
    say($("images-status"), job.cancel_requested || !words ? stateInWords(job) : words);
    const { done, total } = (job.status === "running" && job.progress) || {};
    const bar = $("image-progress");
    if (total) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
  }

  #showTrouble(problem) {
    this.#panel.dataset.trouble = String(problem !== null);
    if (problem) say($("images-status"), "Connection lost, trying again…");
    else this.#showProgress(this.#job);
  }

  async #cancel() {
    say($("images-status"), "Cancelling…");
    this.#unwanted = true;
    if (!this.#job) return;
    try {
      await requestJson(`v1/jobs/${this.#job.id}/cancel`, { method: "POST" });
    } catch (problem) {
      say($("images-status"), problem.message);
    }
  }

  #fail(problem) {
    this.#following.abort();
    this.#pictures.abandon();
    $("images-error-message").textContent = problem.message;
    $("images-error-way-out").textContent = problem.wayOut ?? "";
    this.#enter("error", "Stopped");
  }
}
