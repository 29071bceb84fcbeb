"""The built-in autoencoders after the same steps on the same frames, and a world model over tokens, as Markdown.

    python benchmarks/tokens.py [--out DIR] [--steps N] [--transformer-steps N] [--kinds gaussian spatial …]

40 episodes of CarRacing, every 8th held out; each autoencoder with its defaults, batches of 32 frames, one run. Figures are
those of `wm-eval`. They are no comparison at equal rate: the autoencoders store different numbers of bits. If `fsq` is among
the kinds, the transformer of `examples/train_token_transformer.py` is trained on its tokens. A second run with the same --out
continues.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from _machine import describe_machine
from _rollouts import collect_rollouts

from worldmodel_v.autoencoders.registry import BUILT_IN
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.evaluation.stage import Summary
from worldmodel_v.progress import Silent
from worldmodel_v.training import train, train_config

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from train_token_transformer import TransformerConfig, train_and_dream

NATS_TO_BITS = 1.4427
HEAD = "| | PSNR | SSIM | bits of a frame that are used | perplexity | dead codes |\n|---|---|---|---|---|---|"


def measured(kind: str, rollouts: Path, folder: Path, steps: int) -> Summary:
    """Train it, and evaluate it on held-out episodes."""
    settings = {"steps": steps, "batch_size": 32, "holdout_every": 8, "device": "cpu"}
    train(train_config(kind)(data=rollouts, out=folder / kind, autoencoder=kind, **settings))
    return evaluate(EvalConfig(vae=folder / kind, data=rollouts, out=folder / f"{kind}_eval", device="cpu")).summary


def row(kind: str, found: Summary) -> str:
    """A line of the table."""
    start = f"| `{kind}` | {found.psnr_db:.1f} dB | {found.ssim:.3f} |"
    if found.kl_nats is not None:
        return f"{start} KL {found.kl_nats:.0f} nats, {NATS_TO_BITS * found.kl_nats:.0f} bits | | |"
    used = f"{found.entropy_bits:.0f} of {found.capacity_bits:.0f}"
    return f"{start} {used} | {found.perplexity:.0f} | {found.dead_codes} of {found.num_codes} |"


def forecasts(rollouts: Path, folder: Path, steps: int) -> str:
    """What a transformer over the tokens of `fsq` forecasts, beside the example's baselines."""
    encode(EncodeConfig(data=rollouts, vae=folder / "fsq", out=folder / "tokens", device="cpu"))
    out = folder / "transformer"
    train_and_dream(
        TransformerConfig(latents=folder / "tokens", vae=folder / "fsq", out=out, steps=steps, device="cpu"), Silent()
    )
    scores = json.loads((out / "metrics.json").read_text())["scores"]
    lines = [f"| {name} | {each['nll_bits']:.0f} | {each['accuracy']:.1%} |" for name, each in scores.items()]
    return "\n".join(["| forecast of the next frame's tokens | bits a frame | tokens right |", "|---|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where all of it goes; by default a temporary directory")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--transformer-steps", type=int, default=150)
    parser.add_argument("--kinds", nargs="+", choices=BUILT_IN, default=list(BUILT_IN), help="by default all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        rollouts = collect_rollouts(folder / "rollouts")
        rows = [row(kind, measured(kind, rollouts, folder, options.steps)) for kind in options.kinds]
        print(describe_machine("torch", "numpy"))
        print("\n".join([HEAD, *rows]))
        if "fsq" in options.kinds:
            print("", forecasts(rollouts, folder, options.transformer_steps), sep="\n")


if __name__ == "__main__":
    main()
