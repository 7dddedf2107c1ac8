"""How unlikely a feature is for a class: principal components, then a distance or a Gaussian mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

KINDS = ("distance", "gaussian_mixture")


class FeatureMoments:
    """Sums over a stream of features, from which means and covariances follow without keeping the features.

    Args:
        defenders: N.
        num_classes: K.
        size: D.
        by_class: keep the second moments of every class apart.
        device: where the sums lie.
    """

    def __init__(
        self, defenders: int, num_classes: int, size: int, by_class: bool, device: torch.device | str = "cpu"
    ) -> None:
        self.by_class = by_class
        groups = num_classes if by_class else 1
        self.count = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.total = torch.zeros(defenders, num_classes, size, dtype=torch.float64, device=device)
        self.outer = torch.zeros(defenders, groups, size, size, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, features: Tensor, y: Tensor) -> None:
        """Adds features (N, B, D) of images with labels ``y`` (B,)."""
        values, classes = features.double(), len(self.count)
        member = torch.nn.functional.one_hot(y, classes).double()  # (B, K)
        self.count += member.sum(0)
        self.total += torch.einsum("bk,nbd->nkd", member, values)
        if self.by_class:
            for label in range(classes):
                mine = values[:, y == label]
                self.outer[:, label] += mine.mT @ mine
        else:
            self.outer[:, 0] += values.mT @ values


class FeatureDensity(nn.Module):
    """Scores of features under N fitted densities.

    Args:
        defenders: N.
        num_classes: K.
        size: D.
        components: principal components kept at most.
        kind: ``distance`` to the class mean in the space of the principal components, or ``gaussian_mixture``, minus
            the logarithm of the class's share of a mixture of one Gaussian a class.

    Notes:
        The mixture's components are the classes, each with a covariance of its own (Bouveyron et al. 2007), shrunk
        toward their mean covariance; the class is known (the victim's answer), so that only its component counts.
    """

    mean: Tensor
    basis: Tensor
    centers: Tensor
    rank: Tensor
    whitening: Tensor
    offset: Tensor

    def __init__(
        self, defenders: int, num_classes: int, size: int, components: int = 64, kind: str = "distance"
    ) -> None:
        super().__init__()
        rank = min(size, components)
        self.kind, self.num_classes, self.size = kind, num_classes, size
        self.register_buffer("mean", torch.zeros(defenders, size))
        self.register_buffer("basis", torch.eye(size)[:, :rank].repeat(defenders, 1, 1))
        self.register_buffer("centers", torch.zeros(defenders, num_classes, rank))
        self.register_buffer("rank", torch.full((defenders,), rank))
        mixture = kind == "gaussian_mixture"
        self.register_buffer("whitening", torch.eye(rank).repeat(defenders, num_classes if mixture else 0, 1, 1))
        self.register_buffer("offset", torch.zeros(defenders, num_classes if mixture else 0))

    def moments(self) -> FeatureMoments:
        """Empty sums of the right size, for :meth:`fit`."""
        by_class = self.kind == "gaussian_mixture"
        return FeatureMoments(len(self.mean), self.num_classes, self.size, by_class, self.mean.device)

    @torch.no_grad()
    def fit(self, moments: FeatureMoments, variance_kept: float = 0.99, shrinkage: float = 0.1) -> None:
        """Principal components, class means and, for the mixture, class covariances.

        Args:
            moments: of the training features.
            variance_kept: share of the variance that the components hold together.
            shrinkage: share of the mean covariance in every class's own.
        """
        count = moments.count.sum()
        mean = moments.total.sum(1) / count
        covariance = moments.outer.sum(1) / count - mean[:, :, None] * mean[:, None]
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(-1).clamp(min=0), vectors.flip(-1)
        share = values.cumsum(-1) / values.sum(-1, keepdim=True).clamp_min(1e-300)
        kept = (share < variance_kept - 1e-12).sum(-1) + 1
        rank = kept.clamp(max=self.basis.shape[2])
        column = torch.arange(self.basis.shape[2], device=rank.device)
        basis = vectors[..., : self.basis.shape[2]] * (column < rank[:, None])[:, None]
        class_means = moments.total / moments.count.clamp(min=1)[:, None]
        centers = (class_means - mean[:, None]) @ basis
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.centers.copy_(centers)
        self.rank.copy_(rank)
        if self.kind == "gaussian_mixture":
            self._fit_mixture(moments, class_means, basis, shrinkage)

    def _fit_mixture(self, moments: FeatureMoments, class_means: Tensor, basis: Tensor, shrinkage: float) -> None:
        count = moments.count.clamp(min=1)
        own = moments.outer / count[:, None, None] - class_means[..., :, None] * class_means[..., None, :]
        own = basis[:, None].mT @ own @ basis[:, None]  # (N, K, R, R)
        share = (moments.count / moments.count.sum())[:, None, None]
        pooled = (share * own).sum(1, keepdim=True)
        # directions beyond the rank have no variance at all: a floor, which is the same for every class, keeps them out
        floor = pooled.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None].clamp_min(1e-12) * 1e-4
        eye = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
        covariance = (1 - shrinkage) * own + shrinkage * pooled + floor * eye
        factor = torch.linalg.cholesky(covariance)
        self.whitening.copy_(torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False).mT)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * own.shape[-1] * math.log(2 * math.pi)
        self.offset.copy_(0.5 * log_det + constant - (count / moments.count.sum()).log())

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """(N, B) scores of features (N, B, D) for classes ``label`` (B,); higher is less likely."""
        with torch.autocast(features.device.type, enabled=False):  # thresholds are fitted in float32
            z = (features.float() - self.mean[:, None]) @ self.basis
            if self.kind == "distance":
                return ((z - self.centers[:, label]).square().sum(2) + 1e-12).sqrt()
            white = (z[:, None] - self.centers[:, :, None]) @ self.whitening  # (N, K, B, R)
            scores = 0.5 * white.square().sum(3) + self.offset[..., None]
            return scores[:, label, torch.arange(len(label), device=label.device)]
