"""A memory whose rows belong to classes: cosine addressing, masking, reading (arXiv:2202.02595, Eqs. 8 to 12)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.defenses.choices import one_of
from robustforge.types import UserError

SHRINKS = ("none", "hard", "memae")
HARD_THRESHOLD = 1e-4  # the paper's phi, read as a threshold
NORM_FLOOR, SUM_FLOOR = 1e-8, 1e-12


class MemoryRead(NamedTuple):
    """What a memory answers.

    Attributes:
        target: (B, d) weighted sum of rows.
        weights: (B, N) the weights, summing to 1.
    """

    target: Tensor
    weights: Tensor


def row_norms(rows: Tensor) -> Tensor:
    """(..., d) -> (...,) Euclidean norms."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return norms


def cosine_similarity(z: Tensor, rows: Tensor, norms: Tensor | None = None) -> Tensor:
    """Cosine of every latent with every row, as one matrix product (Eq. 8).

    Args:
        z: (B, d).
        rows: (N, d).
        norms: (N,) of the rows when known.

    Returns:
        (B, N) in [-1, 1].

    Notes:
        The denominator is max(|z| |m|, 1e-8); the paper's max lacks its second argument.
    """
    norms = row_norms(rows) if norms is None else norms
    # dividing the small product is cheaper than normalizing the large memory
    return (z @ rows.t()) / (row_norms(z)[:, None] * norms).clamp(min=NORM_FLOOR)


def slot_mask(slots: Tensor, n_mem: int, n_classes: int) -> Tensor:
    """Which rows are open (Eq. 10): class c owns rows c s .. (c + 1) s - 1, with s = n_mem / n_classes.

    Args:
        slots: (B,) int64 classes, or (B, K) soft weights of the classes.
        n_mem: N, a multiple of ``n_classes``.
        n_classes: K.

    Returns:
        (B, N): 0 or 1 for hard slots; the soft weight of the row's class otherwise, differentiable.
    """
    if slots.ndim == 1:
        slots = F.one_hot(slots, n_classes).float()
    return slots.repeat_interleave(n_mem // n_classes, dim=1)


def shrink_weights(weights: Tensor, mode: str, threshold: float) -> Tensor:
    """Sets small weights to zero.

    Args:
        weights: (B, N), non-negative.
        mode: ``none``; ``hard``: w where w > threshold; ``memae``: relu(w - t) w / (|w - t| + 1e-12) (Gong et al. 2019,
            arXiv:1904.02639, Eq. 7).
        threshold: lambda, in units of a weight.
    """
    if mode == "hard":
        return F.hardshrink(weights, threshold)
    if mode == "memae":
        above = weights - threshold
        return F.relu(above) * weights / (above.abs() + SUM_FLOOR)
    return weights


def masked_weights(address: Tensor, mask: Tensor, mode: str = "none", threshold: float = 0.0) -> Tensor:
    """Shrinks, masks and renormalizes an address.

    Args:
        address: (B, N), softmax over all rows.
        mask: (B, N) in [0, 1].
        mode: of the shrinkage.
        threshold: of the shrinkage.

    Returns:
        (B, N), rows summing to 1. Where everything open was shrunk away the weights are those without shrinkage.

    Notes:
        Eq. 11 multiplies un-normalized weights; we renormalize, as the released code does and Sec. 3.4 demands.
        Shrinking comes first, as in the paper's text. For a 0/1 mask the order is immaterial; for soft masks it keeps
        the gradient toward closed slots, which shrinking a masked zero would cut.
    """
    weights = shrink_weights(address, mode, threshold) * mask
    if mode != "none":
        emptied = weights.sum(1, keepdim=True) <= SUM_FLOOR
        weights = torch.where(emptied, address * mask, weights)
    return weights / weights.sum(1, keepdim=True).clamp(min=SUM_FLOOR)


def read_slots(z: Tensor, rows: Tensor, norms: Tensor, slots: Tensor, n_classes: int, temperature: float) -> MemoryRead:
    """Reads hard slots, touching open rows only.

    Without shrinkage the softmax's sum over all N rows cancels in the renormalization, so a softmax over the slot's own
    rows is the same number at a tenth of the work for ten classes. Each slot is addressed and read in one go, while its
    rows are in the cache.

    Args:
        z: (B, d), B > 0.
        rows: (N, d).
        norms: (N,) of the rows.
        slots: (B,) int64.
        n_classes: K.
        temperature: T.
    """
    order = slots.argsort()
    counts = torch.bincount(slots, minlength=n_classes).tolist()
    scale = (row_norms(z)[:, None] * norms.view(n_classes, -1)[slots]).clamp(min=NORM_FLOOR) * temperature
    targets, weights = [], []
    by_class = rows.view(n_classes, -1, rows.shape[1]).unbind(0)
    for slot, session, divisor in zip(
        by_class, torch.split(z[order], counts), torch.split(scale[order], counts), strict=True
    ):
        if len(session):
            weights.append((session @ slot.t() / divisor).softmax(1))
            targets.append(weights[-1] @ slot)
    back = order.argsort()
    open_weights = torch.cat(weights)[back]
    full = open_weights.new_zeros(len(z), n_classes, open_weights.shape[1])
    full = full.index_put((torch.arange(len(z), device=z.device), slots), open_weights)
    return MemoryRead(torch.cat(targets)[back], full.flatten(1))


class MaskedMemory(nn.Module):
    """N learned rows, shared out evenly and in order over K classes.

    Args:
        n_mem: N (paper: 500).
        dim: d of the latent (paper: 1024).
        n_classes: K.
        temperature: divides the cosines (paper: 1, which keeps any two weights within a factor e^2).
        shrink: ``none`` (the released code in effect: its threshold of 1e-12 shrinks nothing), ``hard`` or ``memae``.
        threshold: of the shrinkage; None: 1e-4 for ``hard``, 1 / N for ``memae``.

    Raises:
        UserError: rows that cannot be shared out evenly, unknown shrinkage, a temperature or threshold out of range.
    """

    def __init__(
        self,
        n_mem: int,
        dim: int,
        n_classes: int,
        temperature: float = 1.0,
        shrink: str = "none",
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        _check(n_mem, n_classes, temperature, shrink, threshold)
        self.n_mem, self.n_classes, self.temperature, self.shrink = n_mem, n_classes, temperature, shrink
        default = {"none": 0.0, "hard": HARD_THRESHOLD, "memae": 1 / n_mem}[shrink]
        self.threshold = default if threshold is None else threshold
        # Kaiming's uniform bound for a ReLU, sqrt(6 / d), as in the released code
        self.rows = nn.Parameter(torch.empty(n_mem, dim).uniform_(-((6 / dim) ** 0.5), (6 / dim) ** 0.5))
        self._norms: tuple[object, Tensor] | None = None

    def forward(self, z: Tensor, slots: Tensor) -> MemoryRead:
        """Reads the slots' rows (Eq. 11).

        Args:
            z: (B, d).
            slots: (B,) int64, or (B, K) soft weights.
        """
        # on a GPU one product with the whole memory is cheaper than waiting for the counts
        if slots.ndim == 1 and self.shrink == "none" and len(z) and not z.is_cuda:
            return read_slots(z, self.rows, self.norms(), slots, self.n_classes, self.temperature)
        return self.read(self.address(z), slot_mask(slots, self.n_mem, self.n_classes))

    def non_target(self, z: Tensor, slots: Tensor) -> MemoryRead:
        """Reads the rows of all other slots (Eq. 12); arguments as in :meth:`forward`."""
        return self.read(self.address(z), 1 - slot_mask(slots, self.n_mem, self.n_classes))

    def address(self, z: Tensor) -> Tensor:
        """(B, d) -> (B, N), softmax of the cosines over all rows (Eq. 9)."""
        return (cosine_similarity(z, self.rows, self.norms()) / self.temperature).softmax(1)

    def read(self, address: Tensor, mask: Tensor) -> MemoryRead:
        """Masks an address (B, N) by a mask (B, N) and reads."""
        weights = masked_weights(address, mask, self.shrink, self.threshold)
        return MemoryRead(weights @ self.rows, weights)

    def norms(self) -> Tensor:
        """(N,) norms of the rows, kept from call to call in eval mode while the rows stay the same."""
        rows = self.rows
        if self.training or rows.is_inference() or (torch.is_grad_enabled() and rows.requires_grad):
            return row_norms(rows)
        # every in-place change counts the version up; moving to another device or dtype changes the address
        key = (rows._version, rows.data_ptr(), rows.device, rows.dtype)
        if self._norms is None or self._norms[0] != key:
            # outside inference mode, or an attack's backward pass could not use what is kept
            with torch.inference_mode(False), torch.no_grad():
                self._norms = (key, row_norms(rows))
        return self._norms[1]

    def train(self, mode: bool = True) -> MaskedMemory:
        """Switches the mode and forgets the kept norms, as changes through ``.data`` count no version up."""
        self._norms = None
        return super().train(mode)


def _check(n_mem: int, n_classes: int, temperature: float, shrink: str, threshold: float | None) -> None:
    if n_mem < 1 or n_mem % n_classes:
        below = n_mem // n_classes * n_classes
        nearest = f"{below} or {below + n_classes}" if below > 0 else f"{n_classes}"
        raise UserError(
            f"A memory of {n_mem} rows cannot be shared out evenly over {n_classes} classes: "
            f"the nearest sizes are {nearest}."
        )
    if not temperature > 0:
        raise UserError(f"The memory's temperature is {temperature}: give a positive number (paper: 1).")
    one_of("The memory's shrink", shrink, SHRINKS)
    if threshold is not None and not 0 <= threshold < 1:
        raise UserError(f"The memory's threshold is {threshold}: give a weight between 0 and 1, or null.")
