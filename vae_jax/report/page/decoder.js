// The mean of p(x|z), as the model computes it: fully connected layers, then what the likelihood makes of them.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const ACTIVATIONS = {
  relu: (x) => (x > 0 ? x : 0),
  tanh: Math.tanh,
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

const MEANS = {
  identity: (x) => x,
  sigmoid,
  // 1 / (1 - exp(-l)) - 1/l, whose terms cancel near 0.
  continuous_bernoulli: (l) => (Math.abs(l) < 0.05 ? 0.5 + l / 12 - l ** 3 / 720 : -1 / Math.expm1(-l) - 1 / l),
};

class Decoder {
  constructor(source) {
    Object.assign(this, source);
    this.layers = source.layers.map((layer) => ({ kernel: unpack(layer.kernel), bias: unpack(layer.bias) }));
  }

  // Pixels [height, width, channels] for latents and, in a conditional model, a class.
  decode(z, label) {
    let x = new Float32Array(this.latents + this.classes);
    x.set(z);
    if (this.classes) x[this.latents + label] = 1;
    this.layers.forEach((layer, index) => {
      x = affine(x, layer);
      if (index < this.layers.length - 1) x = x.map(ACTIVATIONS[this.activation]);
    });
    const pixels = new Float32Array(this.height * this.width * this.channels);
    for (let i = 0; i < pixels.length; i++) {
      // Of several numbers per pixel the means come first.
      const pixel = Math.floor(i / this.channels), channel = i % this.channels;
      pixels[i] = MEANS[this.mean](x[pixel * this.outputs + channel]);
    }
    return pixels;
  }
}

function affine(x, { kernel, bias }) {
  const y = Float32Array.from(bias), width = y.length;
  for (let i = 0; i < x.length; i++) {
    const value = x[i];
    if (value === 0) continue;
    for (let j = 0, k = i * width; j < width; j++, k++) y[j] += value * kernel[k];
  }
  return y;
}
