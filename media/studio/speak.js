/** The Speak panel: text -> `/v1/audio/speech/websocket` -> sound, with the spoken word marked. */

import { getJson } from "./connection.js";
import { Reading } from "./reading.js";
import { Utterance } from "./utterance.js";
import { offerVoices } from "./voices.js";

const STATUS = {
  idle: "Ready",
  connecting: "Connecting…",
  speaking: "Speaking",
  stopping: "Stopping…",
  error: "Stopped",
};

const $ = (id) => document.getElementById(id);

export class SpeakPanel {
  #panel = $("speak-panel");
  #text = $("speech-text");
  #model = $("speech-model");
  #voice = $("voice");
  #reading = new Reading({
    view: $("reading"),
    said: $("reading-said"),
    word: $("reading-word"),
    rest: $("reading-rest"),
  });
  #utterance = null;
  #lastText = "";
  #onModel;
  #onProblem;

  /** `onModel(id)` is told which model speaks; `onProblem(problem)` what hinders the pickers. */
  constructor({ onModel, onProblem }) {
    this.#onModel = onModel;
    this.#onProblem = onProblem;
    $("speak-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#speak(this.#text.value);
    });
    $("stop").addEventListener("click", () => this.#stop());
    $("speak-retry").addEventListener("click", () => this.#speak(this.#lastText));
    $("speak-rest").addEventListener("click", () => this.#speak($("text-remaining").textContent));
    this.#model.addEventListener("change", () => this.loadVoices());
    $("speed").addEventListener("input", () => this.#showSpeed());
    this.#text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("speak-form").requestSubmit();
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#stop());
    this.#showSpeed();
  }

  get state() {
    return this.#panel.dataset.state;
  }

  /** Offer these models, each {id, label}; `auto` stays first. */
  offerModels(models) {
    const chosen = this.#model.value;
    this.#model.replaceChildren(new Option("auto", "auto"), ...models.map(({ id, label }) => new Option(label, id)));
    this.#model.value = chosen;
    if (this.#model.selectedIndex < 0) this.#model.value = "auto";
  }

  async loadVoices() {
    const model = this.#model.value;
    try {
      const body = await getJson("v1/voices", { model });
      if (this.#model.value === model) offerVoices(this.#voice, body);
    } catch (problem) {
      this.#onProblem(problem);
    }
  }

  #showSpeed() {
    const text = `${Number($("speed").value).toFixed(2)}×`;
    $("speed-value").textContent = text;
    $("speed").setAttribute("aria-valuetext", text);
  }

  #enter(state) {
    const busy = ["connecting", "speaking", "stopping"].includes(state);
    const focused = document.activeElement;
    this.#panel.dataset.state = state;
    $("speak-status").textContent = STATUS[state];
    $("speak").disabled = busy;
    $("stop").disabled = !busy;
    this.#text.readOnly = busy;
    $("speak-error").hidden = state !== "error";
    // A button that is disabled or hidden loses the focus: hand it to the one that is useful next.
    const lost = focused !== document.body && (focused.disabled || focused.closest("[hidden]"));
    if (lost && busy) $("stop").focus();
    else if (lost && !busy) $("speak").focus();
  }

  #speak(text) {
    const now = performance.now();
    if (this.#utterance || !text.trim()) {
      if (!text.trim()) this.#text.focus();
      return;
    }
    this.#lastText = text;
    $("cut-off").hidden = true;
    for (const id of ["first-audio", "heard"]) $(id).textContent = "–";
    for (const name of ["firstAudioMs", "heardSeconds", "receivedSeconds", "underruns", "outcome"]) {
      delete this.#panel.dataset[name];
    }
    this.#reading.open(text);
    this.#enter("connecting");
    const utterance = new Utterance(text, {
      onModel: (id) => this.#showModel(id),
      onFirstAudio: (latency) => this.#showFirstAudio(latency),
      onDraining: () => ($("speak-status").textContent = "The server is about to restart"),
      onEnd: (outcome) => this.#end(outcome),
    });
    this.#utterance = utterance;
    utterance.start({ model: this.#model.value, voice: this.#voice.value, speed: $("speed").value }, now);
    requestAnimationFrame(() => this.#follow(utterance));
  }

  #stop() {
    if (!this.#utterance || this.state === "stopping") return;
    this.#enter("stopping");
    this.#utterance.cancel();
  }

  #follow(utterance) {
    if (this.#utterance !== utterance) return;
    this.#showProgress(utterance);
    this.#reading.follow(utterance.spokenWords);
    utterance.poll();
    requestAnimationFrame(() => this.#follow(utterance));
  }

  #showProgress(utterance) {
    const heard = utterance.heard.toFixed(1);
    $("heard").textContent = `${heard} s`;
    this.#panel.dataset.heardSeconds = heard;
    this.#panel.dataset.receivedSeconds = utterance.received.toFixed(2);
    this.#panel.dataset.underruns = utterance.underruns;
  }

  #showModel(id) {
    $("speech-model-used").textContent = id;
    this.#onModel(id);
  }

  #showFirstAudio({ total, connecting }) {
    this.#enter("speaking");
    this.#panel.dataset.firstAudioMs = total.toFixed(1);
    $("first-audio").textContent = `${Math.round(total)} ms`;
    $("first-audio").title = `From the button to the first sound received; ${Math.round(connecting)} ms of it connecting`;
  }

  #end(outcome) {
    this.#showProgress(this.#utterance);
    this.#utterance = null;
    this.#reading.close();
    this.#panel.dataset.outcome = outcome.kind;
    if (outcome.kind === "failed") {
      $("speak-error-message").textContent = outcome.problem.message;
      $("speak-error-way-out").textContent = outcome.problem.wayOut ?? "";
      this.#enter("error");
      return;
    }
    if (outcome.kind === "cancelled") {
      $("text-spoken").textContent = outcome.spoken;
      $("text-remaining").textContent = outcome.remaining;
      $("speak-rest").hidden = !outcome.remaining.trim();
      $("cut-off").hidden = false;
    }
    this.#enter("idle");
  }
}
