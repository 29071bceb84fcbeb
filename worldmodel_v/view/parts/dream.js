// Part three: the MDN-RNN goes on from a recorded frame, and the keys are its actions.

const WARM_UP = 32, EASE = 0.3, DREAM_FPS = 50;
const ARROWS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const LIKELY_END = 0.5;

class DreamPart {
  constructor(decoder, model) {
    Object.assign(this, { decoder, model, held: new Set(), temperature: 1, action: [...page.actions.rest] });
    this.player = new Player(byId("dream-play"), (now) => this.step(now), DREAM_FPS);
    byId("dream-restart").addEventListener("click", () => this.restart());
    byId("dream-take").addEventListener("click", () => this.begin());
    byId("temperature").addEventListener("input", (event) => this.setTemperature(Number(event.target.value)));
    this.addPads();
    this.addMeters();
    const area = byId("dream");
    byId("dream-play").addEventListener("click", (event) => {
      if (event.detail > 0) byId("dreamed").focus({ preventScroll: true });  // some browsers give a clicked button no keys
    });
    area.addEventListener("keydown", (event) => this.onKey(event, true));
    area.addEventListener("keyup", (event) => this.onKey(event, false));
    addEventListener("blur", () => this.held.clear());
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.player.stop(); });
    this.setTemperature(1);
  }

  setTemperature(value) {
    this.temperature = value;
    byId("temperature-value").textContent = readable(value);
  }

  addPads() {
    for (const move of page.actions.keys) {
      const name = this.nameOf(move), pad = element("button", { type: "button", "aria-label": name, title: name, class: `pad ${move.key}` });
      const short = page.actions.kind === "discrete" ? name : page.actions.names[move.part];
      pad.append(ARROWS[move.key], element("span", { class: "small" }, short));
      pad.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        pad.setPointerCapture(event.pointerId);
        this.press(move.key, true);
      });
      for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => this.press(move.key, false));
      byId("pads").append(pad);
    }
  }

  nameOf({ part, value }) {
    return `${page.actions.names[part]} ${page.actions.kind === "continuous" ? readable(value) : value}`;
  }

  // A slider for each part, which shows where the keys have put it and takes what no key reaches.
  addMeters() {
    const { names, low, high, kind } = page.actions;
    this.meters = names.map((name, part) => {
      const id = `action-${part}`, value = element("output", { for: id });
      const input = element("input", { type: "range", id, min: low[part], max: high[part], step: kind === "continuous" ? "any" : 1 });
      input.addEventListener("input", () => { this.set(part, Number(input.value)); this.chosen[part] = Number(input.value); });
      byId("meters").append(element("div", { class: "slider plain" }, element("label", { for: id }, name), input, value));
      return { input, value };
    });
    this.chosen = [...page.actions.rest];
    names.forEach((_, part) => this.set(part, page.actions.rest[part]));
  }

  set(part, value) {
    this.action[part] = value;
    this.meters[part].input.value = value;
    this.meters[part].value.textContent = readable(value);
  }

  press(key, isDown) {
    this.held[isDown ? "add" : "delete"](key);
    for (const pad of byId("pads").children) if (pad.classList.contains(key)) pad.classList.toggle("held", isDown);
    if (isDown && !this.player.isRunning) this.player.start();
  }

  onKey(event, isDown) {
    if (event.target.closest("input")) return;
    if (page.actions.keys.some((move) => move.key === event.key)) this.press(event.key, isDown);
    else if (event.key === " " && !event.target.closest("button")) { if (isDown) this.player.toggle(); } else return;
    event.preventDefault();
  }

  // Values go to where the held keys want them, quantities gradually, and back to what was chosen.
  steer() {
    const wanted = [...this.chosen];
    for (const { key, part, value } of page.actions.keys) if (this.held.has(key)) wanted[part] = value;
    wanted.forEach((value, part) => {
      const way = value - this.action[part], range = page.actions.high[part] - page.actions.low[part];
      const isNear = page.actions.kind !== "continuous" || Math.abs(way) < 0.01 * range;
      this.set(part, isNear ? value : this.action[part] + EASE * way);
    });
  }

  // Read the recorded rows before the frame, so that the model knows the speed, and stand at the frame.
  begin() {
    this.origin = { episode: here.episode, row: here.row };
    this.restart();
  }

  restart() {
    const { episode, row } = this.origin;
    this.player.stop();
    this.state = this.model.begin();
    for (let t = Math.max(0, row - WARM_UP); t < row; t++) {
      this.state = this.model.forecast(episode.row("mu", t), actionVector(episode.row("action", t)), this.state).state;
    }
    this.z = episode.row("mu", row).slice();
    this.condition = episode.row("condition", row).slice();
    Object.assign(this, { steps: 0, total: 0, end: 0, times: [] });
    this.chosen = [...page.actions.rest];
    this.chosen.forEach((value, part) => this.set(part, value));
    byId("dream-from").textContent = `episode ${episode.episode}, frame ${row}`;
    this.draw();
  }

  step(now) {
    this.steer();
    const forecast = this.model.forecast(this.z, actionVector(this.action), this.state);
    this.z = this.model.sample(forecast, this.temperature);
    this.state = forecast.state;
    this.steps += 1;
    this.total += forecast.reward;
    this.end = forecast.end;
    this.times = [...this.times.slice(-49), now];
    this.draw();
    return this.end < LIKELY_END;
  }

  draw() {
    drawFrame(byId("dreamed"), this.decoder.decode([...this.z, ...this.condition]));
    const span = this.times.at(-1) - this.times[0];
    byId("dream-steps").textContent = this.steps;
    byId("dream-reward").textContent = readable(this.total);
    byId("dream-end").textContent = `${(100 * this.end).toFixed(1)} %`;
    byId("dream-fps").textContent = span > 0 ? ((this.times.length - 1) / (span / 1000)).toFixed(0) : "–";
    byId("dream-ended").hidden = this.end < LIKELY_END;
  }
}
