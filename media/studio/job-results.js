/** What came of a job: pictures to look at, sound to hear, words to read, and every file to keep. */

import { isLoadable, resultAddress } from "./connection.js";
import { make } from "./elements.js";
import { sizeInWords } from "./job-words.js";
import { isPlayable } from "./playable.js";

/** Of a long transcript the page shows the beginning; the file has it all. */
const MAX_CHARACTERS = 4_000;
/** Media types of transcripts; SubRip's is not one of text. */
const WORDS = /^(text\/|application\/x-subrip)/;
const PLAYER = document.createElement("audio");

/** The results of a job that has ended well, made once; `refresh` them when the job is read again. */
export class JobResults {
  #files = [];
  #place;

  /** `place` is the element to show them in. */
  constructor(place, job) {
    this.#place = place;
    const words = job.result?.text;
    if (typeof words === "string") this.#showWords(words);
    const poster = job.outputs.find(({ variant }) => variant === "thumbnail");
    job.outputs.forEach((output) => this.#add(output, typeof words === "string", poster));
    this.#place.hidden = this.#place.childElementCount === 0;
  }

  /** URLs expire: links get the newest ones, and what could not be loaded gets another try. */
  refresh(job) {
    job.outputs.forEach(({ url }, place) => {
      const { link, media } = this.#files[place] ?? {};
      if (!link) return;
      const address = resultAddress(url).href;
      link.href = address;
      if (media?.dataset.broken) {
        delete media.dataset.broken;
        media.src = address;
      }
    });
  }

  #add(output, read, poster) {
    const address = resultAddress(output.url);
    const kind = output.content_type;
    const here = isLoadable(address);
    if (output === poster) this.#files.push({});
    else if (output.variant === "spritesheet") this.#addLink(output, address);
    else if (here && kind.startsWith("video/") && isPlayable(output)) this.#addClip(output, address, poster);
    else if (here && kind.startsWith("image/")) this.#addPicture(output, address);
    else if (here && kind.startsWith("audio/") && PLAYER.canPlayType(kind)) this.#addSound(output, address);
    else {
      if (here && WORDS.test(kind) && !read) this.#fetchWords(address);
      this.#addLink(output, address);
    }
  }

  #addPicture({ index, seed, width, height, filename }, address) {
    const alt = `Picture ${index + 1}, seed ${seed}`;
    const media = watched(make("img", { src: address, width, height, alt, loading: "lazy" }));
    const link = make("a", { href: address, title: `${filename}, ${width}×${height}`, target: "_blank", rel: "noopener" }, media);
    this.#place.append(link);
    this.#files.push({ link, media });
  }

  #addClip(output, address, poster) {
    const { width, height, seed } = output;
    const properties = { src: address, width, height, controls: true, loop: true, playsInline: true, preload: "none" };
    const media = watched(make("video", { ...properties, poster: resultAddress(poster.url), title: `Seed ${seed}` }));
    this.#place.append(media);
    this.#addLink(output, address, media);
  }

  #addSound(output, address) {
    const media = watched(make("audio", { src: address, controls: true, preload: "metadata" }));
    this.#place.append(media);
    this.#addLink(output, address, media);
  }

  #addLink({ filename, bytes }, address, media = null) {
    const link = make("a", { href: address, download: filename, className: "download" }, `${filename}, ${sizeInWords(bytes)}`);
    this.#place.append(link);
    this.#files.push({ link, media });
  }

  #showWords(text) {
    const shown = text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)}…` : text;
    const words = make("p", { className: "job-text", tabIndex: 0 }, shown.trim() || "No words were heard.");
    words.setAttribute("role", "region");
    words.setAttribute("aria-label", "Transcript");
    this.#place.prepend(words);
  }

  async #fetchWords(address) {
    // Signed, so it wants no key; when it cannot be had, the link beside it tells why.
    const response = await fetch(address).catch(() => null);
    if (response?.ok) this.#showWords(await response.text().catch(() => ""));
  }
}

function watched(media) {
  media.addEventListener("error", () => (media.dataset.broken = "true"));
  return media;
}
