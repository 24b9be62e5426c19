"""The eleven checkpoints of MAXIM's authors, as data: their addresses and digests.

Sources: the official README (figures) and project page (bucket); the npm packages are UpscalerJS's copies of
seven of them. All weights are the authors', Apache-2.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from maximir.models.cards import ModelCard

BUCKET = "https://storage.googleapis.com/gresearch/maxim/ckpt"
PACKAGE = "@upscalerjs/maxim-{}"
PACKAGE_VERSION = "0.1.0"
LICENCE = "Apache-2.0"
BYTES = {"S-2": 56_911_856, "S-3": 89_174_620}  # size of a variant's file in maximir's format


@dataclass(frozen=True)
class AuthorsModel(ModelCard):
    """A checkpoint of the authors: its card, and where it can be fetched from.

    Attributes:
        variant: official name of the network.
        object: path in the bucket, without `checkpoint.npz`.
        package: last part of its npm package's name, or "".
        digest: `tfjs.digest` of its parameters; "" if unknown (checkpoints that exist only in the bucket).
    """

    variant: str = ""
    object: str = ""
    package: str = ""
    digest: str = ""

    @property
    def address(self) -> str:
        """Path below a bucket's address."""
        return f"{self.object}/checkpoint.npz"

    @property
    def npm(self) -> str:
        return f"{PACKAGE.format(self.package)}@{PACKAGE_VERSION}" if self.package else ""


def by_the_authors(
    name: str,
    trained_on: str,
    variant: str,
    object: str,
    published: str,
    limits: str,
    package: str = "",
    digest: str = "",
) -> AuthorsModel:
    return AuthorsModel(
        name,
        task=name.partition("-")[0],
        origin="authors",
        description=f"the authors' {variant} for {trained_on}",
        trained_on=trained_on,
        training="by the authors, on their clusters",
        limits=limits,
        licence=LICENCE,
        published=published,
        variant=variant,
        object=object,
        package=package,
        digest=digest,
    )


NARROW = "Trained for one benchmark. On {} other than its own it may make a photograph worse."

MODELS = (
    by_the_authors(
        "denoise-sidd", "SIDD", "S-3", "Denoising/SIDD", "SIDD 39.96 / .960, DND 39.84 / .954",
        "For noise from phone cameras. Does not remove Gaussian noise; for other cameras the box is better.",
        "denoising", "34c2aeffbcace6717925a23d072d571243c9a31ead5624ac36633101ed45fccc",
    ),
    by_the_authors(
        "deblur-gopro", "GoPro", "S-3", "Deblurring/GoPro", "GoPro 32.86 / .961, HIDE 32.83 / .956",
        "For motion between video frames. Hardly changes noisy blur or strong camera shake.",
        "deblurring", "29d9b26477142235a7481dc1c742ac1c974d793d4fcf7b39ff6a2f0a54fbdb5d",
    ),
    by_the_authors(
        "deblur-reds", "REDS", "S-3", "Deblurring/REDS", "REDS 28.93 / .865",
        NARROW.format("blur"),
    ),
    by_the_authors(
        "deblur-realblur-r", "RealBlur-R", "S-3", "Deblurring/RealBlur_R",
        "RealBlur-R 39.45 / .962",
        NARROW.format("blur"),
    ),
    by_the_authors(
        "deblur-realblur-j", "RealBlur-J", "S-3", "Deblurring/RealBlur_J",
        "RealBlur-J 32.84 / .935",
        NARROW.format("blur"),
    ),
    by_the_authors(
        "derain-rain13k", "Rain13k", "S-2", "Deraining/Rain13k", "Rain13k 33.24 / .933",
        "For streaks drawn over a photograph. On other rain it can do harm and shift colours.",
        "deraining", "ac04a296da659dc81f806656d8c3bafa98bbea5ac0b3bbdbb0ca773e4d38dbe7",
    ),
    by_the_authors(
        "derain-raindrop", "Raindrop", "S-2", "Deraining/Raindrop", "Raindrop 31.87 / .935",
        "For drops on a window or lens, not for streaks.",
    ),
    by_the_authors(
        "dehaze-indoor", "SOTS-Indoor", "S-2", "Dehazing/SOTS-Indoor", "SOTS indoor 38.11 / .991",
        "For synthetic haze in rooms. Real outdoor haze becomes dark and patchy.",
        "dehazing-indoor", "f8a79ee91b1b81e08521a7dc27ce2eb4940ec3461d61577ab84e05c4bc3219eb",
    ),
    by_the_authors(
        "dehaze-outdoor", "SOTS-Outdoor", "S-2", "Dehazing/SOTS-Outdoor",
        "SOTS outdoor 34.19 / .985",
        "For thin, even haze outdoors. Plain skies of large photographs may show columns.",
        "dehazing-outdoor", "12bb4071a2f59ef5b6da82a5679a3a64c1c70f3bea0be7e57efd6542ee692b85",
    ),
    by_the_authors(
        "enhance-lol", "LOL", "S-2", "Enhancement/LOL", "LOL 23.43 / .863",
        "For dark rooms as in LOL. Dark photographs from other cameras stay dark or turn grey.",
        "enhancement", "ddc0c3fc6442ea4015e48a024ecb6a967254a388e68667b756225f138c67cfff",
    ),
    by_the_authors(
        "retouch-fivek", "FiveK", "S-2", "Enhancement/FiveK", "FiveK 26.15 / .945",
        "Exposure and colour in the style of one retoucher.",
        "retouching", "75f8957722c3e80b48768863767e7fe4eafe2ed1125a3db8099e059f9446e9fd",
    ),
)  # fmt: skip
BY_NAME = {model.name: model for model in MODELS}
BY_DIGEST = {model.digest: model for model in MODELS if model.digest}
OF_TASK = {  # the model that `maximir get TASK` fetches
    "denoise": "denoise-sidd",
    "deblur": "deblur-gopro",
    "derain": "derain-rain13k",
    "dehaze": "dehaze-outdoor",
    "enhance": "enhance-lol",
    "retouch": "retouch-fivek",
}
