"""The eleven checkpoints of MAXIM's authors, as data: their addresses and digests.

Sources: the official README (figures) and project page (bucket); the npm packages are UpscalerJS's copies of
seven of them. All weights are the authors', Apache-2.0.
"""

from __future__ import annotations

from dataclasses import dataclass

BUCKET = "https://storage.googleapis.com/gresearch/maxim/ckpt"
PACKAGE = "@upscalerjs/maxim-{}"
PACKAGE_VERSION = "0.1.0"
LICENCE = "Apache-2.0"
BYTES = {"S-2": 56_911_856, "S-3": 89_174_620}  # size of a variant's file in maximir's format


@dataclass(frozen=True)
class AuthorsModel:
    """A checkpoint of the authors.

    Attributes:
        name: in maximir.
        trained_on: dataset.
        variant: official name of the network.
        object: path in the bucket, without `checkpoint.npz`.
        published: the official README's PSNR (dB) / SSIM, by dataset.
        limits: known failures, in sentences for users; measured in docs/models.md.
        package: last part of its npm package's name, or "".
        digest: `tfjs.digest` of its parameters; "" if unknown (checkpoints that exist only in the bucket).
    """

    name: str
    task: str
    trained_on: str
    variant: str
    object: str
    published: str
    limits: str
    package: str = ""
    digest: str = ""

    @property
    def address(self) -> str:
        """Path below a bucket's address."""
        return f"{self.object}/checkpoint.npz"

    @property
    def npm(self) -> str:
        return f"{PACKAGE.format(self.package)}@{PACKAGE_VERSION}" if self.package else ""


NARROW = "Trained for one benchmark. On {} other than its own it may make a photograph worse."

MODELS = (
    AuthorsModel(
        "denoise-sidd", "denoise", "SIDD", "S-3", "Denoising/SIDD", "SIDD 39.96 / .960, DND 39.84 / .954",
        "For noise from phone cameras. Does not remove Gaussian noise; for other cameras the box is better.",
        "denoising", "34c2aeffbcace6717925a23d072d571243c9a31ead5624ac36633101ed45fccc",
    ),
    AuthorsModel(
        "deblur-gopro", "deblur", "GoPro", "S-3", "Deblurring/GoPro", "GoPro 32.86 / .961, HIDE 32.83 / .956",
        "For motion between video frames. Hardly changes noisy blur or strong camera shake.",
        "deblurring", "29d9b26477142235a7481dc1c742ac1c974d793d4fcf7b39ff6a2f0a54fbdb5d",
    ),
    AuthorsModel(
        "deblur-reds", "deblur", "REDS", "S-3", "Deblurring/REDS", "REDS 28.93 / .865",
        NARROW.format("blur"),
    ),
    AuthorsModel(
        "deblur-realblur-r", "deblur", "RealBlur-R", "S-3", "Deblurring/RealBlur_R",
        "RealBlur-R 39.45 / .962",
        NARROW.format("blur"),
    ),
    AuthorsModel(
        "deblur-realblur-j", "deblur", "RealBlur-J", "S-3", "Deblurring/RealBlur_J",
        "RealBlur-J 32.84 / .935",
        NARROW.format("blur"),
    ),
    AuthorsModel(
        "derain-rain13k", "derain", "Rain13k", "S-2", "Deraining/Rain13k", "Rain13k 33.24 / .933",
        "For streaks drawn over a photograph. On other rain it can do harm and shift colours.",
        "deraining", "ac04a296da659dc81f806656d8c3bafa98bbea5ac0b3bbdbb0ca773e4d38dbe7",
    ),
    AuthorsModel(
        "derain-raindrop", "derain", "Raindrop", "S-2", "Deraining/Raindrop", "Raindrop 31.87 / .935",
        "For drops on a window or lens, not for streaks.",
    ),
    AuthorsModel(
        "dehaze-indoor", "dehaze", "SOTS-Indoor", "S-2", "Dehazing/SOTS-Indoor", "SOTS indoor 38.11 / .991",
        "For synthetic haze in rooms. Real outdoor haze becomes dark and patchy.",
        "dehazing-indoor", "f8a79ee91b1b81e08521a7dc27ce2eb4940ec3461d61577ab84e05c4bc3219eb",
    ),
    AuthorsModel(
        "dehaze-outdoor", "dehaze", "SOTS-Outdoor", "S-2", "Dehazing/SOTS-Outdoor",
        "SOTS outdoor 34.19 / .985",
        "For thin, even haze outdoors. Plain skies of large photographs may show columns.",
        "dehazing-outdoor", "12bb4071a2f59ef5b6da82a5679a3a64c1c70f3bea0be7e57efd6542ee692b85",
    ),
    AuthorsModel(
        "enhance-lol", "enhance", "LOL", "S-2", "Enhancement/LOL", "LOL 23.43 / .863",
        "For dark rooms as in LOL. Dark photographs from other cameras stay dark or turn grey.",
        "enhancement", "ddc0c3fc6442ea4015e48a024ecb6a967254a388e68667b756225f138c67cfff",
    ),
    AuthorsModel(
        "retouch-fivek", "retouch", "FiveK", "S-2", "Enhancement/FiveK", "FiveK 26.15 / .945",
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
