/** The picture to start from: chosen from a file, shown, and taken away again. */

const $ = (id) => document.getElementById(id);

export class StartImage {
  #input = $("start-image");
  #shown = $("start-image-shown");

  constructor() {
    this.#input.addEventListener("change", () => this.#show());
    $("start-image-clear").addEventListener("click", () => {
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
    $("start-image-view").hidden = !this.file;
    if (this.file) this.#shown.src = URL.createObjectURL(this.file);
    else this.#shown.removeAttribute("src");
  }
}
