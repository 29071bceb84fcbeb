"""Fuzzing every parser that reads what strangers send: `python -m tests.hostile.fuzz --minutes 60`, or `make fuzz MINUTES=60`.

Hypothesis changes valid files: bytes, slices, tokens that mean something there; in shards also the metadata behind checksums,
which are set right again. A parser must give content or a WorldModelError of one line; another exception, a death of the
process, five seconds of computing, a minute of silence or gigabytes of memory are a bug. The input at hand is always on disk,
and named if it fails: `python -m tests.hostile.fuzz --target index --input FILE` asks it again. Hypothesis shrinks it, unless
the process died of it.

`corpus/TARGET/` holds inputs of each kind that is refused; each run asks them first.
"""

import argparse
import contextlib
import faulthandler
import functools
import hashlib
import io
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import gymnasium
import hypothesis
import numpy as np
import torch
from gymnasium.spaces import Box
from hypothesis import strategies as st

from tests.builders import made_latent_schema, made_rollout_schema, make_episode, make_latents, make_shard, rollout_spec
from tests.hostile.pieces import mended, pieces_of
from tests.view.conftest import mdn_rnn_bytes
from worldmodel_v.autoencoders.artifact import from_bytes, save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.errors import ShardDamaged, WorldModelError
from worldmodel_v.pipeline import load_pipeline
from worldmodel_v.policies import StableBaselinesPolicy
from worldmodel_v.policies.checkpoint import _read_weights, torch_threads_kept
from worldmodel_v.policies.expression import parse_policy
from worldmodel_v.policies.torch_file import tensors_in
from worldmodel_v.schema import ActionSpace
from worldmodel_v.storage import DatasetWriter, Shard, build_shard, open_dataset, verify
from worldmodel_v.storage.index import IndexEntry, read_index
from worldmodel_v.storage.set_aside import SET_ASIDE_NAME, SetAside, read_set_aside, write_set_aside
from worldmodel_v.training.checkpoint import Checkpoint
from worldmodel_v.untrusted import parse_object
from worldmodel_v.view.dream import read_mdn_rnn

MAX_SECONDS = 5
"""Of computing, for one input: far more than any takes; on a busy machine too, where another clock would run on."""

MAX_SILENCE_SECONDS = 60
"""For one input, whoever else computes: what waits for ever is seen."""

MAX_MEMORY_BYTES = 6 << 30
"""Of address space: what the process has with torch loaded, and a gigabyte or two."""

CORPUS = Path(__file__).parent / "corpus"
SPEC_HASH = "c" * 64
JSON_TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"null",
    b"true",
    b"NaN",
    b"1e999",
    b"-1",
    b"9" * 30,
    b'"../x"',
    b"\n",
    b"\\",
]
NUMBER_TOKENS = [
    (2**bits + add).to_bytes(9, "little", signed=True)[:8] for bits in (0, 8, 16, 31, 32, 48, 60, 63) for add in (-1, 0)
]
YAML_TOKENS = [
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object/apply:os.system ",
    b"!!int ",
    b"!!timestamp ",
    b"- ",
    b"? ",
    b"{",
    b"}",
    b"[",
    b"]",
]
YAML_TOKENS += [
    b"|\n",
    b"...\n",
    b"---\n",
    b".inf",
    b"0x" + b"f" * 40,
    b"1:1:1",
    b"%YAML 9.9\n",
    b"\t",
    b"#",
    b"'",
    b'"',
    b": ",
    b"\n",
]
POLICY_TOKENS = [
    b"(",
    b")",
    b",",
    b"*",
    b"=",
    b"-1e999",
    b"mixture(",
    b"driver",
    b"a:b",
    b"checkpoint:m:f:/x",
    b".",
    b"noise=",
    b" ",
    b"\n",
]
PICKLE_TOKENS = [
    *(b"R", b"b", b"Q", b".", b"(", b"t", b"}", b"s", b"u", b"0", b"h\x00", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f"),
    *(b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x85", b"\x86", b"\x87"),
    *(b"c__builtin__\nbytearray\n", b"ctorch\nFloatTensor\n", b"ctorch._utils\n_rebuild_sparse_tensor\n", b"cos\nsystem\n"),
    *(b"ctorch\nDoubleStorage\n", b"ctorch\nSize\n", b"ccollections\nCounter\n", b"c_codecs\nencode\n"),
]


# What each parser does with a file, and what must hold


RNN_VAE = "a" * 64
RNN_ACTIONS = {"type": "Box", "dtype": "float32", "shape": [2], "low": -1, "high": 1}


def read_shard(content: bytes, folder: Path) -> None:
    """All that can be asked of a shard."""
    path = folder / "000000.h5"
    path.write_bytes(content)
    with _opened(path) as shard:
        assert len(shard.policies) == len(shard.episode_ids) == shard.num_episodes
        assert len(shard.attributes) >= 4
        shard.check()
        for name, (dtype, shape) in shard.columns.items():
            rows = shard.rows(name)
            assert (rows.dtype, rows.shape) == (dtype, shape)
        for position in range(shard.num_episodes):
            assert shard.episode(position).num_rows == shard.ep_len[position]


def _opened(path: Path) -> Shard:
    """A shard of any of the schemas that there are examples of; raises ShardDamaged if it is of none."""
    *others, last = (
        *(make(num_factors=factors) for make in (made_rollout_schema, made_latent_schema) for factors in (0, 2)),
        made_latent_schema(2),
    )
    for schema in others:
        with contextlib.suppress(ShardDamaged):
            return Shard.open(path, schema)
    return Shard.open(path, last)


def read_lines(content: bytes, folder: Path) -> None:
    """An index; what was read must come back from its own lines."""
    (folder / "index.jsonl").write_bytes(content)
    entries = read_index(folder / "index.jsonl")
    (folder / "index.jsonl").write_text("".join(entry.to_line() + "\n" for entry in entries))
    assert read_index(folder / "index.jsonl") == entries


def read_note(content: bytes, folder: Path) -> None:
    """A note of what was set aside, which must come back as it was read."""
    (folder / SET_ASIDE_NAME).write_bytes(content)
    episodes = read_set_aside(folder)
    write_set_aside(folder, episodes)
    assert read_set_aside(folder) == episodes


def read_description(content: bytes, folder: Path) -> None:
    """A dataset.json with an index and a shard beside it."""
    data = folder / "data"
    if not data.exists():
        with DatasetWriter(data, rollout_spec()) as writer:
            writer.commit(0, make_shard())
    (data / "dataset.json").write_bytes(content)
    dataset = open_dataset(data)
    assert parse_object(content)["spec"] == dataset.spec.settings()
    verify(dataset)


def read_weights(content: bytes, _: Path) -> None:
    """A VAE, which must then be one."""
    vae = from_bytes(content, "vae.safetensors")
    assert min(vae.model.config.frame_shape) >= 8


def read_rnn(content: bytes, folder: Path) -> None:
    """An MDN-RNN for a page, which must then fit the VAE and the actions."""
    (folder / "mdn_rnn.safetensors").write_bytes(content)
    model = read_mdn_rnn(folder, vae_sha256=RNN_VAE, latent_dim=3, actions=ActionSpace(RNN_ACTIONS))
    assert model.tensors["head.weight"].shape == (2 + 9 * model.mixtures, model.hidden)


def read_checkpoint(content: bytes, _: Path) -> None:
    """A checkpoint, put back into the training that it is of."""
    checkpoint = Checkpoint.from_bytes(content, "checkpoint.safetensors")
    model = VAE(SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.restore(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def read_pipeline(content: bytes, folder: Path) -> None:
    """A pipeline file."""
    (folder / "pipeline.yaml").write_bytes(content)
    load_pipeline(folder / "pipeline.yaml", folder / "out")


def read_policy(content: bytes, _: Path) -> None:
    """A policy's line, which must come back from what was read."""
    text = content.decode(errors="replace")
    expression = parse_policy(text)
    assert str(parse_policy(str(expression))) == str(expression)


def read_torch_file(content: bytes, folder: Path) -> None:
    """A `.pt` of weights, none of which may claim more than the file holds."""
    (folder / "w.pt").write_bytes(content)
    for _, tensor in tensors_in(_read_weights(folder / "w.pt")):
        assert tensor.numel() * tensor.element_size() <= len(content)


def read_sb3(content: bytes, folder: Path) -> None:
    """What a zip of Stable-Baselines3 says beside its weights, as far as a policy for an environment."""
    with zipfile.ZipFile(folder / "m.zip", "w") as archive:
        archive.writestr("data", content)
        archive.writestr("policy.pth", _sb3_weights())
    env = gymnasium.Env()
    env.observation_space, env.action_space = Box(-1, 1, (3,)), Box(-2, 2, (2,))
    with torch_threads_kept("sb3:"):
        StableBaselinesPolicy(env, folder / "m.zip").act(np.zeros(3))


# Valid files to begin with


SMALL = VAEConfig(frame_height=8, frame_width=8, latent_dim=2, architecture="mlp")
PIPELINE = Path(__file__).parents[2] / "pipelines" / "quickstart.yaml"


@functools.cache
def _shards() -> list[bytes]:
    attributes = {"vae_sha256": "a" * 64, "source_sha256": "b" * 64}
    return [
        build_shard([make_episode(i, 70, num_factors=2) for i in range(2)], spec_hash=SPEC_HASH),
        build_shard([make_latents(i, 70, num_factors=2) for i in range(2)], spec_hash=SPEC_HASH, attributes=attributes),
        build_shard([make_latents(0, 9000, latent_dim=2)], spec_hash=SPEC_HASH),
        build_shard([make_latents(i, 1) for i in range(600)], spec_hash=SPEC_HASH),
    ]


@functools.cache
def _checkpoint() -> bytes:
    model = VAE(SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return Checkpoint.of(1, {"steps": 3, "data": "x"}, model, optimizer).to_bytes()


@functools.cache
def _sb3_weights() -> bytes:
    layers = {"mlp_extractor.policy_net.0": (4, 3), "action_net": (2, 4), "value_net": (1, 4)}
    weights = {f"{name}.weight": torch.ones(shape) for name, shape in layers.items()}
    weights |= {f"{name}.bias": torch.ones(shape[0]) for name, shape in layers.items()} | {"log_std": torch.ones(2)}
    torch.save(weights, buffer := io.BytesIO())
    return buffer.getvalue()


def _sb3_data() -> bytes:
    def box(size: int, bound: float) -> dict[str, object]:
        bounds = {"low": str(np.full(size, -bound)), "high": str(np.full(size, bound))}
        return {":type:": "<class 'gymnasium.spaces.box.Box'>", "dtype": "float32", "_shape": [size], **bounds}

    policy_kwargs = {"activation_fn": "<class 'torch.nn.modules.activation.ReLU'>", "squash_output": False, "clip_mean": 2.0}
    data = {
        "policy_class": {"__module__": "stable_baselines3.common.policies"},
        "policy_kwargs": policy_kwargs,
        "use_sde": False,
    }
    return json.dumps({**data, "observation_space": box(3, 1), "action_space": box(2, 2), "_last_original_obs": None}).encode()


def _lines() -> bytes:
    entries = [
        IndexEntry(shard=i, first_episode=2 * i, num_episodes=2, num_rows=12, bytes=10, sha256=64 * str(i)) for i in range(3)
    ]
    return "".join(entry.to_line() + "\n" for entry in entries).encode()


def _note() -> bytes:
    where = {"first_episode": 4, "num_episodes": 2, "shard": 2, "seed": 3, "tries": 4}
    lines = [vars(SetAside(episode=episode, reason="ValueError: é", **where)) for episode in (4, 5)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _description() -> bytes:
    return json.dumps(rollout_spec().to_json(), indent=2).encode()


# How they are changed


Change = tuple[float, int, bytes]
"""Where (as a share of the file), how many bytes are taken away, and what stands there instead."""


def changed(content: bytes, changes: list[Change]) -> bytes:
    """A file after some changes."""
    for where, length, instead in changes:
        at = int(where * (len(content) + 1))
        content = content[:at] + instead + content[at + length :]
    return content


def changes(tokens: list[bytes]) -> st.SearchStrategy[list[Change]]:
    """Some changes, with tokens that mean something in such a file."""
    instead = st.sampled_from(tokens) | st.binary(max_size=8)
    where = st.floats(0, 1, exclude_max=True)
    return st.lists(st.tuples(where, st.integers(0, 40) | st.just(10**9), instead), min_size=1, max_size=4)


def texts(start: Callable[[], bytes], tokens: list[bytes]) -> st.SearchStrategy[bytes]:
    """A valid text, changed; or tokens alone, also many of one."""
    alone = st.lists(st.sampled_from(tokens), max_size=30).map(b"".join)
    many = st.tuples(st.sampled_from(tokens), st.integers(1, 5000)).map(lambda pair: pair[0] * pair[1])
    return st.one_of(changes(tokens).map(lambda each: changed(start(), each)), alone, many)


@st.composite
def shards(draw: st.DrawFn) -> bytes:
    """A shard in which one to three pieces were changed, its checksums being right; or plainly damaged."""
    image = draw(st.sampled_from(_shards()))
    if draw(st.integers(0, 9)) == 0:
        return changed(image, draw(changes(NUMBER_TOKENS)))
    pieces = _pieces(image)
    metadata = [piece for piece in pieces if piece.kind != "chunk"]
    edited = bytearray(image)
    for _ in range(draw(st.integers(1, 3))):
        piece = draw(st.sampled_from(pieces if draw(st.integers(0, 5)) == 0 else metadata))
        at = piece.start + draw(st.integers(0, piece.size - 1))
        new = draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from(NUMBER_TOKENS).flatmap(lambda token: st.sampled_from([token[:size] for size in (1, 2, 4, 8)]))
            | st.sampled_from(metadata).map(lambda other: other.start.to_bytes(8, "little"))
            | st.just(bytes([edited[at] ^ (1 << draw(st.integers(0, 7)))]))
        )
        new = new[: piece.start + piece.size - at]
        edited[at : at + len(new)] = new
    return mended(edited, pieces)


_pieces = functools.cache(pieces_of)


@st.composite
def tensors(draw: st.DrawFn, start: Callable[[], bytes]) -> bytes:
    """A safetensors file with another header, whose length is right; or plainly damaged."""
    content = start()
    end = 8 + int.from_bytes(content[:8], "little")
    if draw(st.booleans()):
        return changed(content, draw(changes([*NUMBER_TOKENS, *JSON_TOKENS])))
    tokens = [*JSON_TOKENS, b'"F64"', b'"F8_E4M3"', b'"BOOL"', b"[0,0]", b"[1152921504606846976]", b"0", b'"F32"', b"1", b"2"]
    header = changed(content[8:end], draw(changes(tokens)))
    return len(header).to_bytes(8, "little") + header + content[end:]


@st.composite
def torch_files(draw: st.DrawFn) -> bytes:
    """A file of torch.save with another pickle; or plainly damaged."""
    start = _sb3_weights()
    if draw(st.booleans()):
        return changed(start, draw(changes(NUMBER_TOKENS)))
    with zipfile.ZipFile(io.BytesIO(start)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = changed(members[name], draw(changes(PICKLE_TOKENS)))
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


TARGETS: dict[str, tuple[Callable[[bytes, Path], None], st.SearchStrategy[bytes]]] = {
    "shard": (read_shard, shards()),
    "index": (read_lines, texts(_lines, [*JSON_TOKENS, b'"shard": 0', b'"bytes"'])),
    "note": (read_note, texts(_note, [*JSON_TOKENS, b'"shard": 0', b'"reason"'])),
    "description": (read_description, texts(_description, JSON_TOKENS)),
    "weights": (read_weights, tensors(functools.cache(lambda: save(VAE(SMALL))))),
    "rnn": (read_rnn, tensors(functools.cache(lambda: mdn_rnn_bytes(ActionSpace(RNN_ACTIONS), RNN_VAE, latent_dim=3)))),
    "checkpoint": (read_checkpoint, tensors(_checkpoint)),
    "pipeline": (read_pipeline, texts(PIPELINE.read_bytes, YAML_TOKENS)),
    "sb3": (read_sb3, texts(_sb3_data, [*JSON_TOKENS, b'"_shape"', b"Discrete", b'"n"', b'"nvec"', b"[inf]"])),
    "torch": (read_torch_file, torch_files()),
    "policy": (read_policy, texts(lambda: b"mixture(4*driver(noise=0.2), random-start(driver), 1*brownian)", POLICY_TOKENS)),
}
"""What is fuzzed: what reads the file, and the files."""


def ask(target: str, content: bytes, folder: Path) -> None:
    """Give one input to a target's parser; raises whatever is no WorldModelError of one short line."""
    (folder / f"{target}.last").write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    faulthandler.dump_traceback_later(MAX_SILENCE_SECONDS, exit=True)
    try:
        TARGETS[target][0](content, folder)
    except WorldModelError as error:
        if "\n" in str(error) or len(str(error)) > 3000:
            raise AssertionError(f"a message of several lines or {len(str(error))} characters: {error}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)


def corpus(target: str) -> list[Path]:
    """The inputs of a target that are kept."""
    return sorted((CORPUS / target).iterdir())


def fuzz(target: str, folder: Path, *, seed: int, seconds: float = 0, inputs: int = 0) -> int:
    """Ask a target's parser so often, or for some time; returns how often. Raises what `ask` raises, for the smallest input."""
    asked, end = 0, math.inf  # the time begins with the first input: making the valid files takes a while
    options = {"database": None, "deadline": None, "print_blob": False, "suppress_health_check": list(hypothesis.HealthCheck)}

    def one(content: bytes) -> None:
        nonlocal asked, end
        if not asked and not inputs:
            end = time.monotonic() + seconds
        if time.monotonic() < end:
            asked += 1
            ask(target, content, folder)

    while time.monotonic() < end:
        test = hypothesis.given(TARGETS[target][1])(one)
        hypothesis.settings(max_examples=inputs or 300, **options)(hypothesis.seed(seed)(test))()
        seed += 1
        if inputs:
            break
    return asked


def main() -> None:
    """Ask the corpus, then fuzz the targets in turn; the input that fails, or that a process dies of, is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--inputs", type=int, default=0, help="so many for each target, and not by time")
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="where chance begins; printed")
    parser.add_argument("--input", type=Path, help="ask a target with this file, once")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    if process := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code and (asked := sorted(folder.glob("*.last"), key=lambda file: file.stat().st_mtime_ns)):
            failed = asked[-1]
            name = hashlib.sha256(failed.read_bytes()).hexdigest()[:12]
            sys.exit(f"{failed} fails; keep it: cp {failed} {CORPUS / failed.stem / name}")
        shutil.rmtree(folder)
        sys.exit(code and 1)
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    if options.input:
        ask(options.target, options.input.read_bytes(), folder)
    else:
        ask_all(folder, [options.target] if options.target else list(TARGETS), options)


def ask_all(folder: Path, names: list[str], options: argparse.Namespace) -> None:
    """The corpus of the targets, then what chance makes of them, minute by minute, so that a night visits all of them often."""
    sys.stdout.write(f"seed {options.seed}\n")
    kept = [(name, file) for name in names for file in corpus(name)]
    for name, file in kept:
        ask(name, file.read_bytes(), folder)
    sys.stdout.write(f"corpus: {len(kept)} inputs\n")
    rounds = 1 if options.inputs else max(1, int(options.minutes))
    for number in range(rounds):
        for name in names:
            seconds = 60 * options.minutes / rounds / len(names)
            asked = fuzz(name, folder, seed=options.seed + number * 10**6, seconds=seconds, inputs=options.inputs)
            sys.stdout.write(f"{name}: {asked} inputs\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
