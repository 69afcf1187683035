// Images by their number: cut out of a sheet, or decoded from latents when they are asked for.

class Frames {
  constructor(source, decoder) {
    this.decoder = decoder;
    this.sheet = source.sheet;
    this.labels = source.labels;
    if (source.latents) {
      this.latents = unpack(source.latents);
      [this.count, this.size] = source.latents.shape;
    }
  }

  // Resolves to itself as soon as it can draw.
  async ready() {
    if (this.sheet) {
      this.picture = new Image();
      this.picture.src = this.sheet.source;
      await this.picture.decode();
    }
    return this;
  }

  get width() { return this.sheet ? this.sheet.width : this.decoder.width; }
  get height() { return this.sheet ? this.sheet.height : this.decoder.height; }

  z(index) { return this.latents.subarray(index * this.size, (index + 1) * this.size); }

  draw(canvas, index) {
    canvas.width = this.width;
    canvas.height = this.height;
    this.drawAt(canvas.getContext("2d"), index, 0, 0);
  }

  drawAt(context, index, left, top) {
    if (this.sheet) {
      const column = index % this.sheet.columns, row = Math.floor(index / this.sheet.columns);
      const { width, height } = this;
      context.drawImage(this.picture, column * width, row * height, width, height, left, top, width, height);
    } else {
      const pixels = this.decoder.decode(this.z(index), this.labels && this.labels[index]);
      context.putImageData(asImageData(pixels, this.decoder), left, top);
    }
  }
}

// Three channels are red, green and blue; of any other number the first is shown in grey.
function asImageData(pixels, { width, height, channels }) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * pixels[i * channels + (channels === 3 ? c : 0)]);
    image.data[4 * i + 3] = 255;
  }
  return image;
}

function paint(canvas, pixels, decoder) {
  canvas.width = decoder.width;
  canvas.height = decoder.height;
  canvas.getContext("2d").putImageData(asImageData(pixels, decoder), 0, 0);
}

// A new element with attributes and children; texts stay texts.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function tile(draw) {
  const canvas = element("canvas", { class: "tile", "aria-hidden": "true" });
  draw(canvas);
  return canvas;
}
