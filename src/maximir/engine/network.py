"""A network in strips: `run(model, image, streaming)` gives what `model(image)` gives.

The plan of a stage is `Stage.forward` with lifetimes: a map is held as long as it is needed, and one that has
to wait rests. It opens encoders and decoders, since an argument lives until the call returns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maximir.engine.blocks import (
    add,
    convolution,
    convolved,
    cross_gating,
    shortcut_block,
    supervised_attention,
)
from maximir.engine.known import knows, knows_all
from maximir.engine.merging import Fused, Map, Source, Upsampled
from maximir.engine.sweeps import UNIT, Pass, Streaming
from maximir.network.blocks import SupervisedAttention
from maximir.network.model import (
    COARSE_TO_FINE,
    Maxim,
    MultiScaleFusion,
    Stage,
    StageFeatures,
    check_image,
    pictures,
    pyramid,
)
from maximir.ops import kernels


@torch.no_grad()
def run(model: Maxim, image: Tensor, streaming: Streaming | None = None) -> list[list[Tensor]]:
    """Compute `model(image)` in strips, without gradients.

    With bfloat16 features, products are in bfloat16 too, whatever autocast says outside.

    Args:
        model: any network; what the engine has no plan for is called plainly.
        image: `[N, 3, H, W]`, values in [0, 1]; H and W multiples of 64.
        streaming: None: in fp32, with all maps in memory.

    Returns:
        As `Maxim.forward`: `outputs[stage][scale]`.

    Raises:
        MaximirError: wrong shape or type; or no room for scratch files.
    """
    streaming = streaming or Streaming()
    half = streaming.features == torch.bfloat16
    device = "cpu" if image.is_meta else image.device.type
    with kernels.allow(streaming.kernels), torch.autocast(device, torch.bfloat16, enabled=half):
        # Maps are float32 or a feature type. An empty batch has no strips.
        if not knows(model) or model.dtype != torch.float32 or len(image) == 0:
            outputs: list[list[Tensor]] = model(image)
            return outputs
        check_image(image, model.config, model.dtype)
        images = pyramid(image.float(), model.config.unshuffle)
        pass_ = Pass(streaming, images[0].shape[1] // UNIT)
        with streaming.store.reuse():
            stages = run_stages(pass_, model, images)
        return [pictures(restored, model.config.unshuffle) for restored in stages]


def run_stages(run: Pass, model: Maxim, images: list[Tensor]) -> list[list[Tensor]]:
    """Return the restored images of every stage, by level."""
    outputs, features = [], None
    for stage in model.stages:
        if knows(stage):
            restored, features = run_stage(run, stage, images, features)
        else:
            restored, features = stage(images, features)
        outputs.append(restored)
    return outputs


def run_stage(
    run: Pass, stage: Stage, images: Sequence[Tensor], previous: StageFeatures | None
) -> tuple[list[Tensor], StageFeatures | None]:
    """Run `Stage.forward` by its plan. Takes the previous features from their lists as it needs them."""
    features: list[Tensor] = []
    for level, (conv, image) in enumerate(zip(stage.input_convs, images, strict=True)):
        if previous is None:
            features.append(convolution(run, conv, image, feature=True))
        else:
            attended_before = previous.attended.pop(0)
            size = attended_before.numel()
            gate = stage.input_gates[level]
            features.append(cross_gating(run, gate, convolved(conv, image), attended_before, size)[0])
            del attended_before
        run.rest(features[-1])

    x, encoded = features[0], []
    for encoder in stage.encoders:
        if knows(encoder):
            x = shortcut_block(run, encoder.block, features[0].numel(), Map(x), Map(features.pop(0)))
            if encoder.gate is not None and previous is not None:
                x = cross_gating(run, encoder.gate, Map(x), previous.gating.pop(0), x.numel())[0]
            encoded.append(x)
            x = convolution(run, encoder.down, x, feature=True)
        else:
            skip, x = encoder(x, features.pop(0), None if previous is None else previous.gating.pop(0))
            encoded.append(skip)
        run.rest(encoded[-1], x)

    for bottleneck in stage.bottlenecks:
        x = shortcut_block(run, bottleneck, x.numel(), Map(x))
        run.rest(x)

    skips, global_feature = list(encoded), x
    for level in COARSE_TO_FINE:
        from_encoders = fused(stage.encoder_fusions[level], encoded)
        gate, size = stage.skip_gates[level], encoded[level].numel()
        skips[level], global_feature = cross_gating(run, gate, from_encoders, global_feature, size)
        run.rest(skips[level], global_feature)
    del global_feature, from_encoders

    restored, gating, attended = list(images), encoded, list(skips)
    if stage.last:
        encoded.clear()
    for level in COARSE_TO_FINE:
        decoder, from_skips = stage.decoders[level], fused(stage.skip_fusions[level], skips)
        if knows(decoder) and knows_all(decoder.up):
            x = shortcut_block(run, decoder.block, 2 * x.numel(), Upsampled(decoder.up, x), from_skips)
        else:
            x = decoder(x, from_skips.whole())
        run.rest(x)
        output = stage.outputs[level]
        if isinstance(output, SupervisedAttention):
            attended[level], restored[level] = supervised_attention(run, output, x, images[level])
            gating[level] = add(run, x, gating[level])
            run.rest(gating[level], attended[level])
        else:
            restored[level] = add(
                run, images[level], convolution(run, output, x, feature=False), feature=False
            )
    return restored, None if stage.last else StageFeatures(gating, attended)


def fused(fusion: MultiScaleFusion, by_level: Sequence[Tensor]) -> Source:
    """Return the fusion of the maps of all levels as a source."""
    return Fused(fusion, by_level) if knows_all(fusion) else Map(fusion(by_level))
