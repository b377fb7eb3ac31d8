/** Draws the last seconds of a level (0 to 1) as bars, newest on the right; one plain bar when motion is unwelcome. */

const BAR = 3;
const GAP = 3;
const BAR_MS = 60;

export class LevelMeter {
  #meter;
  #canvas;
  #read = null;
  #history = [];
  #lastBar = 0;
  #stillness = matchMedia("(prefers-reduced-motion: reduce)");

  /** `meter` is the element with role="meter", `canvas` lies inside it. */
  constructor(meter, canvas) {
    this.#meter = meter;
    this.#canvas = canvas;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Show `read()` until stopped. */
  start(read) {
    this.#read = read;
    this.#history = [];
    requestAnimationFrame((now) => this.#tick(now));
  }

  stop() {
    this.#read = null;
    this.#history = [];
    this.#meter.setAttribute("aria-valuenow", "0");
    this.#draw();
  }

  #tick(now) {
    if (!this.#read) return;
    if (now - this.#lastBar >= BAR_MS) {
      this.#lastBar = now;
      const level = this.#read();
      this.#history.push(level);
      this.#history.splice(0, this.#history.length - this.#bars());
      this.#meter.setAttribute("aria-valuenow", String(Math.round(level * 100)));
      this.#draw();
    }
    requestAnimationFrame((next) => this.#tick(next));
  }

  #bars() {
    return Math.max(1, Math.floor(this.#canvas.clientWidth / (BAR + GAP)));
  }

  #fit() {
    const scale = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(this.#canvas.clientWidth * scale);
    this.#canvas.height = Math.round(this.#canvas.clientHeight * scale);
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const context = this.#canvas.getContext("2d");
    const scale = window.devicePixelRatio || 1;
    const style = getComputedStyle(this.#canvas);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    if (this.#stillness.matches) {
      context.fillStyle = style.color;
      context.fillRect(0, height / 2 - 4, width * (this.#history.at(-1) ?? 0), 8);
      return;
    }
    const bars = this.#bars();
    for (let index = 0; index < bars; index += 1) {
      const level = this.#history[this.#history.length - bars + index];
      const tall = level === undefined ? BAR : Math.max(BAR, level ** 1.5 * height);
      context.fillStyle = level === undefined ? style.borderTopColor : style.color;
      context.beginPath();
      context.roundRect(index * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2);
      context.fill();
    }
  }
}
