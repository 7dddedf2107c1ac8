"""Images that a caller has in memory, as the data module of an evaluation."""

from __future__ import annotations

from torch import Tensor

from robustforge.data.datamodule import ImageData
from robustforge.data.resident import Split
from robustforge.fingerprint import weights_hash


class MemoryData(ImageData):
    """Test images, and maybe calibration images, without a training split.

    Args:
        test: images (N, C, H, W), uint8 or float32 in [0, 1], on the CPU, and labels (N,) int64.
        calibration: held-out clean images and their labels likewise, to fit thresholds on; None for none.
        eval_batch_size: images under attack at a time.
        name: in logs.

    Example:
        >>> import torch
        >>> data = MemoryData((torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])))
        >>> len(data.test), len(data.calibration), data.num_classes
        (4, 0, 3)
    """

    def __init__(
        self,
        test: tuple[Tensor, Tensor],
        calibration: tuple[Tensor, Tensor] | None = None,
        eval_batch_size: int = 512,
        name: str = "memory",
    ) -> None:
        images, labels = test
        classes = max(2, int(labels.max()) + 1)
        super().__init__(name, "memory", tuple(images.shape[1:]), classes, eval_batch_size=eval_batch_size)
        held_out = (images[:0], labels[:0]) if calibration is None else calibration
        self.test, self.calibration, self.train = Split(*test), Split(*held_out), Split(images[:0], labels[:0])
        parts = {"x": images, "y": labels, "x_held_out": held_out[0], "y_held_out": held_out[1]}
        self.fingerprint = weights_hash(parts)
