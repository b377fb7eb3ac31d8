/** The microphone as mono PCM16 frames of about 100 ms, with a level to show. */

import { Problem } from "./connection.js";

export const SAMPLE_RATE = 24_000;
const FRAME_SAMPLES = SAMPLE_RATE / 10;
const QUIETEST_DB = -60;

export class Microphone {
  /** Ask for the microphone and start it. `onFrame(Int16Array)`; `onLost()` when the device goes away. Throws Problem. */
  static async open({ onFrame, onLost }) {
    const microphone = new Microphone();
    try {
      await microphone.#start(onFrame, onLost);
    } catch (error) {
      await microphone.close();
      throw error instanceof Problem ? error : microphoneProblem(error);
    }
    return microphone;
  }

  #stream = null;
  #context = null;
  #worklet = null;
  #analyser = null;
  #finished = () => {};

  async #start(onFrame, onLost) {
    if (!navigator.mediaDevices) {
      throw new Problem(
        "This browser gives the microphone only to pages on https or on this computer.",
        "Open the studio at http://127.0.0.1, or put TLS in front of the server.",
      );
    }
    // Echo cancellation keeps the Speak panel out of the transcript. The other two are made for human ears: noise
    // suppression eats words, and gain control clips the first ones.
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: false, autoGainControl: false };
    this.#context = new AudioContext({ latencyHint: "interactive" });
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    this.#stream.getAudioTracks()[0].onended = onLost;
    await this.#context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
    await this.#context.resume();
    this.#worklet = new AudioWorkletNode(this.#context, "microphone", {
      processorOptions: { targetRate: SAMPLE_RATE, frameSamples: FRAME_SAMPLES },
    });
    this.#worklet.port.onmessage = ({ data }) => (data ? onFrame(data) : this.#finished());
    this.#analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
    const source = this.#context.createMediaStreamSource(this.#stream);
    source.connect(this.#analyser);
    // The worklet writes silence; it is connected because a node that leads nowhere may not be run.
    source.connect(this.#worklet).connect(this.#context.destination);
  }

  /** How loud it is now, 0 (-60 dBFS or less) to 1 (full scale). */
  level() {
    if (!this.#analyser) return 0;
    const samples = new Float32Array(this.#analyser.fftSize);
    this.#analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    const decibels = 10 * Math.log10(power + 1e-12);
    return Math.max(0, Math.min(1, 1 - decibels / QUIETEST_DB));
  }

  /** Give the last frame to `onFrame`, then let go of the device. */
  async close() {
    if (this.#worklet && this.#context.state === "running") {
      await new Promise((resolve) => {
        this.#finished = resolve;
        this.#worklet.port.postMessage("finish");
      });
    }
    this.#stream?.getTracks().forEach((track) => {
      track.onended = null;
      track.stop();
    });
    if (this.#context && this.#context.state !== "closed") await this.#context.close();
    this.#analyser = null;
  }
}

function microphoneProblem(error) {
  if (error.name === "NotAllowedError") {
    return new Problem(
      "The browser did not allow the microphone.",
      "Allow it at the address bar, then press the microphone again.",
    );
  }
  if (error.name === "NotFoundError") {
    return new Problem("No microphone was found.", "Connect one, then press the microphone again.");
  }
  return new Problem(`The microphone could not be started: ${error.message}`, "Close other programs that use it, then try again.");
}
