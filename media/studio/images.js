/** The Images panel: a prompt -> `/v1/images/...` as a job -> its previews, and its pictures. */

import { filledIn, MakingPanel, sendWish } from "./making.js";
import { Pictures } from "./pictures.js";
import { StartImage } from "./start-image.js";

const $ = (id) => document.getElementById(id);

/** Makes the panel; for `callbacks`, see `MakingPanel`. */
export function imagesPanel(callbacks) {
  const pictures = new Pictures($("pictures"));
  const start = new StartImage("image");
  const work = {
    /** What is left open is the model's to choose. */
    read: () => ({
      n: Number($("image-count").value),
      ...filledIn({
        size: $("image-size"), steps: $("image-steps"), seed: $("image-seed"), negative_prompt: $("image-avoid"),
      }),
    }),
    submit: (wish) => sendWish("v1/images/generations", wish, {
      headers: { Prefer: "respond-async" }, file: start.file, fileField: "image", formPath: "v1/images/edits",
    }),
    expect: (wish) => pictures.expect(wish?.n ?? 0, wish?.prompt ?? ""),
    preview: (job) => pictures.preview(job.progress?.previews ?? []),
    finish: (job) => pictures.finish(job.outputs),
    abandon: () => pictures.abandon(),
  };
  return new MakingPanel("image", "images", work, callbacks);
}
