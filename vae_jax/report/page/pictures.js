// Samples, reconstructions and the learned manifold.

async function showSamples(root, source, decoder) {
  const frames = await new Frames(source, decoder).ready();
  const tiles = root.querySelector(".tiles"), more = root.querySelector("button");
  let first = 0;
  const show = () => {
    const numbers = Array.from({ length: source.shown }, (_, i) => first + i);
    tiles.replaceChildren(...numbers.map((number) => tile((canvas) => frames.draw(canvas, number))));
  };
  show();
  if (!more) return;
  more.addEventListener("click", () => {
    first = (first + source.shown) % (frames.count - (frames.count % source.shown));
    show();
  });
}

async function showReconstructions(root, originals, source, decoder) {
  const left = await new Frames({ sheet: originals }).ready();
  const right = await new Frames(source, decoder).ready();
  const pairs = Array.from({ length: Number(root.dataset.count) }, (_, i) =>
    element("div", { class: "pair" }, tile((canvas) => left.draw(canvas, i)), tile((canvas) => right.draw(canvas, i))));
  root.querySelector(".tiles").replaceChildren(...pairs);
}

async function showManifold(root, source, decoder) {
  const frames = await new Frames(source, decoder).ready();
  const canvas = root.querySelector("canvas"), side = source.side;
  const show = (label) => {
    canvas.width = side * frames.width;
    canvas.height = side * frames.height;
    const context = canvas.getContext("2d");
    for (let i = 0; i < side * side; i++) {
      const left = (i % side) * frames.width, top = Math.floor(i / side) * frames.height;
      frames.drawAt(context, label * side * side + i, left, top);
    }
  };
  show(0);
  const chooser = root.querySelector("select");
  if (chooser) chooser.addEventListener("change", () => show(Number(chooser.value)));
}
