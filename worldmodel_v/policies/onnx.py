"""`onnx:FILE`: a network of any trainer as one ONNX file, run by onnxruntime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldmodel_v.errors import PackageMissing, PolicyNotUsable, one_line
from worldmodel_v.policies.acting import FRAME, OBSERVATION
from worldmodel_v.policies.checkpoint import require_weights
from worldmodel_v.policies.network import chosen_action, unusable_input

PREFIX = "onnx:"
MAX_BYTES = 2 << 30
"""What ONNX's own format (protobuf) can hold."""

MAX_MEMORY_BYTES = 1 << 30
"""Of all that the networks of a process compute, at once, without their weights: a few nodes (ConstantOfShape, Expand) can ask
for any size."""

OUT_OF_MEMORY = "Available memory of"
"""In onnxruntime's words."""


class OnnxPolicy:
    """A network as a policy: its one input is a frame, float32 (1, 3, H, W) in [0, 1], its first output an action (1, A),
    or logits (1, n) for discrete actions, of which the largest is taken. With `observation=1` the input is the environment's
    observation, an array, as float32 (1, …) and not scaled.

    All weights are in the file itself, so its SHA-256 identifies the policy. It runs on one CPU thread.
    """

    def __init__(self, env: gymnasium.Env, file: Path, *, observation: float = 0) -> None:
        """Raises PackageMissing without onnxruntime, and PolicyNotUsable if the file is no such network."""
        require_weights(file, MAX_BYTES)
        self._file, self._session = file, _session(file)
        self._space = env.action_space
        self.acts_on = OBSERVATION if observation else FRAME
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not (observation or len(inputs[0].shape) == 4):
            found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in inputs)
            expected = "[1, …], for observation=1" if observation else "[1, 3, H, W]"
            raise PolicyNotUsable(
                f"policy onnx: {file} has the inputs {found:.300}; expected one, tensor(float) {expected}; export it so"
            )
        self._input = inputs[0].name

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self, seen: np.ndarray) -> Any:
        x = _frame(seen) if self.acts_on == FRAME else np.array(seen, np.float32)[None]
        try:
            outputs = self._session.run(None, {self._input: x})
        except Exception as error:  # a class of onnxruntime
            if OUT_OF_MEMORY not in str(error):
                raise unusable_input(error, x.shape, self.acts_on) from None
            raise PolicyNotUsable(
                f"policy onnx: {self._file} takes more than {MAX_MEMORY_BYTES} bytes for one action, without its weights; "
                "export a smaller network"
            ) from None
        return chosen_action(outputs[0], self._space)


def _frame(frame: np.ndarray) -> np.ndarray:
    frame_HWC = frame if frame.ndim == 3 else frame[:, :, None]
    return np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def _session(file: Path) -> Any:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise PackageMissing(
            f"policy onnx: needs {error.name}, which is not installed; pip install 'worldmodel_v[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    _bound_memory(onnxruntime, options)
    try:
        content = file.read_bytes()
        graph = onnx.load_from_string(content).graph
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(graph)):
            raise ValueError("its weights stand in another file")
        folding = ["ConstantFolding"]  # it would compute parts of the network beforehand, without a bound
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=folding)
    except Exception as error:  # onnxruntime raises classes of its own
        raise PolicyNotUsable(
            f"policy onnx: {file} cannot be read: {one_line(error):.300}; export the network whole, in one .onnx file"
        ) from None


def _bound_memory(onnxruntime: Any, options: Any) -> None:
    """Have a session take its memory, except for its weights, from one pool of this process that ends at MAX_MEMORY_BYTES."""
    kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    limits = onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY_BYTES, "arena_extend_strategy": 1})  # 1: as much as is asked for
    onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", *kinds), limits)
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors in a graph and in the graphs inside it."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            if inner.node or inner.initializer:
                yield from _tensors(inner)
