"""A mixture of Gaussians with one component a class, and the two scores that a selective classifier rejects by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.types import UserError


def class_means(num_classes: int, latent: int) -> Tensor:
    """One-hot means, padded with zeros where the latent is wider than the number of classes.

    Args:
        num_classes: K.
        latent: k, length of the latent, at least K.

    Returns:
        (K, k) float32; any two rows are the square root of 2 apart.

    Raises:
        UserError: a latent narrower than the number of classes.
    """
    if latent < num_classes:
        raise UserError(
            f"defense.latent is {latent} for {num_classes} classes: one-hot means need {num_classes} or more."
        )
    return F.pad(torch.eye(num_classes), (0, latent - num_classes))


def squared_distances(z: Tensor, means: Tensor) -> Tensor:
    """Squared Euclidean distances of latents (B, k) to means (K, k): (B, K) float32."""
    return (z.float()[:, None] - means[None]).square().sum(2)


def chi2_quantile(level: float, freedom: int) -> float:
    """The value that a chi-square variable stays below with probability ``level``.

    Args:
        level: in (0, 1).
        freedom: degrees of freedom, at least 1.

    Returns:
        The critical value, by bisection of the regularized incomplete gamma function, to about 1e-10.

    Raises:
        UserError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise UserError(f"The chi-square level is {level}: give a probability between 0 and 1, for example 0.9973.")
    shape = torch.tensor(freedom / 2, dtype=torch.float64)
    low, high = 0.0, 1.0
    while float(torch.special.gammainc(shape, torch.tensor(high / 2, dtype=torch.float64))) < level:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        below = float(torch.special.gammainc(shape, torch.tensor(middle / 2, dtype=torch.float64))) < level
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


class MixtureDetector(nn.Module):
    """Class means, class covariances and thresholds: everything that is fitted after training.

    Args:
        num_classes: K.
        latent: k.
        variance: of each component before anything is fitted, latent units squared.
        pixels: D, numbers in an image.
        errors: kinds of reconstruction error, each with a threshold: ``squared`` and ``cauchy``.

    Attributes:
        means: (K, k).
        covariance: (K, k, k) of each class around its mean.
        precision: (K, k, k), its inverse.
        tau_encoder: (K,) thresholds on the squared Mahalanobis distance.
        pixel_weight: (K, D) inverse of the squared scale of each pixel's residual, for ``cauchy``.
        tau_decoder: (K, S) thresholds on the S reconstruction errors.

    Raises:
        UserError: a latent narrower than the number of classes.
    """

    means: Tensor
    covariance: Tensor
    precision: Tensor
    tau_encoder: Tensor
    pixel_weight: Tensor
    tau_decoder: Tensor

    def __init__(
        self, num_classes: int, latent: int, variance: float, pixels: int, errors: Sequence[str] = ("squared",)
    ) -> None:
        super().__init__()
        self.kinds = tuple(errors)
        self.register_buffer("means", class_means(num_classes, latent))
        self.register_buffer("covariance", variance * torch.eye(latent).repeat(num_classes, 1, 1))
        self.register_buffer("precision", torch.eye(latent).repeat(num_classes, 1, 1) / variance)
        self.register_buffer("tau_encoder", torch.ones(num_classes))
        self.register_buffer("pixel_weight", torch.ones(num_classes, pixels))
        self.register_buffer("tau_decoder", torch.ones(num_classes, len(self.kinds)))

    def nearest(self, z: Tensor) -> Tensor:
        """(B,) class of the nearest mean of latents (B, k): the answer, as all components weigh the same."""
        return squared_distances(z, self.means).argmin(1)

    def mahalanobis(self, z: Tensor, classes: Tensor) -> Tensor:
        """(B,) squared Mahalanobis distance of latents (B, k) to the means of ``classes`` (B,)."""
        with torch.autocast(z.device.type, enabled=False):  # inverse variances in the thousands, times small squares
            delta = z.float() - self.means[classes]
            return torch.einsum("bi,bij,bj->b", delta, self.precision[classes], delta)

    def all_mahalanobis(self, z: Tensor, literal: bool = False) -> Tensor:
        """(B, K) squared Mahalanobis distances of latents (B, k) to every mean.

        Args:
            z: latents.
            literal: with the covariance in place of its inverse, as Eqs. 10 and 11 are printed.
        """
        with torch.autocast(z.device.type, enabled=False):
            delta = z.float()[:, None] - self.means[None]
            weighted = torch.einsum("bci,cij->bcj", delta, self.covariance if literal else self.precision)
            return (weighted * delta).sum(2)

    def errors(self, residual: Tensor, weight: Tensor) -> Tensor:
        """The S reconstruction errors: minus the logarithm of a density of the residuals, up to constants.

        Args:
            residual: (..., D) squared residuals, squared pixel units.
            weight: (..., D) rows of ``pixel_weight`` for the classes, broadcast against them.

        Returns:
            (..., S) float32. ``squared`` is their sum: a Gaussian with one variance for all pixels (the paper).
            ``cauchy`` is the sum of log(1 + residual * weight): a Cauchy distribution with a scale for each pixel, so
            that faint noise where the class never has any counts in full and a stroke a pixel off counts little.
        """
        residual, found = residual.float(), []
        shape = torch.broadcast_shapes(residual.shape[:-1], weight.shape[:-1])  # type: ignore[no-untyped-call]
        for kind in self.kinds:
            terms = residual if kind == "squared" else torch.log1p(residual * weight)
            found.append(terms.sum(-1).expand(shape))
        return torch.stack(found, -1)

    def all_errors(self, residual: Tensor) -> Tensor:
        """(B, K, S) reconstruction errors of squared residuals (B, D) as every class."""
        return self.errors(residual[:, None], self.pixel_weight[None])

    def detector_scores(self, z: Tensor, residual: Tensor, classes: Tensor | None = None) -> Tensor:
        """The scores, each in units of its own threshold: above 1 is rejected.

        Args:
            z: (B, k) latents.
            residual: (B, D) squared residuals of the rebuilt images.
            classes: (B,) whose mean, weights and thresholds apply; None for the nearest mean's, the system's answer.

        Returns:
            (B, 1 + S) float32: encoder score (squared Mahalanobis distance to the class's mean), decoder scores.
        """
        classes = self.nearest(z) if classes is None else classes
        encoder = self.mahalanobis(z, classes) / self.tau_encoder[classes]
        uses_weights = "cauchy" in self.kinds  # as many numbers as there are pixels in the batch
        weight = self.pixel_weight[classes] if uses_weights else self.pixel_weight[:1]
        decoder = self.errors(residual, weight) / self.tau_decoder[classes]
        return torch.cat([encoder[:, None], decoder], 1)
