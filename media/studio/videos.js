/** The Video panel: a prompt -> `/v1/videos` -> its previews, and a clip to play. */

import { filledIn, MakingPanel, sendWish } from "./making.js";
import { Screen } from "./screen.js";
import { StartImage } from "./start-image.js";

const $ = (id) => document.getElementById(id);

/** Makes the panel; for `callbacks`, see `MakingPanel`. */
export function videosPanel(callbacks) {
  const screen = new Screen($("screen"));
  const start = new StartImage("video");
  const work = {
    read() {
      const wish = filledIn({
        size: $("video-size"), seconds: $("video-seconds"), steps: $("video-steps"), seed: $("video-seed"),
        negative_prompt: $("video-avoid"),
      });
      const narration = $("video-narration").value.trim();
      if (wish.seconds) wish.seconds = String(wish.seconds);
      return narration ? { ...wish, speech: { input: narration } } : wish;
    },
    submit: (wish) => sendWish("v1/videos", wish, { file: start.file, fileField: "input_reference" }),
    expect: (wish) => screen.expect(wish?.prompt ?? ""),
    preview: (job) => screen.preview(job.progress?.previews ?? []),
    finish: (job) => screen.finish(job),
    abandon: () => screen.abandon(),
  };
  return new MakingPanel("video", "videos", work, callbacks);
}
