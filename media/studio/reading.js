/** The text being spoken, with the word of the moment marked. */

/** How far ahead of the last word the next one is looked for: a missed word must not send the mark to the far end. */
const WINDOW = 160;

/**
 * Where `word` stands in `text` at or after `from`: {start, end}, or null. Whole words first, so that "a" is not found
 * inside "fast"; then any match, for scripts that do not separate words.
 */
export function findWord(text, word, from) {
  const bare = word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "");
  if (!bare) return null;
  const ahead = text.slice(from, from + WINDOW);
  const literal = bare.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  for (const pattern of [`(?<![\\p{L}\\p{N}])${literal}(?![\\p{L}\\p{N}])`, literal]) {
    const match = new RegExp(pattern, "iu").exec(ahead);
    if (match) return { start: from + match.index, end: from + match.index + match[0].length };
  }
  return null;
}

export class Reading {
  #view;
  #said;
  #word;
  #rest;
  #text = "";
  #followed = 0;
  #place = { start: 0, end: 0 };

  constructor({ view, said, word, rest }) {
    this.#view = view;
    this.#said = said;
    this.#word = word;
    this.#rest = rest;
  }

  open(text) {
    this.#text = text;
    this.#followed = 0;
    this.#place = { start: 0, end: 0 };
    this.#mark();
    this.#view.hidden = false;
    this.#view.scrollTop = 0;
  }

  close() {
    this.#view.hidden = true;
  }

  /** `words` are all the words begun so far; those already followed are not looked for again. */
  follow(words) {
    if (words.length === this.#followed) return;
    for (const { text } of words.slice(this.#followed)) {
      this.#place = findWord(this.#text, text, this.#place.end) ?? this.#place;
    }
    this.#followed = words.length;
    this.#mark();
  }

  #mark() {
    const { start, end } = this.#place;
    this.#said.textContent = this.#text.slice(0, start);
    this.#word.textContent = this.#text.slice(start, end);
    this.#rest.textContent = this.#text.slice(end);
    const { offsetTop, offsetHeight } = this.#word;
    if (offsetTop + offsetHeight > this.#view.scrollTop + this.#view.clientHeight - offsetHeight) {
      this.#view.scrollTop = offsetTop - this.#view.clientHeight / 2;
    }
  }
}
