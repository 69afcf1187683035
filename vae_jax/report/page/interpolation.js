// Two images that one picks, and what lies between their latents on a straight line.

class Interpolation {
  constructor(root, source, decoder, classNames) {
    Object.assign(this, { root, source, decoder, classNames });
    this.picked = { from: 0, to: 1 };
  }

  async start() {
    this.images = await new Frames({ sheet: this.source.images }).ready();
    this.frames = await new Frames(this.source, this.decoder).ready();
    for (const end of ["from", "to"]) {
      this.root.querySelector(`.${end}`).append(...this.choices(end));
    }
    this.redraw();
  }

  get count() { return Number(this.root.dataset.count); }

  choices(end) {
    return Array.from({ length: this.count }, (_, number) => {
      const input = element("input", { type: "radio", name: `interpolate-${end}`, value: number });
      input.checked = number === this.picked[end];
      input.addEventListener("change", () => {
        this.picked[end] = number;
        this.redraw();
      });
      const { labels } = this.source;
      const what = labels ? `image ${number}, class ${this.classNames[labels[number]]}` : `image ${number}`;
      input.setAttribute("aria-label", what);
      return element("label", { title: what }, input, tile((canvas) => this.images.draw(canvas, number)));
    });
  }

  redraw() {
    const { from, to } = this.picked;
    const ends = [from, to].map((number) => tile((canvas) => this.images.draw(canvas, number)));
    ends.forEach((canvas) => canvas.classList.add("original"));
    const between = Array.from({ length: this.source.length }, (_, i) => tile((canvas) => this.drawStep(canvas, i)));
    const path = this.root.querySelector(".path");
    path.replaceChildren(ends[0], ...between, ends[1]);
    path.setAttribute("aria-label", `From image ${from} to image ${to} in ${this.source.length} steps`);
  }

  drawStep(canvas, step) {
    const { from, to } = this.picked, { length } = this.source;
    if (!this.decoder) {
      this.frames.draw(canvas, (from * this.count + to) * length + step);
      return;
    }
    const share = step / (length - 1), a = this.frames.z(from), b = this.frames.z(to);
    const z = a.map((value, i) => (1 - share) * value + share * b[i]);
    // The class of the nearer end.
    const label = this.frames.labels && this.frames.labels[step < length / 2 ? from : to];
    paint(canvas, this.decoder.decode(z, label), this.decoder);
  }
}
