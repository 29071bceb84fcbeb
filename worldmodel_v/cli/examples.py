"""The examples at the end of each command's help."""

from collections.abc import Sequence

EXAMPLES = {
    "wm-collect": (
        "wm-collect --out runs/rollouts --episodes 40",
        "wm-collect --out runs/pong --env ALE/Pong-v5 --policy random --episodes 20",
    ),
    "wm-train": (
        "wm-train --data runs/rollouts --out runs/vae --steps 2000 --batch-size 32",
        "wm-train --data runs/rollouts --out runs/paper --architecture ha2018 --likelihood gaussian --kl-tolerance 0.5",
    ),
    "wm-eval": ("wm-eval --vae runs/vae --data runs/rollouts --out runs/eval",),
    "wm-encode": ("wm-encode --data runs/rollouts --vae runs/vae --out runs/latents",),
    "wm-view": (
        "wm-view --vae runs/vae --data runs/rollouts --out view.html",
        "wm-view --vae runs/vae --data runs/rollouts --rnn runs/mdn_rnn --out view.html",
    ),
    "wm-select": (
        "wm-select --data runs/rollouts runs/more --out runs/both",
        'wm-select --data runs/rollouts --out runs/driven --where "return > 100 and length < 900"',
        "wm-select --data runs/rollouts --out runs/for-training --share 0:0.9",
    ),
    "wm-import": (
        "wm-import npz --from recorded --out runs/imported",
        "wm-import npz --from recorded --out runs/imported --frames obs --action act --action-space discrete:5",
    ),
    "wm-import hardmaru": ("wm-import hardmaru --from carracing/record --out runs/imported",),
    "wm-import ctallec": ("wm-import ctallec --from datasets/carracing --out runs/imported",),
    "wm-import minari": ("wm-import minari --from ~/.minari/datasets/NAME-v0 --out runs/imported",),
    "wm-import video": (
        "wm-import video --from rides --out runs/imported",
        "wm-import video --from rides --out runs/imported --action steer gas brake --frame-size 64",
    ),
    "wm-import lerobot": (
        "wm-import lerobot --from pusht --out runs/imported --frame-size 96",
        "wm-import lerobot --from aloha --out runs/imported --camera top --frame-size 64",
    ),
    "wm-import stable-worldmodel": ("wm-import stable-worldmodel --from pusht.lance --out runs/imported",),
    "wm-import npz": ("wm-import npz --from recorded --out runs/imported",),
    "wm-inspect": (
        "wm-inspect runs/rollouts --verify --preview frames.png",
        "wm-inspect runs/rollouts --video episode.gif --episode 3",
        "wm-inspect runs/latents --data runs/rollouts --vae runs/vae",
    ),
    "wm-export": (
        "wm-export npz --data runs/latents --out npz",
        "wm-export model --vae runs/vae --data runs/rollouts --out onnx",
    ),
    "wm-export hardmaru": ("wm-export hardmaru --data runs/latents --out series",),
    "wm-export zacwellmer": ("wm-export zacwellmer --data runs/latents --out series",),
    "wm-export adsp": ("wm-export adsp --data runs/latents --out series",),
    "wm-export ctallec": ("wm-export ctallec --data runs/rollouts --out ctallec",),
    "wm-export minari": ("wm-export minari --data runs/rollouts --out car-racing-v0",),
    "wm-export stable-worldmodel": ("wm-export stable-worldmodel --data runs/rollouts --out swm",),
    "wm-export lance": ("wm-export lance --data runs/rollouts --out swm",),
    "wm-export lerobot": ("wm-export lerobot --data runs/rollouts --out lerobot --fps 50",),
    "wm-export dreamer4": ("wm-export dreamer4 --data runs/rollouts --out dreamer4 --task drive",),
    "wm-export parquet": ("wm-export parquet --data runs/rollouts --out parquet",),
    "wm-export npz": ("wm-export npz --data runs/latents --out npz",),
    "wm-export hub": (
        "wm-export hub --data runs/rollouts --repo me/car-racing --out hub --license cc-by-4.0",
        "wm-export hub --vae runs/vae --repo me/car-racing-vae --out hub-vae --upload",
    ),
    "wm-export model": ("wm-export model --vae runs/vae --data runs/rollouts --out onnx",),
    "wm-pipeline": (
        "wm-pipeline init && wm-pipeline run quickstart.yaml --out runs/quickstart",
        "wm-pipeline run quickstart.yaml --out runs/short --train.steps 500",
    ),
    "wm-pipeline init": ("wm-pipeline init", "wm-pipeline init mine.yaml --template paper"),
    "wm-pipeline run": (
        "wm-pipeline run quickstart.yaml --out runs/quickstart",
        "wm-pipeline run quickstart.yaml --out runs/short --collect.episodes 8 --train.steps 500",
    ),
    "wm-pipeline submit": ("wm-pipeline submit cluster.yaml --address http://head:8265 --out /data/run",),
    "wm-pipeline status": ("wm-pipeline status --address http://head:8265",),
    "wm-pipeline logs": ("wm-pipeline logs JOB --follow --address http://head:8265",),
    "wm-pipeline stop": ("wm-pipeline stop JOB --address http://head:8265",),
}
"""A command, with its subcommand -> command lines."""


def examples_of(program: str, words: Sequence[str]) -> str:
    """What follows the help that those words of a command line ask for: the first may be a subcommand. Nothing for a program
    that is none of the commands."""
    lines = EXAMPLES.get(f"{program} {words[0]}") or EXAMPLES.get(program)
    return "".join(["examples:\n", *(f"  {line}\n" for line in lines)]) if lines else ""
