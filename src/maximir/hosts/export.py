"""Export of a network to a file for other runtimes: ONNX, or torch.export's `.pt2`, checked against ours."""

from __future__ import annotations

import importlib.util
import io
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from maximir import __version__
from maximir.engine import network as engine
from maximir.errors import MaximirError, UsageError
from maximir.files import reason, write_atomically
from maximir.network.config import SIZE_MULTIPLE
from maximir.network.model import Maxim
from maximir.restoring import views
from maximir.restoring.isolation import unaffected

KINDS = (".onnx", ".pt2")
OPSET = 20  # the oldest that has GELU
TOLERANCE = 1e-5  # for values in [0, 1]: other runtimes sum in another order
HALF_TOLERANCE = 1e-3  # the same for weights in half precision
LEAST_TILE = 128  # pixels: twice the overlap
AT_ONCE = 1.25  # times a tile's side: a photograph of so many pixels is not cut
SMALL = 1024  # bytes of a weight that stays in float32
# N, and H and W in multiples that the network takes, for the check of a file for any size, and its capture.
SIZES = ((1, 1, 1), (2, 1, 2), (1, 3, 1), (1, 2, 4))
TRACED = (2, 2, 3)  # not 1, which torch.export takes as a constant
NAMES = ("image", "restored")
NEEDED = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Tensor], Tensor]  # [N, 3, H, W] in [0, 1] → the same, restored


def export(
    model: Maxim,
    output: Path,
    size: int | None = None,
    facts: Mapping[str, str] | None = None,
    *,
    tile: int | None = None,
    half: bool = False,
) -> float:
    """Write the network with its weights as `.onnx` or `.pt2`, after a check that results are the same.

    Input `image` [N, 3, H, W] in [0, 1], float32; output `restored`, the same shape, not clipped.

    Args:
        model: in evaluation mode; its parameters need no gradients afterwards.
        size: side of the only image shape of the file, [1, 3, size, size]; None: any N, and any H and W that
            are multiples of `model.config.size_multiple`.
        facts: further entries of an ONNX file's metadata.
        tile: side of the tiles of large photographs; writes facts for the code in `hosts/tiles` to `.json`.
        half: store the weights of an ONNX file in half precision; it computes in float32 all the same.

    Returns:
        The largest difference from this package's own output, at each of `SIZES` or at `size`.

    Raises:
        UsageError: another kind of file, no folder for it, a size that the network does not take, or a
            package is missing.
        MaximirError: the file's results differ from the network's, or it cannot be written. Nothing is left.
    """
    check_request(output, size, tile=tile, half=half)
    kind = ".pt2" if output.suffix == ".pt2" else ".onnx"
    facts = facts or {}
    data, difference = proved(model, kind, size, facts, half=half)
    write(output, data)
    if tile is not None:
        cutting = tiling(facts.get("task", ""), tile, model.config.size_multiple)
        about = json.dumps({**facts, **cutting}, indent=2) + "\n"
        write(output.with_suffix(".json"), about.encode())
    return difference


def tiling(task: str, tile: int, multiple: int = SIZE_MULTIPLE) -> dict[str, object]:
    """Return how the code in `hosts/tiles` cuts photographs for a network of this task."""
    light = {"view": views.SMALL, "large": views.LARGE, "smooth": views.SMOOTH}
    whole = round((AT_ONCE * tile) ** 2)
    return {
        "multiple": multiple,
        "tile": tile,
        "overlap": views.OVERLAP,
        "whole": max(whole, views.SMALL**2) if task in views.GLOBAL_TASKS else whole,
        "light": light if task in views.GLOBAL_TASKS else None,
    }


@unaffected(gradients=True)
def proved(
    model: Maxim,
    kind: str,
    size: int | None,
    facts: Mapping[str, str],
    names: tuple[str, str] = NAMES,
    *,
    half: bool = False,
) -> tuple[bytes, float]:
    """Return the content of the file and the largest difference of its results from ours.

    Raises:
        MaximirError: the difference is larger than `TOLERANCE`, or `HALF_TOLERANCE`.
    """
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    data = to_pt2(model, size) if kind == ".pt2" else to_onnx(model, size, facts, names, half=half)
    run = run_pt2(data) if kind == ".pt2" else run_onnx(data)
    side = model.config.size_multiple
    sizes = [(n, h * side, w * side) for n, h, w in SIZES] if size is None else [(1, size, size)]
    difference = compare(model, run, sizes)
    if not difference <= tolerance:
        raise MaximirError(
            f"nothing was written: its results differ from maximir's by {difference:.1e} "
            f"({tolerance:.0e} is allowed)"
        )
    return data, difference


def write(output: Path, data: bytes) -> None:
    try:
        write_atomically(output, data)
    except OSError as error:
        raise MaximirError(f"{output}: cannot be written ({reason(error)})") from error


def check_request(output: Path, size: int | None, *, tile: int | None = None, half: bool = False) -> None:
    """Raise as `export` does, before any work."""
    if output.suffix not in KINDS:
        raise UsageError(f"{output}: the output must be named {' or '.join(KINDS)}")
    if (tile is not None or half) and output.suffix != ".onnx":
        raise UsageError("--tile and --half are for .onnx files")
    if tile is not None and size is not None:
        raise UsageError("give --tile or --size: tiles at the borders and views have other sizes")
    check_folder(output)
    check_size(size)
    check_tile(tile)
    if output.suffix == ".onnx":
        check_installed()


def check_folder(output: Path) -> None:
    """Refuse a missing folder before minutes of work."""
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}")


def check_size(size: int | None) -> None:
    if size is not None and (size < SIZE_MULTIPLE or size % SIZE_MULTIPLE):
        raise UsageError(f"--size must be a multiple of {SIZE_MULTIPLE}, not {size}")


def check_tile(tile: int | None) -> None:
    if tile is not None and (tile < LEAST_TILE or tile % SIZE_MULTIPLE):
        raise UsageError(f"--tile must be a multiple of {SIZE_MULTIPLE}, {LEAST_TILE} or more, not {tile}")


def check_installed() -> None:
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"ONNX needs {package}: pip install 'maximir[export]'")


class Restoring(nn.Module):
    """The network with the restored image as its only output."""

    def __init__(self, model: Maxim) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:  # [N, 3, H, W] → the same
        restored: Tensor = self.model(image)[-1][-1]
        return restored


class RestoringCells(Restoring):
    """`Restoring` for an image in cells [N, 3, H/64, 64, W/64, 64], or cells of 128.

    Each size in the network is then a symbol times a number. With H and W as symbols most sizes would be
    quotients, and torch.export takes longer with each block (docs/decisions/0009-hosts.md).
    """

    def forward(self, image: Tensor) -> Tensor:
        n, c, h, side, w, _ = image.shape
        return super().forward(image.reshape(n, c, h * side, w * side))


def capture(model: Maxim, size: int | None) -> ExportedProgram:
    """Capture the network as a graph of torch's operators."""
    n, h, w = TRACED
    side = model.config.size_multiple
    if size is not None and size % side:
        raise UsageError(f"--size must be a multiple of {side} for this model, not {size}")
    model.requires_grad_(False)
    with torch.no_grad():
        if size is not None:
            return torch.export.export(Restoring(model), (blank(1, 3, size, size),), strict=False)
        symbols = {0: Dim("N", min=1), 2: Dim("h", min=1), 4: Dim("w", min=1)}
        cells = blank(n, 3, h, side, w, side)
        program = torch.export.export(
            RestoringCells(model), (cells,), dynamic_shapes=(symbols,), strict=False
        )
    return without_cells(program, blank(n, 3, h * side, w * side), side)


def blank(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float32)


def without_cells(program: ExportedProgram, example: Tensor, multiple: int) -> ExportedProgram:
    """Rewrite the program of `RestoringCells` for the image itself: [N, 3, 64 h, 64 w], or of 128."""
    graph = program.graph
    (image,) = (node for node in graph.nodes if node.name in program.graph_signature.user_inputs)
    (joined,) = (node for node in image.users if node.target is torch.ops.aten.reshape.default)
    joined.replace_all_uses_with(image)
    graph.erase_node(joined)
    image.meta["val"] = whole = joined.meta["val"]
    for cells, axis in ((2, 2), (4, 3)):
        for node in [node for node in image.users if node.args == (image, cells)]:
            with graph.inserting_before(node):
                side = graph.call_function(torch.ops.aten.sym_size.int, (image, axis))
                count = graph.call_function(operator.floordiv, (side, multiple))
            side.meta["val"], count.meta["val"] = whole.shape[axis], node.meta["val"]
            node.replace_all_uses_with(count)
            graph.erase_node(node)
    graph.eliminate_dead_code()
    whole.fake_mode.shape_env.guards.clear()  # they ask for the cells' shape; what is left is the image's
    return ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=((example,), {}),
        constants=program.constants,
    )


def to_pt2(model: Maxim, size: int | None) -> bytes:
    file = io.BytesIO()
    torch.export.save(capture(model, size), file)
    return file.getvalue()


def to_onnx(
    model: Maxim,
    size: int | None,
    facts: Mapping[str, str],
    names: tuple[str, str] = NAMES,
    *,
    half: bool = False,
) -> bytes:
    import onnx_ir

    program = capture(model, size)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[names[0]],
        output_names=[names[1]],
        verbose=False,
    )
    assert exported is not None
    if size is None:
        multiple = model.config.size_multiple
        for value in (*exported.model.graph.inputs, *exported.model.graph.outputs):
            value.shape = onnx_ir.Shape(["N", 3, f"{multiple}*h", f"{multiple}*w"])
    proto = exported.model_proto
    forget_shapes(proto.graph)
    if half:
        halve(proto.graph)
    proto.producer_name, proto.producer_version = "maximir", __version__
    for key, fact in facts.items():
        proto.metadata_props.add(key=key, value=fact)
    data: bytes = proto.SerializeToString()
    return data


def forget_shapes(graph: Any) -> None:
    """Remove the shapes of inner maps, and the exporter's remarks.

    From these shapes ONNX Runtime plans to reuse each map's memory, and keeps that of large maps while it
    computes small ones: 1,690 MB instead of 530 for `denoise` and 512 x 512 pixels.
    """
    del graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]


def halve(graph: Any) -> None:
    """Store weights in half precision, each converted to float32 where the file is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.raw_data) > SMALL:
            name = weight.name
            with np.errstate(over="ignore"):  # the check of results finds it
                values = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def run_onnx(data: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])


def run_pt2(data: bytes) -> Run:
    module = torch.export.load(io.BytesIO(data)).module()
    return lambda image: module(image)


@torch.inference_mode()
def compare(model: Maxim, run: Run, sizes: Sequence[tuple[int, int, int]]) -> float:
    """Return the largest difference between our output and that of `run`; inf if a value is not finite."""
    worst = 0.0
    random = np.random.default_rng(0)
    for n, h, w in sizes:
        image = torch.from_numpy(random.random((n, 3, h, w), dtype=np.float32))
        expected, restored = engine.run(model, image)[-1][-1], run(image)
        if restored.shape != expected.shape:
            return float("inf")
        difference = (restored - expected).abs().max().item()
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst
