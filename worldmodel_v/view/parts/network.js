// The networks, computed by TensorFlow.js on WebAssembly. Maps are [1, height, width, channels].

async function startLibrary() {
  const wasm = await unzipped(document.getElementById("wasm").textContent.trim());
  await WebAssembly.compile(wasm);  // throws where it is not allowed, which the library would wait for
  await tf.start(wasm);
}

function placed(place, buffer) {
  const size = place.shape.reduce((product, side) => product * side, 1);
  return tf.tensor(buffer.slice(place.at, place.at + size), place.shape);
}

class Decoder {
  constructor(operations, buffer) {
    this.operations = operations.map((operation) => withTensors(operation, buffer));
  }

  // RGBA bytes of the frame of z, a Float32Array, with the condition behind it.
  decode(inputs) {
    const values = tf.tidy(() => {
      const input = tf.tensor(Float32Array.from(inputs), [1, inputs.length]);
      return this.operations.reduce((x, operation) => applied(operation, x), input).dataSync();
    });
    return toBytes(values);
  }
}

function withTensors(operation, buffer) {
  const ready = { ...operation };
  for (const name of ["weight", "bias"]) if (operation[name]) ready[name] = placed(operation[name], buffer);
  for (const name of ["change", "prior"]) if (operation[name]) ready[name] = operation[name].map((each) => withTensors(each, buffer));
  return ready;
}

const OPERATIONS = {
  places,
  levels,
  linear: (x, { weight, bias }) => tf.add(tf.matMul(x, weight), bias),
  conv: (x, { weight, bias, strides, pad }) => tf.add(tf.conv2d(x, weight, strides, [[0, 0], ...pad, [0, 0]]), bias),
  shuffle: shuffled,
  groupnorm: groupNorm,
  residual: (x, { change }) => tf.add(x, change.reduce((y, operation) => applied(operation, y), x)),
  resize: (x, { size }) => tf.resizeNearestNeighbor(x, size),
  unflatten: (x, { shape }) => tf.transpose(tf.reshape(x, [1, ...shape]), [0, 2, 3, 1]),
  flatten: (x) => tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [1, x.size]),
  relu: (x) => tf.relu(x),
  silu: (x) => tf.mul(x, tf.sigmoid(x)),
  sigmoid: (x) => tf.sigmoid(x),
};

function applied(operation, x) {
  return OPERATIONS[operation.op](x, operation);
}

// Latents as a map, with the condition behind them at each place: [1, h w c + K] -> [1, h, w, c + K].
function places(x, { shape: [height, width, channels] }) {
  const size = height * width * channels, z = tf.reshape(tf.slice(x, [0, 0], [1, size]), [1, height, width, channels]);
  if (x.size === size) return z;
  const condition = tf.reshape(tf.slice(x, [0, size], [1, x.size - size]), [1, 1, 1, x.size - size]);
  const ones = tf.tensor(new Float32Array(height * width).fill(1), [1, height, width, 1]);
  return tf.concat([z, tf.mul(ones, condition)], 3);
}

// The bottom level, which z has in units of what the top level expects; and the condition.
function levels(x, { sizes: [top, bottom], prior }) {
  const expected = prior.reduce((y, operation) => applied(operation, y), tf.slice(x, [0, 0], [1, top])).dataSync();
  const others = x.dataSync().slice(top);
  for (let i = 0; i < bottom; i++) others[i] = expected[i] + Math.exp(0.5 * boundedLogvar(expected[bottom + i])) * others[i];
  return tf.tensor(others, [1, others.length]);
}

// As in Python: itself from -20 to 20, beyond it a logarithm.
function boundedLogvar(value) {
  const within = Math.min(20, Math.max(-20, value)), beyond = value - within;
  return within + Math.sign(beyond) * Math.log1p(Math.abs(beyond));
}

// Channels hold the phases of a larger map: [1, Y, X, high wide C] -> [1, Y high - crop, X wide - crop, C].
function shuffled(x, { strides: [high, wide], crop }) {
  const [, height, width, channels] = x.shape, each = channels / high / wide;
  const phases = tf.transpose(tf.reshape(x, [height, width, high, wide, each]), [0, 2, 1, 3, 4]);
  const map = tf.reshape(phases, [1, height * high, width * wide, each]);
  return tf.slice(map, [0, 0, 0, 0], [1, height * high - crop[0], width * wide - crop[1], each]);
}

function groupNorm(x, { groups, epsilon, weight, bias }) {
  const [, height, width, channels] = x.shape;
  const grouped = tf.reshape(x, [height * width, groups, channels / groups]);
  const centred = tf.sub(grouped, tf.mean(grouped, [0, 2], true));
  const scale = tf.rsqrt(tf.add(tf.mean(tf.square(centred), [0, 2], true), epsilon));
  return tf.add(tf.mul(tf.reshape(tf.mul(centred, scale), x.shape), weight), bias);
}

// As Python rounds: halves to the even number.
function toByte(value) {
  const scaled = Math.fround(value * 255), down = Math.floor(scaled), rest = scaled - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
}

function toBytes(values) {
  const count = page.height * page.width, channels = values.length / count, bytes = new Uint8ClampedArray(4 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) bytes[4 * i + c] = toByte(values[i * channels + (channels === 3 ? c : 0)]);
    bytes[4 * i + 3] = 255;
  }
  return bytes;
}

// The MDN-RNN: an LSTM reads (z, action) and forecasts a mixture for each dimension of the next z.
class WorldModel {
  constructor(about, buffer) {
    this.about = about;
    this.tensors = {};
    this.values = {};
    for (const [name, place] of Object.entries(about.tensors)) {
      this.tensors[name] = placed(place, buffer);
      if (place.shape.length === 1) this.values[name] = this.tensors[name].dataSync().slice();
    }
    this.latents = this.values.z_mean.length;
  }

  begin() {
    return { h: new Float32Array(this.about.hidden), c: new Float32Array(this.about.hidden) };
  }

  // What is forecast from z and the action, and the state after them.
  forecast(z, action, state) {
    const { z_mean, z_std } = this.values, R = this.about.hidden, T = this.tensors;
    const inputs = [...Array.from(z, (value, i) => (value - z_mean[i]) / z_std[i]), ...action];
    const [h, c, out] = tf.tidy(() => {
      const x = tf.tensor(inputs, [1, inputs.length]), before = tf.tensor(state.h, [1, R]);
      const fromInput = tf.add(tf.matMul(x, T["lstm.weight_ih_l0"]), T["lstm.bias_ih_l0"]);
      const fromState = tf.add(tf.matMul(before, T["lstm.weight_hh_l0"]), T["lstm.bias_hh_l0"]);
      const gates = tf.add(fromInput, fromState);
      const [input, forget, cell, output] = [0, 1, 2, 3].map((k) => tf.slice(gates, [0, k * R], [1, R]));
      const kept = tf.mul(tf.sigmoid(forget), tf.tensor(state.c, [1, R]));
      const after = tf.add(kept, tf.mul(tf.sigmoid(input), tf.tanh(cell)));
      const seen = tf.mul(tf.sigmoid(output), tf.tanh(after));
      const head = tf.add(tf.matMul(seen, T["head.weight"]), T["head.bias"]);
      return [seen, after, head].map((each) => each.dataSync().slice());
    });
    const { reward_mean, reward_std, usual_termination } = this.values;
    return {
      state: { h, c },
      reward: reward_mean[0] + reward_std[0] * out[0],
      end: 1 / (1 + Math.exp(-(usual_termination[0] + out[1]))),
      mixtures: out.subarray(2),
    };
  }

  // The mixture of one dimension of the next z: weights, means and standard deviations.
  mixture(forecast, latent, temperature) {
    const { mixtures: K, minLogSigma, maxLogSigma } = this.about, { z_mean, z_std } = this.values;
    const [logits, means, logSigmas] = [0, 1, 2].map((part) => {
      const first = (latent * 3 + part) * K;
      return Array.from(forecast.mixtures.subarray(first, first + K));
    });
    const largest = Math.max(...logits), weights = logits.map((logit) => Math.exp((logit - largest) / temperature));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const scale = z_std[latent] * Math.sqrt(temperature);
    return {
      weights: weights.map((weight) => weight / total),
      means: means.map((mean) => z_mean[latent] + z_std[latent] * mean),
      sigmas: logSigmas.map((value) => scale * Math.exp(Math.min(Math.max(value, minLogSigma), maxLogSigma))),
    };
  }

  sample(forecast, temperature) {
    return Float32Array.from({ length: this.latents }, (_, latent) => {
      const { weights, means, sigmas } = this.mixture(forecast, latent, temperature);
      let left = Math.random(), k = 0;
      while (k < weights.length - 1 && left >= weights[k]) left -= weights[k++];
      return means[k] + sigmas[k] * normal();
    });
  }
}

// A draw of N(0, 1) (Box and Muller 1958).
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

// An action as the network takes it: numbers as they are, choices one-hot; no action is zeros.
function actionVector(action) {
  if (page.actions.kind !== "discrete") return Array.from(action, (value) => (Number.isNaN(value) ? 0 : value));
  return Array.from(action).flatMap((value, part) => {
    const { low, high } = page.actions;
    return Array.from({ length: high[part] - low[part] + 1 }, (_, i) => (value === low[part] + i ? 1 : 0));
  });
}
