// What several parts share: the frame that is looked at, and a clock that plays.

const here = { episode: episodes[0], row: 0 };

// Calls `step` so often a second while it runs; `step` returns false to stop.
class Player {
  constructor(button, step, perSecond) {
    Object.assign(this, { button, step, perSecond, isRunning: false, due: 0 });
    this.names = [button.dataset.play, button.dataset.pause];
    button.addEventListener("click", () => this.toggle());
  }

  toggle() {
    return this.isRunning ? this.stop() : this.start();
  }

  start() {
    if (this.isRunning) return;
    this.isRunning = true;
    this.due = performance.now();
    this.label();
    requestAnimationFrame((now) => this.tick(now));
  }

  stop() {
    this.isRunning = false;
    this.label();
  }

  label() {
    this.button.textContent = this.names[Number(this.isRunning)];
    this.button.setAttribute("aria-pressed", String(this.isRunning));
  }

  tick(now) {
    if (!this.isRunning) return;
    if (now >= this.due - 1) {
      this.due = Math.max(this.due + 1000 / this.perSecond, now - 100);
      if (this.step(now) === false) return this.stop();
    }
    requestAnimationFrame((next) => this.tick(next));
  }
}

function isTyping(event) {
  return event.target.closest("input, select, textarea, summary") !== null;
}
