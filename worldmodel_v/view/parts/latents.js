// Part two: a slider for each latent, the most informative first. The decoder runs here.

const SPREAD = 3, FIRST_SLIDERS = 12;

class LatentsPart {
  constructor(decoder) {
    this.decoder = decoder;
    this.about = page.latents;
    this.condition = new Float32Array(0);
    this.sliders = this.about.order.map((latent) => this.slider(latent));
    const [first, others] = [this.sliders.slice(0, FIRST_SLIDERS), this.sliders.slice(FIRST_SLIDERS)];
    byId("sliders").append(...first.map((slider) => slider.row));
    byId("more-sliders").append(...others.map((slider) => slider.row));
    byId("more").hidden = !others.length;
    byId("more-label").textContent = `The other ${others.length} latents`;
    byId("take").addEventListener("click", () => this.take());
    byId("random").addEventListener("click", () => this.move(this.about.order.map(normal)));
    byId("reset").addEventListener("click", () => this.move(this.start.z));
    byId("take-from").addEventListener("click", () => this.setEnd("from", marked()));
    byId("take-to").addEventListener("click", () => this.setEnd("to", marked()));
    byId("between").addEventListener("input", () => this.interpolate());
  }

  slider(latent) {
    const { kl, mean, std } = this.about, low = mean[latent] - SPREAD * std[latent], high = mean[latent] + SPREAD * std[latent];
    const id = `z${latent}`, value = element("output", { for: id });
    const input = element("input", { type: "range", id, min: low, max: high, step: (high - low) / 400 });
    const label = element("label", { for: id }, id, element("span", { class: "small" }, `${readable(kl[latent])} nats`));
    input.addEventListener("input", () => {
      this.z[latent] = Number(input.value);
      value.textContent = readable(this.z[latent]);
      this.draw();
    });
    return { latent, input, value, low, high, row: element("div", { class: "slider" }, label, input, value) };
  }

  // Begin at the frame of part one, and interpolate from it to one of another episode, or of its other end.
  begin() {
    this.take();
    this.setEnd("from", marked());
    const other = episodes.find((episode) => episode.isLoaded && episode !== here.episode) ?? here.episode;
    this.setEnd("to", mark(other, Math.floor(other.rows / 2)));
  }

  take() {
    this.start = marked();
    this.condition = this.start.condition;
    drawFrame(byId("start-frame"), this.start.frame);
    byId("start-name").textContent = this.start.name;
    this.move(this.start.z);
  }

  move(z) {
    this.z = Float32Array.from(z);
    for (const { latent, input, value, low, high } of this.sliders) {
      input.min = Math.min(low, this.z[latent]);
      input.max = Math.max(high, this.z[latent]);
      input.value = this.z[latent];
      value.textContent = readable(this.z[latent]);
    }
    this.draw();
  }

  draw() {
    drawFrame(byId("imagined"), this.decoder.decode([...this.z, ...this.condition]));
  }

  setEnd(end, chosen) {
    this[end] = chosen;
    drawFrame(byId(`${end}-frame`), chosen.frame);
    byId(`${end}-frame`).setAttribute("aria-label", chosen.name);
  }

  interpolate() {
    const share = Number(byId("between").value);
    this.condition = (share < 0.5 ? this.from : this.to).condition;
    this.move(arc(this.from.z, this.to.z, share));
  }
}

// A frame of an episode with its latents.
function mark(episode, row) {
  return {
    z: episode.row("mu", row).slice(), condition: episode.row("condition", row).slice(),
    frame: episode.frames.at(row), name: `episode ${episode.episode}, frame ${row}`,
  };
}

function marked() {
  return mark(here.episode, here.row);
}

// Spherical interpolation, with lengths interpolated linearly: under N(0, I) a straight line leaves the shell of usual latents.
function arc(from, to, share) {
  const length = (vector) => Math.hypot(...vector), one = length(from), other = length(to);
  const straight = () => from.map((value, i) => value + share * (to[i] - value));
  if (!one || !other) return straight();
  const cosine = from.reduce((sum, value, i) => sum + (value / one) * (to[i] / other), 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (Math.min(angle, Math.PI - angle) < 1e-4) return straight();
  const wide = one + share * (other - one), [a, b] = [Math.sin((1 - share) * angle), Math.sin(share * angle)];
  return from.map((value, i) => (wide * ((a * value) / one + (b * to[i]) / other)) / Math.sin(angle));
}
