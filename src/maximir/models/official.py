"""Official checkpoints: a table of their names and layouts, and the strict conversion.

Source: the parameter tree that the official `maxim/models/maxim.py` creates.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maximir.errors import MaximirError
from maximir.network.config import LEVELS, MaximConfig
from maximir.network.layers import ConvTranspose
from maximir.network.model import Maxim

PREFIX = "opt/target/"

# Our module path → the flax path, applied in order.
RULES = [
    (r"^stages\.(\d+)\.", r"stage_\1_"),
    (r"_bottlenecks\.(\d+)\.project$", r"_global_block_\1/input_proj"),
    (r"_bottlenecks\.(\d+)\.groups\.(\d+)\.0", r"_global_block_\1/SplitHeadMultiAxisGmlpLayer_\2"),
    (r"_bottlenecks\.(\d+)\.groups\.(\d+)\.1", r"_global_block_\1/channel_attention_block_1_\2"),
    (r"_encoders\.(\d+)\.block", r"_encoder_block_\1"),
    (r"_encoders\.(\d+)\.gate", r"_encoder_block_\1/cross_gating_block"),
    (r"_encoders\.(\d+)\.down", r"_encoder_block_\1/Conv_1"),
    (r"_decoders\.(\d+)\.block", r"_decoder_block_\1/UNetEncoderBlock_0"),
    (r"_decoders\.(\d+)\.up", r"_decoder_block_\1/ConvTranspose_0"),
    (r"_block_(\S+)\.project$", r"_block_\1/Conv_0"),
    (r"\.groups\.(\d+)\.0", r"/SplitHeadMultiAxisGmlpLayer_\1"),
    (r"\.groups\.(\d+)\.1", r"/channel_attention_block_1\1"),
    (r"_input_convs\.", "_input_conv_"),
    (r"_input_gates\.", "_input_fuse_sam_"),
    (r"_skip_gates\.", "_cross_gating_block_"),
    (r"_outputs\.(\d+)$", r"_output_conv_\1"),
    (r"_outputs\.(\d+)\.features", r"_supervised_attention_module_\1/Conv_0"),
    (r"_outputs\.(\d+)\.to_image", r"_supervised_attention_module_\1/Conv_1"),
    (r"_outputs\.(\d+)\.attention", r"_supervised_attention_module_\1/Conv_2"),
    # cross-gating
    (r"\.upsample_y", "/ConvTranspose_0"),
    (r"\.input_x", "/Conv_0"),
    (r"\.input_y", "/Conv_1"),
    (r"\.gate_([xy])\.norm", r"/SplitHeadMultiAxisGating_\1/LayerNorm_in"),
    (r"\.gate_([xy])\.grid", r"/SplitHeadMultiAxisGating_\1/Dense_0"),
    (r"\.gate_([xy])\.block", r"/SplitHeadMultiAxisGating_\1/Dense_1"),
    (r"\.gate_([xy])", r"/SplitHeadMultiAxisGating_\1"),
    (r"\.norm_([xy])", r"/LayerNorm_\1"),
    # multi-axis gMLP
    (r"(MultiAxisGmlpLayer_\d+)\.norm", r"\1/LayerNorm_in"),
    (r"\.grid\.gate_norm", "/GridGmlpLayer/GridGatingUnit/intermediate_layernorm"),
    (r"\.grid\.mix", "/GridGmlpLayer/GridGatingUnit/Dense_0"),
    (r"\.grid", "/GridGmlpLayer"),
    (r"\.block\.gate_norm", "/BlockGmlpLayer/BlockGatingUnit/intermediate_layernorm"),
    (r"\.block\.mix", "/BlockGmlpLayer/BlockGatingUnit/Dense_0"),
    (r"\.block", "/BlockGmlpLayer"),
    (r"\.project_(in|out)", r"/\1_project"),
    # channel attention
    (r"\.dense1", "/channel_mixing/Dense_0"),
    (r"\.dense2", "/channel_mixing/Dense_1"),
    (r"\.attention\.squeeze", "/channel_attention/Conv_0"),
    (r"\.attention\.excite", "/channel_attention/Conv_1"),
    (r"\.norm", "/LayerNorm"),
    (r"\.conv([12])", r"/conv\1"),
]
FUSION = re.compile(r"^stages\.(\d+)\.(encoder|skip)_fusions\.(\d+)\.scales\.(\d+)\.project$")


def official_path(module: str) -> str:
    """Return the flax path of one of our modules: `stages.0.input_convs.1` → `stage_0_input_conv_1`."""
    if match := FUSION.match(module):
        stage, level, source = int(match[1]), int(match[3]), int(match[4])
        # flax numbers them across the network in call order: levels from coarse to fine.
        number = 2 * LEVELS**2 * stage + LEVELS * (LEVELS - 1 - level) + source
        return f"UpSampleRatio_{number + (LEVELS**2 if match[2] == 'skip' else 0)}/Conv_0"
    for pattern, replacement in RULES:
        module = re.sub(pattern, replacement, module)
    assert "." not in module, module
    return module


@dataclass(frozen=True)
class Entry:
    """The official counterpart of one of our parameters.

    Attributes:
        key: official name without the prefix.
        shape: official shape.
        convert: official array → our tensor.
        restore: its inverse.
    """

    key: str
    shape: tuple[int, ...]
    convert: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor], Tensor]


def same(tensor: Tensor) -> Tensor:
    return tensor


def entry(module: nn.Module, path: str, parameter: str) -> Entry:
    """Return the entry for `module`'s `parameter` ("weight" or "bias")."""
    shape = tuple(getattr(module, parameter).shape)
    if parameter == "bias":
        return Entry(f"{path}/bias", shape, same, same)
    match module:
        case nn.LayerNorm():
            return Entry(f"{path}/scale", shape, same, same)
        case nn.Linear():
            outputs, inputs = shape
            is_conv = path.rsplit("/", 1)[-1].startswith(("Conv_", "input_proj"))
            official = (1, 1, inputs, outputs) if is_conv else (inputs, outputs)
            return Entry(
                f"{path}/kernel",
                official,
                lambda array: array.reshape(inputs, outputs).T,
                lambda weight: weight.T.reshape(official),
            )
        case ConvTranspose():  # flax correlates with the unflipped kernel; torch flips
            inputs, outputs, h, w = shape
            return Entry(
                f"{path}/kernel",
                (h, w, inputs, outputs),
                lambda array: array.permute(2, 3, 0, 1).flip(2, 3),
                lambda weight: weight.flip(2, 3).permute(2, 3, 0, 1),
            )
        case nn.Conv2d():
            outputs, inputs, h, w = shape
            return Entry(
                f"{path}/kernel",
                (h, w, inputs, outputs),
                lambda array: array.permute(3, 2, 0, 1),
                lambda weight: weight.permute(2, 3, 1, 0),
            )
    raise AssertionError(f"no official counterpart: {path}")


@functools.lru_cache(maxsize=2)
def table(config: MaximConfig) -> Mapping[str, Entry]:
    """Return the official entry of every parameter of the network, by our name."""
    with torch.device("meta"):
        network = Maxim(config)
    return {
        f"{path}.{name}": entry(module, official_path(path), name)
        for path, module in network.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> MaximConfig:
    """Derive the config of an official checkpoint from its keys (without prefix) and shapes.

    Raises:
        MaximirError: these are not the parameters of a MAXIM.
    """

    def count(pattern: str) -> int:
        return len({match[0] for key in shapes if (match := re.match(pattern, key))})

    try:
        features = shapes["stage_0_input_conv_0/kernel"][-1]
        squeezed = shapes[
            "stage_0_encoder_block_0/channel_attention_block_10/channel_attention/Conv_0/kernel"
        ]
        return MaximConfig(
            features=features,
            stages=count(r"stage_\d+_"),
            groups=count(r"stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_\d+"),
            bottlenecks=count(r"stage_0_global_block_\d+"),
            reduction=features // squeezed[-1],
        )
    except (KeyError, IndexError, ZeroDivisionError, MaximirError) as error:
        raise MaximirError("these are not the parameters of a MAXIM network") from error


def arrays_from_state(config: MaximConfig, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Invert `state_from_official`: return float32 arrays in the official layout, by official name.

    Raises:
        MaximirError: a parameter is missing.
    """
    arrays = {}
    for name, item in table(config).items():
        if name not in state:
            raise MaximirError(f"parameter {name} is missing")
        arrays[item.key] = item.restore(state[name].float()).contiguous().numpy()
    return arrays


def state_from_official(arrays: Mapping[str, np.ndarray]) -> tuple[MaximConfig, dict[str, Tensor]]:
    """Convert official arrays (keys without prefix) to a config and a state dict of `Maxim`.

    Strict: each key is used exactly once, and each shape is checked.

    Raises:
        MaximirError: names the first key that is missing, unknown or of a wrong shape.
    """
    config = recognise({key: array.shape for key, array in arrays.items()})
    entries = table(config)
    expected = {item.key for item in entries.values()}
    if missing := sorted(expected - set(arrays)):
        raise MaximirError(f"parameter {missing[0]} is missing ({len(missing)} are)")
    if unknown := sorted(set(arrays) - expected):
        raise MaximirError(f"parameter {unknown[0]} is unknown ({len(unknown)} are)")
    state = {}
    for name, item in entries.items():
        array = arrays[item.key]
        if array.shape != item.shape:
            raise MaximirError(f"parameter {item.key} has shape {list(array.shape)}, not {list(item.shape)}")
        state[name] = item.convert(torch.from_numpy(array)).contiguous()
    return config, state
