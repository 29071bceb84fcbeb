// Bundles entry.js and its kernels: tf.js and tf.wasm.gz. How to run it is in README.md.
import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const wasm = "node_modules/@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm-simd.wasm";
const licences = `/*! Parts of TensorFlow.js 4.22.0. Copyright Google LLC.\n\n${["LICENSE", "LICENSE.XNNPACK"]
  .map((name) => readFileSync(name, "utf8")).join("\n\n")}*/`;
const withoutThreads = {
  // The variant with threads needs headers that a file on disk does not have.
  name: "without-threads",
  setup(builder) {
    builder.onLoad({ filter: /threaded-simd(\.worker)?\.js$/ }, () => ({
      contents: "export default null; export const wasmWorkerContents = '';",
    }));
    builder.onResolve({ filter: /^(fs|path|worker_threads|perf_hooks|os|util|node-fetch|string_decoder|crypto|seedrandom)$/ }, () => ({
      path: "nothing", namespace: "nothing",
    }));
    builder.onLoad({ filter: /.*/, namespace: "nothing" }, () => ({ contents: "export default {};" }));
  },
};

await build({
  entryPoints: ["entry.js"], bundle: true, minify: true, format: "iife", target: "es2022", charset: "ascii",
  legalComments: "none", banner: { js: licences }, plugins: [withoutThreads], outfile: "tf.js", logOverride: { "import-is-undefined": "silent" },
});
const bundle = readFileSync("tf.js", "utf8");
if (bundle.includes("</script")) throw new Error("the bundle would end its own script element");
writeFileSync("tf.wasm.gz", gzipSync(readFileSync(wasm), { level: 9 }));
