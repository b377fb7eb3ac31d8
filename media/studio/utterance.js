/** One text spoken over one `/v1/audio/speech/websocket`: audio into a Player, words onto its clock. */

import { keyring, openSocket, problemInClose, problemInEvent } from "./connection.js";
import { Player } from "./player.js";

export const SAMPLE_RATE = 24_000;
/** How long to wait for `context.cancelled` before giving up on it. */
const CANCEL_MS = 3_000;

export class Utterance {
  #socket = null;
  #player = new Player(SAMPLE_RATE);
  #report;
  #text;
  #asked = 0;
  #connected = 0;
  #cancelling = false;
  #over = false;
  /** What ended the stream too early; told when the audio that did come has been heard. */
  #problem = null;
  #deadline = 0;
  /** item id -> where its first sample lies on the player's clock, in seconds. */
  #items = new Map();
  #openItems = new Set();
  #doneItems = 0;
  #words = [];

  /**
   * `report` has onModel(id), onFirstAudio({total, connecting} in ms), onDraining(), and onEnd(outcome) exactly once with
   * {kind: "finished"} | {kind: "cancelled", spoken, remaining} | {kind: "failed", problem}.
   */
  constructor(text, report) {
    this.#text = text;
    this.#report = report;
  }

  /** Call from a user's action. `now` is the moment of that action, on performance.now()'s clock. */
  start({ model, voice, speed }, now) {
    this.#asked = now;
    this.#player.resume();
    const parameters = { model, voice, speed, alignment: "word", response_format: "pcm", sample_rate: SAMPLE_RATE };
    if (keyring.key) parameters.api_key = keyring.key;
    const socket = openSocket("v1/audio/speech/websocket", parameters);
    this.#socket = socket;
    socket.onopen = () => {
      this.#send({ type: "input_text_buffer.append", text: this.#text });
      this.#send({ type: "input_text_buffer.commit" });
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = async (event) => {
      if (this.#cancelling) this.#end(this.#cutOff({}));
      else if (!this.#over && !this.#complete) this.#problem ??= await problemInClose(event);
    };
  }

  /** Silence at once, and ask the server to stop. */
  cancel() {
    if (this.#over || this.#cancelling) return;
    this.#cancelling = true;
    this.#player.stop();
    if (this.#problem || this.#socket.readyState !== WebSocket.OPEN) {
      this.#end(this.#cutOff({}));
      return;
    }
    this.#send({ type: "context.cancel" });
    this.#deadline = setTimeout(() => this.#end(this.#cutOff({})), CANCEL_MS);
  }

  get heard() {
    return this.#player.position;
  }

  get received() {
    return this.#player.received;
  }

  get underruns() {
    return this.#player.underruns;
  }

  /** The words heard so far, each {text}; the last one is being spoken. */
  get spokenWords() {
    const now = this.#player.position;
    const begun = ({ item, start }) => this.#items.has(item) && this.#items.get(item) + start <= now;
    return this.#words.slice(0, this.#words.findLastIndex(begun) + 1);
  }

  /** To be called often: ends the utterance when all of it has been heard. */
  poll() {
    if (this.#over || !this.#player.drained) return;
    if (this.#problem) this.#end({ kind: "failed", problem: this.#problem });
    else if (this.#complete) this.#end({ kind: "finished" });
  }

  /** Nothing says "that was all": every item begun is done, and the server stays ahead of what is being played. */
  get #complete() {
    return this.#doneItems > 0 && this.#openItems.size === 0;
  }

  #send(event) {
    this.#socket.send(JSON.stringify(event));
  }

  #receive(event) {
    if (this.#over) return;
    switch (event.type) {
      case "session.created":
        this.#connected = performance.now();
        this.#report.onModel(event.session?.model ?? "auto");
        break;
      case "session.draining":
        this.#report.onDraining();
        break;
      case "conversation.item.audio_output.delta":
        if (!this.#cancelling) this.#hear(event);
        break;
      case "conversation.item.word_timestamps":
        event.words.forEach((text, index) => {
          this.#words.push({ text, item: event.item_id, start: event.start_seconds[index] });
        });
        break;
      case "conversation.item.audio_output.done":
        this.#openItems.delete(event.item_id);
        this.#doneItems += 1;
        break;
      case "context.cancelled":
        if (this.#cancelling) this.#end(this.#cutOff(event));
        break;
      case "conversation.item.tts.failed":
      case "error":
        this.#problem ??= problemInEvent(event.error);
        break;
      default:
    }
  }

  #hear({ item_id: item, delta }) {
    if (!this.#items.has(item)) {
      this.#items.set(item, this.#player.received);
      this.#openItems.add(item);
    }
    if (this.#player.received === 0) {
      const now = performance.now();
      this.#report.onFirstAudio({ total: now - this.#asked, connecting: this.#connected - this.#asked });
    }
    this.#player.enqueue(delta);
  }

  #cutOff({ text_spoken: spoken = "", text_remaining: remaining = this.#text }) {
    return { kind: "cancelled", spoken, remaining };
  }

  #end(outcome) {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#deadline);
    this.#socket.close(1000);
    this.#player.stop().then(() => this.#player.close());
    this.#report.onEnd(outcome);
  }
}
