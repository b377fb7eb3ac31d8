/** The Listen panel: microphone -> `/v1/realtime` transcription session (OpenAI's GA dialect) -> words on the page. */

import { keyring, openSocket, Problem, problemInClose, problemInEvent } from "./connection.js";
import { LevelMeter } from "./level-meter.js";
import { Microphone, SAMPLE_RATE } from "./microphone.js";
import { Transcript } from "./transcript.js";

const TRANSCRIPTION = "conversation.item.input_audio_transcription";
/** Frames kept while the socket opens: 10 s. */
const MAX_WAITING_FRAMES = 100;
/** About 30 s of base64 PCM that the network has not taken: it will not catch up. */
const MAX_UNSENT_BYTES = 2_000_000;
/** How long to wait for the words of the last turn after the microphone is off, with and without a turn open. */
const LAST_WORDS_MS = 8_000;
const NO_WORDS_MS = 1_000;

const SESSION = {
  type: "transcription",
  audio: {
    input: {
      format: { type: "audio/pcm", rate: SAMPLE_RATE },
      transcription: { model: "auto" },
      turn_detection: { type: "server_vad" },
    },
  },
};

const STATUS = {
  idle: "Ready",
  connecting: "Connecting…",
  listening: "Listening",
  finishing: "Finishing the last words…",
  error: "Stopped",
};

const $ = (id) => document.getElementById(id);

export class ListenPanel {
  #panel = $("listen-panel");
  #button = $("microphone");
  #meter = new LevelMeter($("level"), $("level-canvas"));
  #transcript = new Transcript({
    page: $("transcript-page"),
    list: $("transcript"),
    empty: $("transcript-empty"),
    announcer: $("transcript-announcer"),
  });
  #microphone = null;
  #socket = null;
  #waiting = [];
  #deadline = 0;
  #onModel;

  /** `onModel(id)` is told which model listens. */
  constructor({ onModel }) {
    this.#onModel = onModel;
    this.#button.addEventListener("click", () => this.#toggle());
    $("listen-retry").addEventListener("click", () => this.#start());
    $("transcript-clear").addEventListener("click", () => {
      this.#transcript.clear();
      $("transcript-clear").disabled = true;
    });
  }

  get state() {
    return this.#panel.dataset.state;
  }

  #enter(state) {
    this.#panel.dataset.state = state;
    this.#setSpeaking(false);
    $("listen-status").textContent = STATUS[state];
    const on = state === "connecting" || state === "listening";
    this.#button.setAttribute("aria-pressed", String(on));
    this.#button.disabled = state === "finishing";
    $("microphone-label").textContent = on ? "Stop listening" : "Start listening";
    $("listen-error").hidden = state !== "error";
  }

  #setSpeaking(speaking) {
    this.#panel.dataset.speaking = String(speaking);
  }

  #toggle() {
    if (this.state === "idle" || this.state === "error") this.#start();
    else if (this.#socket?.readyState === WebSocket.OPEN) this.#finish();
    else this.#end();
  }

  async #start() {
    this.#enter("connecting");
    this.#waiting = [];
    try {
      const microphone = await Microphone.open({
        onFrame: (frame) => this.#send(frame),
        onLost: () => this.#fail(new Problem("The microphone went away.", "Connect it again, then press the microphone.")),
      });
      // The person may have pressed the button again while the browser asked for permission.
      if (this.state !== "connecting") {
        await microphone.close();
        return;
      }
      this.#microphone = microphone;
    } catch (problem) {
      if (this.state === "connecting") this.#fail(problem);
      return;
    }
    this.#meter.start(() => this.#microphone?.level() ?? 0);
    this.#connect();
  }

  #connect() {
    const protocols = keyring.key ? ["realtime", `openai-insecure-api-key.${keyring.key}`] : ["realtime"];
    const socket = openSocket("v1/realtime", { intent: "transcription" }, protocols);
    this.#socket = socket;
    socket.onopen = () => {
      socket.send(JSON.stringify({ type: "session.update", session: SESSION }));
      this.#waiting.splice(0).forEach((frame) => this.#send(frame));
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = async (event) => {
      if (this.state === "finishing") {
        this.#end();
        return;
      }
      const problem = await problemInClose(event);
      if (this.#socket === socket) this.#fail(problem);
    };
  }

  #send(frame) {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN) {
      if (this.#waiting.length < MAX_WAITING_FRAMES) this.#waiting.push(frame);
      return;
    }
    if (socket.bufferedAmount > MAX_UNSENT_BYTES) {
      this.#fail(new Problem("The connection is too slow for live audio.", "Reconnect when it is better."));
      return;
    }
    socket.send(JSON.stringify({ type: "input_audio_buffer.append", audio: base64(frame) }));
  }

  #receive(event) {
    switch (event.type) {
      case "session.updated":
        if (this.state === "connecting") this.#enter("listening");
        this.#onModel(event.session?.audio?.input?.transcription?.model ?? "auto");
        break;
      case "session.draining":
        $("listen-status").textContent = "The server is about to restart";
        break;
      case "input_audio_buffer.speech_started":
        this.#transcript.begin(event.item_id);
        this.#setSpeaking(true);
        break;
      case "input_audio_buffer.speech_stopped":
        this.#setSpeaking(false);
        break;
      case `${TRANSCRIPTION}.delta`:
        this.#transcript.append(event.item_id, event.delta ?? "");
        $("transcript-clear").disabled = false;
        break;
      case `${TRANSCRIPTION}.completed`:
        this.#transcript.settle(event.item_id, event.transcript ?? "");
        $("transcript-clear").disabled = this.#transcript.isEmpty;
        this.#endWhenQuiet();
        break;
      case `${TRANSCRIPTION}.failed`:
        this.#transcript.fail(event.item_id, problemInEvent(event.error).message);
        this.#endWhenQuiet();
        break;
      case "error":
        // The commit that ends a session finds nothing to commit when nobody was talking.
        if (this.state === "finishing") this.#endWhenQuiet();
        else this.#fail(problemInEvent(event.error));
        break;
      default:
    }
  }

  /** The microphone goes off at once; the socket stays until the words of the last turn are in. */
  async #finish() {
    const socket = this.#socket;
    this.#enter("finishing");
    this.#meter.stop();
    const microphone = this.#microphone;
    this.#microphone = null;
    await microphone.close();
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify({ type: "input_audio_buffer.commit" }));
    this.#deadline = setTimeout(() => this.#end(), this.#transcript.open > 0 ? LAST_WORDS_MS : NO_WORDS_MS);
  }

  #endWhenQuiet() {
    if (this.state === "finishing" && this.#transcript.open === 0) this.#end();
  }

  #end() {
    this.#release();
    this.#enter("idle");
  }

  #fail(problem) {
    this.#release();
    $("listen-error-message").textContent = problem.message;
    $("listen-error-way-out").textContent = problem.wayOut ?? "";
    this.#enter("error");
  }

  #release() {
    clearTimeout(this.#deadline);
    this.#meter.stop();
    this.#microphone?.close();
    this.#microphone = null;
    this.#waiting = [];
    if (this.#socket) {
      this.#socket.onclose = null;
      this.#socket.onmessage = null;
      this.#socket.close(1000);
      this.#socket = null;
    }
    this.#transcript.abandon();
  }
}

/** Base64 of the frame's bytes; samples are little-endian on every platform a browser runs on. */
function base64(frame) {
  return btoa(String.fromCharCode(...new Uint8Array(frame.buffer, frame.byteOffset, frame.byteLength)));
}
