// Fills the parts that are on this page.

const page = { decoder: DATA.pictures && DATA.pictures.decoder ? new Decoder(DATA.pictures.decoder) : null };

async function start() {
  const part = (id) => document.getElementById(id);
  const pictures = DATA.pictures || {}, { decoder } = page;
  if (part("curves")) {
    if (DATA.runs) showCurvesOfRuns(part("curves"), DATA.runs);
    else showCurves(part("curves"), DATA.curves, (split) => STYLES[split](), (split) => split);
  }
  if (part("kl-chart")) showKl(part("kl-chart"), pictures.axes);
  if (part("kl-of-runs")) showKlOfRuns(part("kl-of-runs"), DATA.runs.filter(({ kl }) => kl));
  if (part("samples")) await showSamples(part("samples"), pictures.samples, decoder);
  if (part("reconstructions")) {
    await showReconstructions(part("reconstructions"), pictures.originals, pictures.reconstructions, decoder);
  }
  if (part("explorer")) {
    page.explorer = new Explorer(part("explorer"), pictures, decoder);
    await page.explorer.start();
  }
  if (part("interpolation")) {
    page.interpolation = new Interpolation(part("interpolation"), pictures.interpolation, decoder, DATA.class_names);
    await page.interpolation.start();
  }
  if (part("manifold")) await showManifold(part("manifold"), pictures.manifold, decoder);
  if (part("scatter-chart")) {
    await showScatter(part("scatter-chart"), DATA.scatter, DATA.class_names);
    // A point of the plane of two latents is a z.
    if (page.explorer && decoder && decoder.latents === 2) {
      part("scatter-chart").on("plotly_click", ({ points: [point] }) => page.explorer.move([point.x, point.y]));
    }
  }
  for (const [number, run] of (DATA.runs || []).entries()) {
    if (run.samples) await showSamples(part(`samples-${number}`), run.samples, null);
  }
}

// All runs in each chart: test in full, training behind it.
function showCurvesOfRuns(root, runs) {
  for (const key of document.querySelectorAll(".key")) key.style.background = colourOfRun(Number(key.dataset.key));
  const curves = {}, lines = {};
  runs.forEach((run, number) => {
    for (const split of ["train", "test"]) {
      const name = `${run.name}, ${split}`, color = colourOfRun(number);
      if (run.curves[split]) curves[name] = run.curves[split];
      lines[name] = split === "test" ? { color, width: 2.25 } : { color, width: 1 };
    }
  });
  showCurves(root, curves, (name) => lines[name], (name) => name);
}

start().then(() => document.documentElement.classList.add("ready"));
