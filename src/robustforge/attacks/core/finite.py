"""Values of an attacker's passes that are no numbers: bf16 gives way to float32, and float32 says what it met."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from robustforge.attacks.core.checks import check_logits

log = logging.getLogger(__name__)


class Finite:
    """Watches the passes of one attack on one batch.

    Args:
        bf16: whether the attack begins in bf16.
        device: of its tensors.

    Attributes:
        bf16: whether the next pass is in bf16.
    """

    def __init__(self, bf16: bool, device: torch.device) -> None:
        self.bf16 = bf16
        self._spoiled = torch.zeros((), dtype=torch.int64, device=device)  # images' gradients with such values

    def accepts(self, logits: Tensor, *others: Tensor) -> bool:
        """Whether a pass counts; False: it is to be made again, in float32 as all that follow.

        Args:
            logits: (n, K) that it gave.
            others: whatever else it gave.

        Raises:
            UserError: logits that are not finite in float32.
        """
        if not self.bf16:
            check_logits(logits)
            return True
        if bool(torch.stack([values.isfinite().all() for values in (logits, *others)]).all()):
            return True
        self.bf16 = False
        log.warning("A pass in bf16 gave values that are not finite: the rest of this attack is computed in float32.")
        return False

    def cleaned(self, gradient: Tensor) -> Tensor:
        """The gradient (n, C, H, W) with NaN as 0 and infinity as the largest number; in float32 such are counted."""
        if self.bf16:  # accepted: it has none
            return gradient
        with torch.inference_mode(False):
            self._spoiled = self._spoiled + (~gradient.isfinite()).flatten(1).any(1).sum()
        return gradient.nan_to_num(0.0)

    def report(self) -> None:
        """Says how many gradients had values that are not finite, if any."""
        if spoiled := int(self._spoiled):
            log.warning(
                "%d gradients of an attack held NaN (taken as 0) or infinity: where the network's own backward pass "
                "fails, the attack is weaker than it should be.",
                spoiled,
            )
