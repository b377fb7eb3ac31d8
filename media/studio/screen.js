/** Where one clip is seen: pictures of it while it is made, then the clip itself. */

import { isLoadable, resultAddress } from "./connection.js";
import { make } from "./elements.js";
import { sizeInWords } from "./job-words.js";

export class Screen {
  #place;
  #prompt = "";
  #step = "";

  constructor(place) {
    this.#place = place;
  }

  /** A clip of this prompt will come; "" clears the screen. */
  expect(prompt) {
    this.#prompt = prompt;
    this.#step = "";
    this.#place.replaceChildren();
    this.#place.dataset.state = "waiting";
    this.#place.hidden = prompt === "";
  }

  /** Show what the clip looks like so far. */
  preview(previews) {
    const newest = previews.at(-1);
    if (!newest || this.#place.dataset.state === "done" || this.#step === String(newest.step)) return;
    const address = resultAddress(newest.url);
    if (!isLoadable(address)) return;
    this.#step = String(newest.step);
    this.#place.dataset.state = "preview";
    this.#place.hidden = false;
    const image = this.#place.querySelector("img") ?? this.#place.appendChild(make("img"));
    image.alt = `The clip so far, step ${newest.step}`;
    image.src = address;
  }

  /** Show the clip of a job that ended well, with its seed and the way to keep it. */
  finish(outputs) {
    const variant = (name) => outputs.find((output) => output.variant === name);
    const { url, seed, width, height, filename, bytes, fps, frames } = variant("video");
    const address = resultAddress(url);
    const poster = resultAddress(variant("thumbnail").url);
    const label = this.#prompt ? `Clip: ${this.#prompt}` : "Clip";
    const view = isLoadable(address)
      ? make("video", { src: address, poster, width, height, controls: true, loop: true, playsInline: true, ariaLabel: label })
      : label;
    this.#place.dataset.state = "done";
    this.#place.hidden = false;
    this.#place.replaceChildren(view, make("p", {},
      make("span", { className: "seed" }, `Seed ${seed}, ${width}×${height}, ${frames} frames at ${fps} a second`),
      make("a", { href: address, download: filename, className: "download" }, `Download, ${sizeInWords(bytes)}`)));
  }

  /** No more is coming: an empty screen goes, and a picture stays as what it is. */
  abandon() {
    if (this.#place.dataset.state === "waiting") this.#place.hidden = true;
  }
}
