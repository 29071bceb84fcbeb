"use strict";
// The page's data: JSON, in which numbers are base64 of gzip, and frames are lossless WebP pictures below each other.

const page = JSON.parse(document.getElementById("data").textContent);

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

async function unzipped(text) {
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function numbers(text) {
  return text ? new Float32Array(await unzipped(text)) : new Float32Array(0);
}

// IEEE 754 half precision.
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return exponent === 31 ? sign * (fraction ? NaN : Infinity) : sign * 2 ** (exponent - 25) * (1024 + fraction);
}

async function weightsOf(packed) {
  const content = await unzipped(packed.data);
  return packed.precision === "float32" ? new Float32Array(content) : Float32Array.from(new Uint16Array(content), fromHalf);
}

// The frames of an episode as RGBA bytes, decoded when they are first needed.
class Frames {
  constructor(strips) {
    this.strips = strips;
    this.pixels = null;
  }

  async load() {
    this.pixels ??= await Promise.all(this.strips.map(decodedStrip));
  }

  at(row) {
    const size = page.height * page.width * 4, first = (row % page.stripFrames) * size;
    return this.pixels[Math.floor(row / page.stripFrames)].subarray(first, first + size);
  }
}

async function decodedStrip(text) {
  const asIs = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([fromBase64(text)], { type: "image/webp" }), asIs);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
}

// An episode with its frames and figures ready.
class Episode {
  constructor(record) {
    Object.assign(this, record);
    this.frames = new Frames(record.recorded);
    this.reconstructions = new Frames(record.decoded);
    this.isLoaded = false;
  }

  async load() {
    if (this.isLoaded) return this;
    const names = ["error", "action", "reward", ...("mu" in this ? ["mu", "condition"] : [])];
    const loaded = await Promise.all(names.map((name) => numbers(this[name])));
    await Promise.all([this.frames.load(), this.reconstructions.load()]);
    names.forEach((name, i) => { this[name] = loaded[i]; });
    this.isLoaded = true;
    return this;
  }

  // The reconstruction of a frame: stored, or decoded here; null where neither is possible.
  decodedAt(row, decoder) {
    if (this.decoded.length) return this.reconstructions.at(row);
    return decoder ? decoder.decode([...this.row("mu", row), ...this.row("condition", row)]) : null;
  }

  // One row of a table of numbers.
  row(name, row) {
    const size = this[name].length / this.rows;
    return this[name].subarray(row * size, (row + 1) * size);
  }

  column(name, column) {
    const size = this[name].length / this.rows;
    return Float32Array.from({ length: this.rows }, (_, row) => this[name][row * size + column]);
  }
}

const episodes = page.episodes.map((record) => new Episode(record));
