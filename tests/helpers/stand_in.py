"""Instead of `restoring.restorer`, for tests of what is around a network: no torch, any file is a model."""

from typing import ClassVar

import numpy as np


class Restorer:
    """Less contrast. Of each image alone, so that it does not matter which ones are restored together."""

    device = "cpu"
    shapes: ClassVar[list[tuple[int, int]]] = []  # of all images that were restored

    def __init__(self, weights, device, precision, max_memory, *, scratch, ensemble, stages, view):
        self.progress, self.reserve, self.precision = None, 0, precision

    def precision_for(self, dtype):
        return self.precision

    def batch_size(self, height, width):
        return 2

    def restore_arrays(self, images):
        self.shapes.extend(image.shape[:2] for image in images)
        return [image * np.float32(0.9) + np.float32(0.04) for image in images]
