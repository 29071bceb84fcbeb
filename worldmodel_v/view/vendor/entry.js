// The part of TensorFlow.js that the page uses: these operations, and their kernels in WebAssembly.
import { env, registerKernel, ready, setBackend, setPlatform, tensor, tidy } from "@tensorflow/tfjs-core/dist/base.js";
import { add } from "@tensorflow/tfjs-core/dist/ops/add.js";
import { concat } from "@tensorflow/tfjs-core/dist/ops/concat.js";
import { conv2d } from "@tensorflow/tfjs-core/dist/ops/conv2d.js";
import { matMul } from "@tensorflow/tfjs-core/dist/ops/mat_mul.js";
import { mean } from "@tensorflow/tfjs-core/dist/ops/mean.js";
import { mul } from "@tensorflow/tfjs-core/dist/ops/mul.js";
import { relu } from "@tensorflow/tfjs-core/dist/ops/relu.js";
import { reshape } from "@tensorflow/tfjs-core/dist/ops/reshape.js";
import { resizeNearestNeighbor } from "@tensorflow/tfjs-core/dist/ops/image/resize_nearest_neighbor.js";
import { rsqrt } from "@tensorflow/tfjs-core/dist/ops/rsqrt.js";
import { sigmoid } from "@tensorflow/tfjs-core/dist/ops/sigmoid.js";
import { slice } from "@tensorflow/tfjs-core/dist/ops/slice.js";
import { square } from "@tensorflow/tfjs-core/dist/ops/square.js";
import { sub } from "@tensorflow/tfjs-core/dist/ops/sub.js";
import { tanh } from "@tensorflow/tfjs-core/dist/ops/tanh.js";
import { transpose } from "@tensorflow/tfjs-core/dist/ops/transpose.js";
import "@tensorflow/tfjs-backend-wasm/dist/base.js";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm/dist/backend_wasm.js";
import { _fusedMatMulConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/_FusedMatMul.js";
import { addConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Add.js";
import { batchMatMulConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/BatchMatMul.js";
import { castConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Cast.js";
import { concatConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Concat.js";
import { conv2DConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Conv2D.js";
import { identityConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Identity.js";
import { meanConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Mean.js";
import { multiplyConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Multiply.js";
import { reluConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Relu.js";
import { reshapeConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Reshape.js";
import { resizeNearestNeighborConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/ResizeNearestNeighbor.js";
import { rsqrtConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Rsqrt.js";
import { sigmoidConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Sigmoid.js";
import { sliceConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Slice.js";
import { squareConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Square.js";
import { subConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Sub.js";
import { tanhConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Tanh.js";
import { transposeConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Transpose.js";

for (const config of [
  _fusedMatMulConfig, addConfig, batchMatMulConfig, castConfig, concatConfig, conv2DConfig, identityConfig, meanConfig,
  multiplyConfig, reluConfig, reshapeConfig, resizeNearestNeighborConfig, rsqrtConfig, sigmoidConfig, sliceConfig,
  squareConfig, subConfig, tanhConfig, transposeConfig,
]) registerKernel(config);

// Start the backend from the bytes of its WebAssembly; nothing is fetched.
async function start(wasm) {
  env().platform.fetch = async () => new Response(wasm, { headers: { "Content-Type": "application/wasm" } });
  setWasmPaths("embedded/", true);
  await setBackend("wasm");
  await ready();
}

globalThis.tf = {
  start, tensor, tidy, add, concat, conv2d, matMul, mean, mul, relu, reshape, resizeNearestNeighbor, rsqrt, sigmoid, slice,
  square, sub, tanh, transpose,
};
