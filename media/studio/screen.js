/** Where one clip is seen: pictures of it while it is made, then the clip itself. */

import { getJson, isLoadable, Problem, resultAddress } from "./connection.js";
import { make, say } from "./elements.js";
import { sizeInWords } from "./job-words.js";
import { isPlayable } from "./playable.js";

/** A clip that fails again so soon after its address was renewed has something else the matter with it. */
const RECOVERED_MS = 30_000;

export class Screen {
  #place;
  #prompt = "";
  #step = "";
  #job = "";
  #note = null;
  #recovered = -Infinity;

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
  finish(job) {
    this.#job = job.id;
    this.#recovered = -Infinity;
    this.#note = make("p", { className: "hint", hidden: true });
    this.#note.setAttribute("role", "status");
    const clip = variant(job, "video");
    const { seed, width, height, filename, bytes, fps, frames } = clip;
    const link = make("a", { href: resultAddress(clip.url), download: filename, className: "download" });
    link.append(`Download, ${sizeInWords(bytes)}`);
    link.addEventListener("click", (event) => event.isTrusted && this.#download(event, link));
    this.#place.dataset.state = "done";
    this.#place.hidden = false;
    this.#place.replaceChildren(this.#view(job, clip), this.#note, make("p", {},
      make("span", { className: "seed" }, `Seed ${seed}, ${width}×${height}, ${frames} frames at ${fps} a second`), link));
  }

  /** No more is coming: an empty screen goes, and a picture stays as what it is. */
  abandon() {
    if (this.#place.dataset.state === "waiting") this.#place.hidden = true;
  }

  /** The clip itself; its first frame in a browser that cannot play it; in words what lies where the page may not look. */
  #view(job, clip) {
    const prompt = this.#prompt || job.metadata.prompt;
    const label = prompt ? `Clip: ${prompt}` : "Clip";
    const [src, poster] = [resultAddress(clip.url), resultAddress(variant(job, "thumbnail").url)];
    if (!isLoadable(src)) return label;
    const { width, height } = clip;
    if (!isPlayable(clip)) {
      say(this.#note, "This browser cannot play the clip. Download it to see it elsewhere.");
      return make("img", { src: poster, alt: `First frame of the ${label.toLowerCase()}`, width, height });
    }
    const properties = { src, poster, width, height, controls: true, loop: true, playsInline: true, ariaLabel: label };
    const player = make("video", properties);
    player.addEventListener("error", () => this.#recover(player));
    return player;
  }

  /** Play on from a fresh address, for the old one may have expired. */
  async #recover(player) {
    const at = player.currentTime;
    const again = performance.now() - this.#recovered < RECOVERED_MS;
    this.#recovered = performance.now();
    const address = again ? null : await this.#freshAddress(player);
    if (!address) {
      if (again) say(this.#note, "The clip cannot be played here. Download it to see it elsewhere.");
      return;
    }
    player.addEventListener("loadedmetadata", () => (player.currentTime = at), { once: true });
    player.src = address;
  }

  async #download(event, link) {
    event.preventDefault();
    const address = await this.#freshAddress(link);
    if (!address) return;
    link.href = address;
    link.click();
  }

  /** Where the clip is now; null, and words on the screen, if it is not there. `element` shows it, if it is still shown. */
  async #freshAddress(element) {
    try {
      const job = await getJson(`v1/jobs/${this.#job}`);
      return this.#place.contains(element) ? resultAddress(variant(job, "video").url) : null;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(this.#note, problem.status === 404 ? "The clip was deleted." : problem.message);
      return null;
    }
  }
}

function variant({ outputs }, name) {
  return outputs.find((output) => output.variant === name);
}
