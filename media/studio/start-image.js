/** The picture to start from: chosen from a file, shown, and taken away again. */

export class StartImage {
  #input;
  #shown;
  #view;

  /** `name` is what the ids of its elements begin with. */
  constructor(name) {
    this.#input = document.getElementById(`${name}-start`);
    this.#shown = document.getElementById(`${name}-start-shown`);
    this.#view = document.getElementById(`${name}-start-view`);
    this.#input.addEventListener("change", () => this.#show());
    document.getElementById(`${name}-start-clear`).addEventListener("click", () => {
      this.#input.value = "";
      this.#show();
      this.#input.focus();
    });
    // A browser may keep the choice over a reload.
    this.#show();
  }

  /** The File, or undefined. */
  get file() {
    return this.#input.files[0];
  }

  #show() {
    if (this.#shown.src) URL.revokeObjectURL(this.#shown.src);
    this.#view.hidden = !this.file;
    if (this.file) this.#shown.src = URL.createObjectURL(this.file);
    else this.#shown.removeAttribute("src");
  }
}
