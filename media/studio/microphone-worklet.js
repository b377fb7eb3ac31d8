/**
 * Runs on the audio thread: turns what the microphone gives (any rate, any channels) into mono PCM16 frames.
 *
 * Posts Int16Array frames of `frameSamples` at `targetRate`. The message "finish" makes it post what is left (shorter)
 * and then null. The context's own rate is kept and converted here, because not every browser connects a microphone to
 * a context of another rate.
 */

const ZERO_CROSSINGS = 16;
const TABLE_STEPS = 512;
const PASSBAND = 0.94;

/** Windowed-sinc resampler for any pair of rates; keeps its place between blocks. */
class Resampler {
  constructor(sourceRate, targetRate) {
    this.step = sourceRate / targetRate;
    const cutoff = Math.min(1, targetRate / sourceRate) * PASSBAND;
    this.reach = Math.ceil(ZERO_CROSSINGS / cutoff);
    this.kernel = kernelTable(cutoff, this.reach);
    this.held = new Float32Array(this.reach);
    this.position = this.reach;
  }

  /** Calls `emit(sample)` for each output sample that `input` completes. */
  process(input, emit) {
    const samples = new Float32Array(this.held.length + input.length);
    samples.set(this.held);
    samples.set(input, this.held.length);
    while (this.position + this.reach < samples.length) {
      emit(this.sampleAt(samples, this.position));
      this.position += this.step;
    }
    const done = Math.max(0, Math.floor(this.position) - this.reach);
    this.held = samples.slice(done);
    this.position -= done;
  }

  sampleAt(samples, position) {
    let sum = 0;
    const last = Math.floor(position + this.reach);
    for (let index = Math.max(0, Math.ceil(position - this.reach)); index <= last; index += 1) {
      const place = Math.abs(index - position) * TABLE_STEPS;
      const low = Math.floor(place);
      const weight = this.kernel[low] + (this.kernel[low + 1] - this.kernel[low]) * (place - low);
      sum += samples[index] * weight;
    }
    return sum;
  }
}

/** One half of a Blackman-windowed sinc, TABLE_STEPS entries per input sample, zero from `reach` on. */
function kernelTable(cutoff, reach) {
  const table = new Float32Array(reach * TABLE_STEPS + 2);
  for (let index = 0; index < reach * TABLE_STEPS; index += 1) {
    const distance = index / TABLE_STEPS;
    const angle = Math.PI * cutoff * distance;
    const sinc = distance === 0 ? 1 : Math.sin(angle) / angle;
    const turn = (Math.PI * distance) / reach;
    table[index] = cutoff * sinc * (0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn));
  }
  return table;
}

class MicrophoneProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions: { targetRate, frameSamples } }) {
    super();
    this.frame = new Int16Array(frameSamples);
    this.filled = 0;
    this.running = true;
    this.resampler = sampleRate === targetRate ? null : new Resampler(sampleRate, targetRate);
    this.emit = (sample) => this.push(sample);
    this.port.onmessage = ({ data }) => data === "finish" && this.finish();
  }

  process([channels]) {
    if (this.running && channels.length > 0) this.take(mono(channels));
    return this.running;
  }

  take(samples) {
    if (this.resampler) this.resampler.process(samples, this.emit);
    else samples.forEach(this.emit);
  }

  push(sample) {
    this.frame[this.filled] = Math.round(Math.max(-1, Math.min(1, sample)) * 32767);
    this.filled += 1;
    if (this.filled === this.frame.length) this.post();
  }

  post() {
    this.port.postMessage(this.frame.slice(0, this.filled));
    this.filled = 0;
  }

  finish() {
    if (this.resampler) this.take(new Float32Array(this.resampler.reach));
    if (this.filled > 0) this.post();
    this.port.postMessage(null);
    this.running = false;
  }
}

function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, index) => channels.reduce((sum, channel) => sum + channel[index], 0) / channels.length);
}

registerProcessor("microphone", MicrophoneProcessor);
