"""Policies as ONNX files."""

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.policies.test_policies import CAR, SpaceOnly
from worldmodel_v.errors import PackageMissing, PolicyNotUsable
from worldmodel_v.policies import make_policy, policy_weights
from worldmodel_v.storage.checksum import sha256_of_file

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FRAME = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def write_mean_of_channels(file: Path, input_dims: int = 4, external: bool = False, side: int | None = None) -> None:
    """The mean of each channel, times a weight of its own."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("weight", TensorProto.FLOAT, [3], np.array([1, -2, 4], np.float32).tobytes(), raw=True)
    if external:
        onnx.external_data_helper.set_external_data(weight, "weight.bin")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, side, side][-input_dims:])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [-2, -1])
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "weight"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file.write_bytes(model.SerializeToString())


def test_the_frame_goes_in_scaled_and_channels_first_and_the_action_comes_out(tmp_path: Path) -> None:
    write_mean_of_channels(tmp_path / "p.onnx")
    policy = make_policy(f"onnx:{tmp_path}/p.onnx", SpaceOnly(CAR))
    policy.reset(np.random.default_rng(0))
    expected = FRAME.mean(axis=(0, 1)) / 255 * [1, -2, 4]
    np.testing.assert_allclose(policy.act(FRAME), expected, rtol=1e-6)


def test_a_frame_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_mean_of_channels(tmp_path / "p.onnx", side=8)
    policy = make_policy(f"onnx:{tmp_path}/p.onnx", SpaceOnly(CAR))
    text = r"fails on float32 \[1, 3, 4, 4\]: .* Got: 4 Expected: 8.*; a frame is the environment's own, neither cropped"
    with pytest.raises(ValueError, match=text):
        policy.act(FRAME)


def test_the_sha256_of_the_file_is_recorded(tmp_path: Path) -> None:
    write_mean_of_channels(file := tmp_path / "p.onnx")
    expected = {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert policy_weights(f"mixture(2*onnx:{file}, 1*random)") == expected


def test_its_path_may_begin_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mean_of_channels(tmp_path / "p.onnx")
    assert policy_weights("mixture(onnx:~/p.onnx)") == {"~/p.onnx": sha256_of_file(tmp_path / "p.onnx")}
    make_policy("mixture(onnx:~/p.onnx)", SpaceOnly(CAR))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"external": True}, "cannot be read: ValueError: its weights stand in another file; export the network whole"),
        ({"input_dims": 3}, "expected one, tensor(float) [1, 3, H, W]; export it so"),
    ],
)
def test_a_network_of_another_kind_is_refused(tmp_path: Path, kwargs: dict[str, int], text: str) -> None:
    write_mean_of_channels(tmp_path / "p.onnx", **kwargs)  # type: ignore[arg-type]
    with pytest.raises(PolicyNotUsable, match=re.escape(text)):
        make_policy(f"onnx:{tmp_path}/p.onnx", SpaceOnly(CAR))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.onnx").write_bytes(b"nothing")
    with pytest.raises(PolicyNotUsable, match=r"p\.onnx cannot be read: .*; export the network whole"):
        make_policy(f"onnx:{tmp_path}/p.onnx", SpaceOnly(CAR))


def test_a_missing_package_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mean_of_channels(tmp_path / "p.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        PackageMissing, match=r"needs onnxruntime, which is not installed; pip install 'worldmodel_v\[export\]'$"
    ):
        make_policy(f"onnx:{tmp_path}/p.onnx", SpaceOnly(CAR))
