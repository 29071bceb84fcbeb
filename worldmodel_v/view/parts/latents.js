// Part two: sliders for the latents, what says most first. The decoder runs here.

const SPREAD = 3, FIRST_SLIDERS = 12;

// What a slider moves: one latent, or a principal component, which is a direction in the space of all latents.
class Direction {
  constructor(about, components) {
    const { name, amount, mean, std, at } = about, size = components.length / page.latents.sliders.length;
    const parts = size ? Array.from(components.subarray(at * size, (at + 1) * size), (weight, i) => [i, weight]) : [[at, 1]];
    Object.assign(this, { name, parts, mean, std, said: `${readable(amount)} ${size ? "%" : "nats"}` });
    this.usual = size ? () => mean + std * normal() : normal;
  }

  along(z) {
    return this.parts.reduce((sum, [i, weight]) => sum + weight * z[i], 0);
  }

  put(z, value) {
    const way = value - this.along(z);
    for (const [i, weight] of this.parts) z[i] += weight * way;
  }
}

const directions = [];

async function loadDirections() {
  const components = await numbers(page.latents.components);
  directions.push(...page.latents.sliders.map((about) => new Direction(about, components)));
}

class LatentsPart {
  constructor(decoder) {
    this.decoder = decoder;
    this.condition = new Float32Array(0);
    this.sliders = directions.map((direction, i) => this.slider(direction, `slider-${i}`));
    const [first, others] = [this.sliders.slice(0, FIRST_SLIDERS), this.sliders.slice(FIRST_SLIDERS)];
    byId("sliders").append(...first.map((slider) => slider.row));
    byId("more-sliders").append(...others.map((slider) => slider.row));
    byId("more").hidden = !others.length;
    byId("more-label").textContent = `The other ${others.length} sliders`;
    byId("of-latents").hidden = Boolean(page.latents.components);
    byId("of-components").hidden = !page.latents.components;
    byId("take").addEventListener("click", () => this.take());
    byId("random").addEventListener("click", () => this.draw());
    byId("reset").addEventListener("click", () => this.move(this.start.z));
    byId("take-from").addEventListener("click", () => this.setEnd("from", marked()));
    byId("take-to").addEventListener("click", () => this.setEnd("to", marked()));
    byId("between").addEventListener("input", () => this.interpolate());
  }

  slider(direction, id) {
    const { name, said, mean, std } = direction, low = mean - SPREAD * std, high = mean + SPREAD * std;
    const value = element("output", { for: id });
    const input = element("input", { type: "range", id, min: low, max: high, step: (high - low) / 400 });
    const label = element("label", { for: id }, name, element("span", { class: "small" }, said));
    input.addEventListener("input", () => {
      direction.put(this.z, Number(input.value));
      value.textContent = readable(Number(input.value));
      this.show();
    });
    return { direction, input, value, low, high, row: element("div", { class: "slider" }, label, input, value) };
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
    for (const { direction, input, value, low, high } of this.sliders) {
      const at = direction.along(this.z);
      input.min = Math.min(low, at);
      input.max = Math.max(high, at);
      input.value = at;
      value.textContent = readable(at);
    }
    this.show();
  }

  // Latents from N(0, I); components as they are spread over the frames, and all else as in the frame where the sliders began.
  draw() {
    const z = this.start.z.slice();
    for (const direction of directions) direction.put(z, direction.usual());
    this.move(z);
  }

  show() {
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
