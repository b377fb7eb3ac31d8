/** The transcript on the page: one line per turn, growing while it is heard, settled when the server says it is final. */

export class Transcript {
  #page;
  #list;
  #empty;
  #announcer;
  #turns = new Map();

  constructor({ page, list, empty, announcer }) {
    this.#page = page;
    this.#list = list;
    this.#empty = empty;
    this.#announcer = announcer;
  }

  get isEmpty() {
    return this.#list.childElementCount === 0;
  }

  /** Turns that have begun and are not final yet. */
  get open() {
    return [...this.#turns.values()].filter((turn) => turn.dataset.state === "partial").length;
  }

  /** A turn begins; its line is shown when its first word is. */
  begin(id) {
    if (!this.#turns.has(id)) this.#turns.set(id, newTurn(id));
  }

  /** More words of a turn, after those it has. */
  append(id, words) {
    this.begin(id);
    const turn = this.#turns.get(id);
    const piece = document.createElement("span");
    piece.className = "fresh";
    piece.textContent = words;
    turn.append(piece);
    this.#show(turn);
  }

  /** The final words of a turn, in place of all it has. Only these are read out: partial ones would be noise. */
  settle(id, text) {
    this.begin(id);
    const turn = this.#turns.get(id);
    turn.dataset.state = "final";
    turn.textContent = text;
    if (!text) turn.remove();
    else this.#show(turn);
    this.#announcer.textContent = text;
  }

  fail(id, message) {
    this.begin(id);
    const turn = this.#turns.get(id);
    turn.dataset.state = "failed";
    turn.textContent = `Not understood: ${message}`;
    this.#show(turn);
  }

  /** No more is coming for turns that are still open; what was heard of them stays, marked as unfinished. */
  abandon() {
    for (const turn of this.#turns.values()) if (turn.dataset.state === "partial") turn.dataset.state = "abandoned";
    this.#turns.clear();
  }

  clear() {
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }

  #show(turn) {
    if (!turn.isConnected) this.#list.append(turn);
    this.#empty.hidden = true;
    this.#page.scrollTop = this.#page.scrollHeight;
  }
}

function newTurn(id) {
  const turn = document.createElement("li");
  turn.dataset.itemId = id;
  turn.dataset.state = "partial";
  return turn;
}
