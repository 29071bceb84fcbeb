// Frames, differences and traces on canvases.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function byId(name) {
  return document.getElementById(name);
}

function drawFrame(canvas, bytes) {
  if (canvas.width !== page.width || canvas.height !== page.height) [canvas.width, canvas.height] = [page.width, page.height];
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(bytes), page.width, page.height), 0, 0);
}

const LARGEST_SHOWN = 64;  // grey levels: what differs by more has the brightest colour

const errorColours = Array.from({ length: 256 }, (_, level) => {
  const colours = page.errorColours, at = (level / 255) * (colours.length - 1), below = Math.min(Math.floor(at), colours.length - 2);
  return colours[below].map((value, c) => Math.round(value + (at - below) * (colours[below + 1][c] - value)));
});

function differenceOf(one, other) {
  const bytes = new Uint8ClampedArray(one.length);
  for (let i = 0; i < one.length; i += 4) {
    let largest = 0;
    for (let c = 0; c < 3; c++) largest = Math.max(largest, Math.abs(one[i + c] - other[i + c]));
    bytes.set(errorColours[Math.min(255, Math.round((largest / LARGEST_SHOWN) * 255))], i);
    bytes[i + 3] = 255;
  }
  return bytes;
}

function drawScale(canvas) {
  [canvas.width, canvas.height] = [256, 1];
  const picture = new ImageData(256, 1);
  errorColours.forEach((colour, level) => picture.data.set([...colour, 255], 4 * level));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function readable(value) {
  if (value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  return (size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2)).replace("-", "−");
}

const LANE = 40, FIGURES = 58;
const labelsOf = (width) => (width < 500 ? 70 : 104);

// Lanes below each other, one for each series, with one cursor; a click or drag calls `seek` with a row.
class Traces {
  constructor(canvas, seek) {
    this.canvas = canvas;
    this.lanes = [];
    this.cursor = 0;
    const toRow = (event) => {
      const box = canvas.getBoundingClientRect(), share = (event.clientX - box.left - labelsOf(box.width)) / (box.width - labelsOf(box.width) - FIGURES);
      seek(Math.round(Math.min(1, Math.max(0, share)) * (this.lanes[0].values.length - 1)));
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); toRow(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) toRow(event); });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(lanes) {
    this.lanes = lanes;
    this.canvas.style.height = `${lanes.length * LANE}px`;
    this.draw();
  }

  draw() {
    const ratio = devicePixelRatio || 1, width = this.canvas.clientWidth, height = this.lanes.length * LANE;
    if (!width || !height) return;
    [this.canvas.width, this.canvas.height] = [width * ratio, height * ratio];
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "13px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.lanes.forEach((lane, i) => this.drawLane(pen, lane, i * LANE, width));
    const labels = labelsOf(width), x = labels + (width - labels - FIGURES) * this.share(this.cursor);
    pen.fillStyle = colour("--ink");
    pen.fillRect(x - 0.75, 0, 1.5, height);
  }

  share(row) {
    return row / Math.max(1, this.lanes[0].values.length - 1);
  }

  drawLane(pen, lane, top, width) {
    const labels = labelsOf(width), right = width - FIGURES, middle = top + LANE / 2;
    pen.fillStyle = colour("--line");
    pen.fillRect(0, top + LANE - 1, width, 1);
    pen.fillStyle = colour("--soft");
    pen.textAlign = "left";
    pen.fillText(lane.name, 0, middle, labels - 8);
    pen.textAlign = "right";
    pen.fillStyle = colour("--ink");
    pen.fillText(readable(lane.values[this.cursor]), width, middle);
    const finite = lane.values.filter(Number.isFinite), low = Math.min(0, ...finite), high = Math.max(0, ...finite);
    const y = (value) => top + LANE - 7 - ((value - low) / (high - low || 1)) * (LANE - 13);
    pen.fillStyle = colour("--line");
    pen.fillRect(labels, y(0), right - labels, 1);
    pen.strokeStyle = colour(lane.colour);
    pen.lineWidth = 1.4;
    pen.beginPath();
    lane.values.forEach((value, row) => {
      if (!Number.isFinite(value)) return;
      const x = labels + (right - labels) * this.share(row);
      if (row && lane.isSteps) pen.lineTo(x, y(lane.values[row - 1]));
      pen[row ? "lineTo" : "moveTo"](x, y(value));
    });
    pen.stroke();
  }
}
