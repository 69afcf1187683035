// A slider for each active dimension, and the image that they make.

class Explorer {
  constructor(root, data, decoder) {
    this.root = root;
    this.axes = data.axes;
    this.decoder = decoder;
    this.traversals = data.traversals;
    this.samples = data.samples;
    this.reconstructions = data.reconstructions;
    this.canvas = root.querySelector("canvas.large");
    this.chooser = root.querySelector("select");
    this.dimensions = this.axes.order.slice(0, this.axes.numActive);
  }

  async start() {
    if (this.traversals) this.frames = await new Frames(this.traversals, this.decoder).ready();
    if (this.decoder && this.samples) this.pool = new Frames(this.samples, this.decoder);
    this.sliders = this.dimensions.map((dimension, index) => this.slider(dimension, index));
    const list = this.root.querySelector(".sliders");
    list.classList.toggle("few", this.sliders.length <= 10);
    list.replaceChildren(...this.sliders.map(({ row }) => row));
    if (this.chooser) this.chooser.addEventListener("change", () => this.redraw());
    this.root.querySelector(".middle").addEventListener("click", () => this.move(this.axes.centre));
    const random = this.root.querySelector(".random");
    if (random) random.addEventListener("click", () => this.moveAtRandom());
    if (this.decoder && this.reconstructions) this.moveToImage();
    else this.move(this.axes.centre);
  }

  // The first image, which shows more than the middle of all does.
  moveToImage() {
    const frames = new Frames(this.reconstructions, this.decoder);
    if (this.chooser) this.chooser.value = frames.labels[0];
    this.move(frames.z(0));
  }

  get label() { return this.chooser ? Number(this.chooser.value) : 0; }

  slider(dimension, index) {
    const centre = this.axes.centre[dimension], reach = this.axes.reach[dimension];
    const step = this.decoder ? reach / 150 : (2 * reach) / (this.axes.stops - 1);
    const name = `z${dimension + 1}`, id = `slider-${dimension}`;
    const input = element("input", { type: "range", id, min: centre - reach, max: centre + reach, step, value: centre });
    const output = element("output", { for: id });
    const kl = this.axes.kl ? `${this.axes.kl[dimension].toFixed(2)} nats` : "";
    const ends = this.decoder ? [-1, 1].map(() => element("canvas", { class: "end", "aria-hidden": "true" })) : [];
    const label = element("label", { for: id }, element("span", { class: "name" }, name), element("small", {}, kl));
    const row = element("div", { class: "slider" }, label, ...(ends.length ? [ends[0], input, ends[1]] : [input]), output);
    input.addEventListener("input", () => {
      // Beforehand only one dimension at a time was moved.
      if (!this.decoder) this.z.set(this.axes.centre);
      this.z[dimension] = Number(input.value);
      this.moved = index;
      this.redraw();
    });
    return { row, input, output, ends, dimension };
  }

  // Goes to a point; the dimensions that have no slider go there too.
  move(z) {
    this.z = Float32Array.from(z);
    this.moved = -1;
    this.redraw();
  }

  moveAtRandom() {
    const index = Math.floor(Math.random() * this.pool.count);
    if (this.chooser && this.pool.labels) this.chooser.value = this.pool.labels[index];
    this.move(this.pool.z(index));
  }

  redraw() {
    if (this.decoder) paint(this.canvas, this.decoder.decode(this.z, this.label), this.decoder);
    else this.frames.draw(this.canvas, this.frameNumber());
    for (const { input, output, ends, dimension } of this.sliders) {
      input.value = this.z[dimension];
      output.textContent = this.z[dimension].toFixed(2).replace("-", "−");
      ends.forEach((canvas, side) => this.drawEnd(canvas, dimension, side));
    }
  }

  drawEnd(canvas, dimension, side) {
    const z = this.z.slice();
    z[dimension] = this.axes.centre[dimension] + (side ? 1 : -1) * this.axes.reach[dimension];
    paint(canvas, this.decoder.decode(z, this.label), this.decoder);
  }

  frameNumber() {
    const { stops } = this.axes, perClass = 1 + this.dimensions.length * stops;
    if (this.moved < 0) return this.label * perClass;
    const dimension = this.dimensions[this.moved], reach = this.axes.reach[dimension];
    const share = (this.z[dimension] - this.axes.centre[dimension] + reach) / (2 * reach);
    return this.label * perClass + 1 + this.moved * stops + Math.round(share * (stops - 1));
  }
}
