/**
 * Plays mono PCM16 that arrives in pieces, without gaps, and knows which sample is being heard.
 *
 * The context runs at the stream's own rate: pieces then meet sample to sample, and only the finished stream is
 * resampled for the device.
 */

/** Room for jitter before the first piece, and again after the stream ran dry. */
const LEAD_SECONDS = 0.06;
const FADE_SECONDS = 0.004;

export class Player {
  #context;
  #gain;
  #rate;
  #sources = new Set();
  /** Stretches played without a break: the stream's sample `first` is at the context's frame `frame`. */
  #stretches = [];
  #received = 0;
  #oddByte = null;

  constructor(sampleRate) {
    this.#rate = sampleRate;
    this.#context = new AudioContext({ sampleRate, latencyHint: "interactive" });
    this.#gain = this.#context.createGain();
    this.#gain.connect(this.#context.destination);
  }

  /** A browser starts audio only for a user's action: call this from the click. */
  async resume() {
    await this.#context.resume();
  }

  /** Seconds of audio received. */
  get received() {
    return this.#received / this.#rate;
  }

  /** Times the stream ran dry before its next piece came. */
  get underruns() {
    return Math.max(0, this.#stretches.length - 1);
  }

  /** Whether all that was received has been heard. */
  get drained() {
    return this.position >= this.received;
  }

  /** Seconds of the stream that have been heard. */
  get position() {
    const latency = this.#context.outputLatency || this.#context.baseLatency || 0;
    const now = (this.#context.currentTime - latency) * this.#rate;
    const index = this.#stretches.findLastIndex((stretch) => stretch.frame <= now);
    if (index < 0) return 0;
    const { first, frame } = this.#stretches[index];
    const end = this.#stretches[index + 1]?.first ?? this.#received;
    return Math.min(end, first + (now - frame)) / this.#rate;
  }

  /** Add a piece: base64 of s16le bytes. A sample split between two pieces is put together. */
  enqueue(encoded) {
    const samples = this.#decode(encoded);
    if (samples.length === 0) return;
    const buffer = this.#context.createBuffer(1, samples.length, this.#rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#gain);
    source.onended = () => this.#sources.delete(source);
    source.start(this.#nextFrame() / this.#rate);
    this.#sources.add(source);
    this.#received += samples.length;
  }

  /** Silence at once. What was heard until now stays in `position`. */
  async stop() {
    const heard = this.position;
    this.#gain.gain.setTargetAtTime(0, this.#context.currentTime, FADE_SECONDS);
    for (const source of this.#sources) source.stop(this.#context.currentTime + FADE_SECONDS * 5);
    await this.#context.suspend();
    return heard;
  }

  async close() {
    if (this.#context.state !== "closed") await this.#context.close();
  }

  #nextFrame() {
    const earliest = Math.ceil((this.#context.currentTime + LEAD_SECONDS) * this.#rate);
    const last = this.#stretches.at(-1);
    const next = last ? last.frame + (this.#received - last.first) : earliest;
    if (last && next >= this.#context.currentTime * this.#rate) return next;
    this.#stretches.push({ first: this.#received, frame: earliest });
    return earliest;
  }

  #decode(encoded) {
    const text = atob(encoded);
    const carried = this.#oddByte === null ? 0 : 1;
    const bytes = new Uint8Array(carried + text.length);
    if (carried) bytes[0] = this.#oddByte;
    for (let index = 0; index < text.length; index += 1) bytes[carried + index] = text.charCodeAt(index);
    this.#oddByte = bytes.length % 2 ? bytes.at(-1) : null;
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length >> 1 }, (_, index) => view.getInt16(index * 2, true) / 32768);
  }
}
