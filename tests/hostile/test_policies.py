"""Policies' weights that would take more memory than their file backs."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tests.policies.test_policies import CAR, SpaceOnly
from worldmodel_v.errors import PolicyNotUsable
from worldmodel_v.policies import make_policy

GIB = 1 << 30
BOMB = torch.zeros(1).expand(30_000, 30_000)


def lazy(env: gymnasium.Env) -> torch.nn.Module:
    """Takes its shape from the weights, and so as much memory as they claim."""
    return torch.nn.LazyLinear(30_000, bias=False)


def saved(value: Any, **options: Any) -> bytes:
    torch.save(value, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_pickle(pickle: bytes) -> bytes:
    """A file of torch.save with another pickle."""
    return zip_of({name: pickle if name.endswith("data.pkl") else content for name, content in members(saved({})).items()})


def calling(name: str) -> bytes:
    """A pickle that makes one object of this type, of 1 GiB."""
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\nJ" + GIB.to_bytes(4, "little") + b"\x85R."


def overlapping() -> bytes:
    """A zip whose directory lists the bytes of one member two hundred times, under as many names."""
    content = zip_of({"x/data.pkl": b"\x80\x02}.", "x/data/0": bytes(100_000)})
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    last = content.index(b"PK\x01\x02", start + 4)
    lines = [content[last:end].replace(b"x/data/0", f"x/dat{i:03}".encode()) for i in range(200)]
    directory = content[start:last] + b"".join(lines)
    tail = content[end : end + 8] + 2 * (1 + len(lines)).to_bytes(2, "little") + len(directory).to_bytes(4, "little")
    return content[:start] + directory + tail + content[end + 16 :]


def two_directories() -> bytes:
    """A zip whose end says another place of its directory than the one in front of it, so that two readers see two zips."""
    packed = zip_of(members(saved({"weight": torch.zeros(2, 3)})), zipfile.ZIP_DEFLATED)
    return packed + zip_of({"data.pkl": b"\x80\x02}."})


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (
        lambda: zip_of(members(saved({"weight": torch.zeros(30_000, 300)})), zipfile.ZIP_DEFLATED),
        r"'archive/data\.pkl' in it is compressed",
    ),
    "one stored number": (lambda: saved({"weight": BOMB}), r"weight claims 3600000000 bytes, the whole file has \d{4}"),
    "nested": (lambda: saved({"ema": [{"a.weight": BOMB}]}), r"a\.weight claims 3600000000 bytes"),
    "sparse": (
        lambda: saved({"weight": torch.zeros(1, 1).to_sparse()}),
        r"weight is not dense",
    ),
    "bytes by number": (
        lambda: with_pickle(calling("__builtin__ bytearray")),
        r"its pickle makes a __builtin__\.bytearray of any size",
    ),
    "numbers by number": (
        lambda: with_pickle(calling("torch FloatTensor")),
        r"its pickle makes a torch\.FloatTensor of any size",
    ),
    "storage by number": (
        lambda: with_pickle(calling("torch.storage UntypedStorage")),
        r"its pickle makes a torch\.storage\.Unt",
    ),
    "overlapping": (overlapping, r"what is in it claims 20000004 bytes, the whole file has \d{6}"),
    "a name twice": (lambda: zip_of({"x/data.pkl": b"", "y/data.pkl": b""}).replace(b"y/", b"x/"), "a name stands in it twice"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_torch_file_that_would_grow_in_memory_is_refused_by_name(what: str, tmp_path: Path) -> None:
    make, text = BOMBS[what]
    (tmp_path / "w.pt").write_bytes(make())
    assert (tmp_path / "w.pt").stat().st_size < 1 << 20
    with pytest.raises(PolicyNotUsable, match=rf"^policy checkpoint: \S+/w\.pt may grow in memory: {text}"):
        make_policy(f"checkpoint:{__name__}:lazy:{tmp_path}/w.pt", gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize(
    "content",
    [saved({"weight": torch.zeros(1)}, _use_new_zipfile_serialization=False), b"nothing", two_directories()],
    ids=["from before PyTorch 1.6", "no zip", "two directories"],
)
def test_a_file_that_torch_alone_would_read_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(PolicyNotUsable, match=r"w\.pt (cannot be read as weights|does not fit the network)"):
        make_policy(f"checkpoint:{__name__}:lazy:{tmp_path}/w.pt", gymnasium.make("CartPole-v1"))


def test_a_safetensors_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = b'{"weight":{"dtype":"F32","shape":[30000,30000],"data_offsets":[0,3600000000]}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(PolicyNotUsable, match=r"w\.safetensors cannot be read as weights"):
        make_policy(f"checkpoint:{__name__}:lazy:{tmp_path}/w.safetensors", gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("operation", ["ConstantOfShape", "Expand"])
def test_an_onnx_file_that_would_grow_in_memory_is_refused(operation: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, ints, floats = onnx.helper.make_node, onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    sizes = onnx.helper.make_tensor("sizes", ints, [4], [1, 1, 30_000, 30_000])
    axes = onnx.helper.make_tensor("axes", ints, [2], [2, 3])
    nodes = [make("ReduceMean", ["x", "axes"], ["mean"], keepdims=1)]
    if operation == "Expand":
        nodes += [make("Expand", ["mean", "sizes"], ["large"]), make("ReduceMean", ["large", "axes"], ["y"], keepdims=0)]
    else:
        one = onnx.helper.make_tensor("value", floats, [1], [1.0])
        nodes += [make("ConstantOfShape", ["sizes"], ["large"], value=one), make("Mul", ["mean", "large"], ["product"])]
        nodes += [make("ReduceMean", ["product", "axes"], ["y"], keepdims=0)]
    of_type = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "g", [of_type("x", floats, [1, 3, None, None])], [of_type("y", floats, [1, 3])], [sizes, axes]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "p.onnx").write_bytes(model.SerializeToString())
    policy = make_policy(f"onnx:{tmp_path}/p.onnx", SpaceOnly(CAR))
    with pytest.raises(PolicyNotUsable, match=r"p\.onnx takes more than 1073741824 bytes for one action, without its weights"):
        policy.act(np.zeros((8, 8, 3), np.uint8))
