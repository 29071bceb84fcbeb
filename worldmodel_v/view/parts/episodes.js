// Part one: recorded frames beside their reconstructions, and everything that was recorded, under one cursor.

const LATENT_LANES = 4, ACTION_LANES = 6;

class EpisodesPart {
  constructor(decoder) {
    this.decoder = decoder;
    this.slider = byId("row");
    this.traces = new Traces(byId("traces"), (row) => this.seek(row));
    this.player = new Player(byId("play"), () => this.advance(), 25);
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    byId("back").addEventListener("click", () => this.seek(here.row - 1));
    byId("forward").addEventListener("click", () => this.seek(here.row + 1));
    byId("worst").addEventListener("click", () => this.seek(here.episode.error.indexOf(Math.max(...here.episode.error))));
    byId("reward").addEventListener("click", () => this.seek(this.nextReward()));
    byId("end").addEventListener("click", () => this.seek(here.episode.rows - 1));
    byId("speed").addEventListener("change", (event) => { this.player.perSecond = Number(event.target.value); });
    byId("episodes").addEventListener("keydown", (event) => this.onKey(event));
    this.buttons = episodes.map((episode, i) => this.episodeButton(episode, i));
    byId("choose").append(...this.buttons);
    drawScale(byId("scale"));
  }

  episodeButton(episode) {
    const label = element("span", { class: "small" }, `${episode.kind}, ${episode.rows} frames`);
    return element("button", { type: "button", onclick: () => this.open(episode) }, `Episode ${episode.episode}`, label);
  }

  async open(episode) {
    await episode.load();
    here.episode = episode;
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(episodes[i] === episode)));
    this.slider.max = episode.rows - 1;
    byId("reward").disabled = !this.rewarded().length;
    this.traces.show(this.lanes());
    this.describe();
    this.seek(Math.floor(episode.rows / 3));
  }

  lanes() {
    const { episode } = here, { names, kind } = page.actions;
    const lanes = [{ name: "error", values: episode.error, colour: "--bad" }];
    if (episode.reward.some(Number.isFinite)) lanes.push({ name: "reward", values: episode.reward, colour: "--good" });
    names.slice(0, ACTION_LANES).forEach((name, i) => {
      lanes.push({ name, values: episode.column("action", i), colour: "--accent", isSteps: kind !== "continuous" });
    });
    for (const direction of directions.slice(0, LATENT_LANES)) {
      const values = Float32Array.from({ length: episode.rows }, (_, row) => direction.along(episode.row("mu", row)));
      lanes.push({ name: direction.name, values, colour: "--soft" });
    }
    return lanes;
  }

  describe() {
    const { episode } = here, mean = episode.error.reduce((sum, value) => sum + value, 0) / episode.rows;
    const endings = {
      terminated: "It ends where the world ended it.", truncated: "It ends at the limit of steps.", open: "It has no recorded end.",
      cut: `Shown are the first ${episode.rows} of its ${episode.allRows} frames.`,
    };
    const rewards = episode.reward.filter(Number.isFinite), total = rewards.reduce((sum, value) => sum + value, 0);
    const of = rewards.length ? `, sum of rewards ${readable(total)}` : "";
    byId("about").textContent = `${endings[episode.ending]} Mean error ${readable(mean)} grey levels${of}.`;
  }

  // Rows whose reward stands out: above the median by more than a standard deviation.
  rewarded() {
    const values = here.episode.reward, finite = values.filter(Number.isFinite);
    const mean = finite.reduce((sum, value) => sum + value, 0) / finite.length;
    const spread = Math.sqrt(finite.reduce((sum, value) => sum + (value - mean) ** 2, 0) / finite.length);
    const usual = finite.toSorted((a, b) => a - b)[Math.floor(finite.length / 2)];
    return [...values.keys()].filter((row) => spread > 0 && values[row] > usual + spread);
  }

  nextReward() {
    const rows = this.rewarded();
    return rows.find((row) => row > here.row) ?? rows[0];
  }

  advance() {
    if (here.row >= here.episode.rows - 1) return false;
    this.seek(here.row + 1);
  }

  seek(row) {
    const { episode } = here;
    here.row = Math.min(Math.max(0, row), episode.rows - 1);
    const recorded = episode.frames.at(here.row), decoded = episode.decodedAt(here.row, this.decoder);
    drawFrame(byId("recorded"), recorded);
    for (const name of ["decoded", "difference"]) byId(name).closest("figure").hidden = !decoded;
    if (decoded) {
      drawFrame(byId("decoded"), decoded);
      drawFrame(byId("difference"), differenceOf(recorded, decoded));
    }
    this.slider.value = here.row;
    byId("at").textContent = `frame ${here.row} of ${episode.rows - 1}`;
    this.slider.setAttribute("aria-valuetext", `frame ${here.row}, error ${readable(episode.error[here.row])} grey levels`);
    this.traces.cursor = here.row;
    this.traces.draw();
  }

  onKey(event) {
    if (isTyping(event) || event.target.closest("button")) return;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -25, PageDown: 25 };
    if (event.key === " ") this.player.toggle();
    else if (event.key in moves) this.seek(here.row + moves[event.key]);
    else return;
    event.preventDefault();
  }
}
