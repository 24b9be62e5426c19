"""The models that come with maximir, as data. The card of each for people is the `.md` beside its weights."""

from __future__ import annotations

from pathlib import Path

from maximir.models.cards import ModelCard

BOX = Path(__file__).parent / "box"
TASKS = ("denoise", "deblur", "derain", "dehaze", "enhance", "retouch", "dejpeg")


def in_the_box(
    name: str, description: str, trained_on: str, training: str, shown: tuple[str, ...], limits: str
) -> ModelCard:
    """Return the card of TASK-box, whose weights are TASK.safetensors, or of TASK-fast."""
    return ModelCard(
        name,
        name.partition("-")[0],
        "box",
        BOX / f"{name.removesuffix('-box')}.safetensors",
        description,
        trained_on,
        training,
        limits,
        licence="Apache-2.0",
        shown=shown,
    )


MODELS = (
    in_the_box(
        "denoise-box",
        "Gaussian noise of unknown strength, and the noise of cameras",
        "925 photographs, synthetic noise; 40 pairs of PolyU",
        "1.8 h, 2 CPU cores; 5.7 h, 1 core",
        ("McMaster, Gaussian 25", "PolyU, held out"),
        "Strong noise from phones at night loses its colour, but some grain stays. "
        "Fine regular texture may be smoothed away.",
    ),
    in_the_box(
        "denoise-fast",
        "the noise that denoise-box removes, at a fifth of the work",
        "545 photographs and 380 of LOL, synthetic noise; 40 pairs of PolyU",
        "the bundled denoiser, then 5.5 h on 1 CPU core",
        ("McMaster, Gaussian 25", "PolyU, held out"),
        "As denoise-box; fine texture is smoothed a little more.",
    ),
    in_the_box(
        "deblur-box",
        "blur by a camera that moved",
        "GoPro (the authors' first stage), then 545 photographs with synthetic motion",
        "the authors', then 0.7 h on 1 CPU core",
        ("McMaster 1–6, straight motion, synthetic", "McMaster 1–6, motion blur, synthetic"),
        "Long or curved motion is only sharpened a little.",
    ),
    in_the_box(
        "derain-box",
        "streaks of rain and light mist",
        "Rain13k (the authors' first stage), then 545 photographs with synthetic rain and streaks; "
        "7 pairs of RainTrainL; 201 photographs as they are, most with nets and lines",
        "the authors', then 2.0 h on 1 CPU core",
        ("Rain100L 1–20", "McMaster 1–6, rain, synthetic"),
        "Drops on a lens or window stay. The result is soft where heavy rain hides the scene.",
    ),
    in_the_box(
        "derain-fast",
        "streaks of rain, at an eighth of derain-box's work",
        "545 photographs, synthetic rain and drawn streaks; 201 as they are, most with nets and lines",
        "the bundled fast denoiser, then 3.3 h on 1 CPU core",
        ("Rain100L 1–20", "McMaster 1–6, rain, synthetic"),
        "Faint streaks stay, and more of heavy rain. Drops on a lens or a pane stay.",
    ),
    in_the_box(
        "dehaze-box",
        "haze, mist and smog, indoors and outdoors",
        "SOTS-Indoor (the authors' first stage), then 545 photographs with synthetic haze, 79 of them as the "
        "authors' outdoor model sees them; 20 indoor scenes of RESIDE",
        "the authors', then 3.1 h on 1 CPU core",
        ("SOTS indoor, held out", "McMaster, haze, synthetic"),
        "Some of a strong haze remains. Faint bands may be seen in long gradients.",
    ),
    in_the_box(
        "enhance-box",
        "photographs taken with too little light",
        "LOL (the authors' first stage), then LOL and 45 pairs of ELIEI, some with drawn windows; "
        "545 photographs, synthetic darkness; 346 as they are",
        "the authors', then 4.7 h on 1 CPU core",
        ("ELIEI, held out", "McMaster, low light, synthetic"),
        "The brightness of the scene is an estimate. "
        "In very dark pictures, colours are weak, and fine detail may be lost or invented.",
    ),
    in_the_box(
        "retouch-box",
        "dull light and colours",
        "FiveK (the authors' first stage), then 39 photographs as the authors' whole model retouches them",
        "the authors', then 0.2 h on 1 CPU core",
        (),
        "Has the style of one retoucher, and only the first of the authors' two stages.",
    ),
    in_the_box(
        "dejpeg-box",
        "blocks and rings of strong compression: JPEG, WebP, AVIF",
        "545 photographs, compressed once or twice",
        "the bundled denoiser, then 0.4 h as a fast denoiser and 1.3 h on 1 CPU core",
        ("LIVE1, grey, JPEG 10", "Classic5, JPEG 10"),
        "Fine texture that compression has removed does not come back.",
    ),
)
