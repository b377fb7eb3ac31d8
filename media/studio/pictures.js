/** The pictures of one image job: empty frames, then previews in them, then what came of it. */

import { isLoadable, resultAddress } from "./connection.js";
import { make } from "./elements.js";

export class Pictures {
  #list;
  #prompt = "";

  constructor(list) {
    this.#list = list;
  }

  /** Empty frames for `count` pictures of this prompt. */
  expect(count, prompt) {
    this.#prompt = prompt;
    this.#list.replaceChildren(...Array.from({ length: count }, () => make("li", { dataset: { state: "waiting" } })));
    this.#list.hidden = count === 0;
  }

  /** Show what the pictures look like so far. */
  preview(previews) {
    for (const { index, step, url } of previews) {
      const address = resultAddress(url);
      if (!isLoadable(address)) continue;
      const frame = this.#frame(index);
      // Every event has a fresh URL, and only another step another picture.
      if (frame.dataset.state === "done" || frame.dataset.step === String(step)) continue;
      frame.dataset.state = "preview";
      frame.dataset.step = step;
      const image = frame.querySelector("img") ?? frame.appendChild(make("img"));
      image.alt = `Picture ${index + 1} so far, step ${step}`;
      image.src = address;
    }
  }

  /** Show the pictures of a job that ended well, with the seed and the way to keep each. */
  finish(outputs) {
    for (const output of outputs) {
      const { index, seed, width, height, url, filename } = output;
      const frame = this.#frame(index);
      const address = resultAddress(url);
      const alt = `Picture ${index + 1}: ${this.#prompt}`;
      const view = isLoadable(address) ? make("img", { src: address, width, height, alt }) : alt;
      const link = make("a", { href: address, target: "_blank", rel: "noopener" }, view);
      const caption = make("p", {},
        make("span", { className: "seed" }, `Seed ${seed}`),
        make("a", { href: address, download: filename, className: "download" }, "Download"));
      frame.dataset.state = "done";
      frame.replaceChildren(link, caption);
    }
  }

  /** No more is coming: frames without a picture go, and previews stay as what they are. */
  abandon() {
    for (const frame of this.#list.querySelectorAll("[data-state=waiting]")) frame.remove();
    this.#list.hidden = this.#list.childElementCount === 0;
  }

  #frame(index) {
    while (this.#list.childElementCount <= index) this.#list.append(make("li", { dataset: { state: "waiting" } }));
    this.#list.hidden = false;
    return this.#list.children[index];
  }
}
