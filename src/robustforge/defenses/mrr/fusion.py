"""From many defenders' scores to one risk in [0, 1]."""

from __future__ import annotations

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from robustforge.defenses.mrr.empirical_cdf import EmpiricalCDF
from robustforge.defenses.mrr.settings import FusionSettings
from robustforge.types import UserError


class RiskFusion(nn.Module):
    """Everything that is measured on held-out scores, and the four ways to fuse them.

    ``settings`` may be replaced on a trained system: mode and security parameter only read what is fitted here.

    Args:
        scores: J defenders' scores.
        num_classes: K.
        settings: how they are fused.
    """

    correlation: Tensor
    mean: Tensor
    std: Tensor
    log_weights: Tensor
    centers: Tensor
    factors: Tensor

    def __init__(self, scores: int, num_classes: int, settings: FusionSettings) -> None:
        super().__init__()
        self.settings, components = settings, settings.mixture_components
        self.cdf = EmpiricalCDF(scores, num_classes)
        self.mixture_cdf = EmpiricalCDF(1, 1)
        self.register_buffer("correlation", torch.eye(scores))  # Pearson's, of the held-out scores
        self.register_buffer("mean", torch.zeros(scores))
        self.register_buffer("std", torch.ones(scores))
        self.register_buffer("log_weights", torch.zeros(components))
        self.register_buffer("centers", torch.zeros(components, scores))
        self.register_buffer("factors", torch.eye(scores).repeat(components, 1, 1))

    @torch.no_grad()
    def fit(self, scores: Tensor, label: Tensor, seed: int) -> None:
        """Distribution functions, correlations and mixture of held-out scores (M, J), predicted ``label`` (M,).

        Raises:
            UserError: no held-out image.

        Notes:
            The evaluation fits the fused threshold on the same images, on which every distribution function is exactly
            uniform: new images are rejected a little more often than the stated rate when there are few of them.
            The mixture is fitted on the normal scores of the same images whose distribution function of the likelihood
            is then taken: with few images and many defenders it is too sure of them, by the ridge less so.
        """
        if len(scores) < 2:
            raise UserError("The defenders' thresholds need held-out images: raise dataset.held_out.")
        self.cdf.fit(scores, label, self.settings.least if self.settings.per_class else None)
        self.mean.copy_(scores.mean(0))
        self.std.copy_(scores.std(0, correction=0).clamp_min(1e-6))
        self.correlation.copy_(torch.corrcoef(scores.double().T).reshape(self.correlation.shape).nan_to_num(0.0))
        normal = torch.special.ndtri(self.cdf(scores, label).double())
        mixture = GaussianMixture(min(len(self.log_weights), len(scores)), reg_covar=0.05, random_state=seed)
        mixture.fit(normal.cpu().numpy())
        count = mixture.n_components
        self.log_weights.fill_(float("-inf"))
        self.log_weights[:count] = torch.as_tensor(mixture.weights_).log()
        self.centers[:count] = torch.as_tensor(mixture.means_)
        self.factors[:count] = torch.as_tensor(mixture.precisions_cholesky_)
        self.mixture_cdf.fit(self._unlikelihood(normal.float()), torch.zeros_like(label))

    def excess(self, scores: Tensor, label: Tensor) -> Tensor:
        """(B, J) how far each score lies above its SP threshold, in standard deviations; positive = flagged."""
        threshold = self.cdf.thresholds(self.settings.security_parameter)[:, label].T
        return (scores - threshold) / self.cdf.scale[:, label].T

    def forward(
        self, scores: Tensor, label: Tensor, leaked: Tensor | None = None, *, smooth: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Risk and, where risk is their maximum, its detector_scores.

        Args:
            scores: (B, J).
            label: (B,) predicted classes.
            leaked: (J,) weights of ``noisy_or_leaky``.
            smooth: the same values with the gradient of :meth:`excess` in the place of the empirical distribution's,
                which is ragged inside and vanishes outside: for attackers.

        Returns:
            (risk (B,) in [0, 1], detector_scores (B, J) or None).
        """
        excess = self.excess(scores, label)
        if self.settings.mode == "or":
            detector_scores = self._flag_scale(self.cdf(scores, label), excess, label)
            detector_scores = _straight_through(detector_scores, excess) if smooth else detector_scores
            return detector_scores.amax(1), detector_scores
        if self.settings.mode == "noisy_or_leaky":
            return self._noisy_or(excess, leaked, smooth), None
        share = self.cdf(scores, label)
        if self.settings.mode == "mean_cdf":
            return (_straight_through(share, excess) if smooth else share).mean(1), None
        normal = torch.special.ndtri(share)
        unlikely = self._unlikelihood(_straight_through(normal, excess) if smooth else normal)
        risk = self.mixture_cdf(unlikely, torch.zeros_like(label))
        return (_straight_through(risk, unlikely) if smooth else risk).squeeze(1), None

    def _flag_scale(self, share: Tensor, excess: Tensor, label: Tensor) -> Tensor:
        """Stretches F so that its SP threshold comes to lie at 0.5; flags alone decide on which side a score falls."""
        level = self.cdf.level(self.settings.security_parameter)[label, None]
        low, high = 0.5 * share / level, 0.5 + 0.5 * (share - level) / (1 - level)
        above = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)).item()
        return torch.where(excess > 0, high.clamp(above, 1.0), low.clamp(0.0, 0.5))

    def _noisy_or(self, excess: Tensor, leaked: Tensor | None, smooth: bool) -> Tensor:
        """1 - prod_j (1 - p_j)^flag_j, p_j measured on attacks (released code; alarm above 0.5)."""
        weights = excess.new_ones(excess.shape[1]) if leaked is None else leaked
        flags = (excess > 0).float()
        flags = _straight_through(flags, excess.sigmoid()) if smooth else flags
        return 1 - (1 - weights * flags).prod(1)

    def _unlikelihood(self, normal: Tensor) -> Tensor:
        """(B, 1) minus the mixture's log density of normal scores (B, J), up to a constant."""
        white = (normal[:, None, None] - self.centers[:, None]) @ self.factors  # (B, G, 1, J)
        log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return -(self.log_weights + log_det - 0.5 * white.square().sum((2, 3))).logsumexp(1, keepdim=True)


class LeakedRates(nn.Module):
    """Weights of the released code's noisy-OR: the precision of each defender's flag, measured on the test set.

    Args:
        scores: J.
    """

    rates: Tensor

    def __init__(self, scores: int) -> None:
        super().__init__()
        self.register_buffer("rates", torch.ones(scores))

    def fit(self, clean: Tensor, attacked: Tensor) -> None:
        """p_j = TP_j / (TP_j + FP_j + 0.001) from flags (n, J) of clean and (m, J) of attacked test images (counts)."""
        hits, alarms = attacked.double().sum(0), clean.double().sum(0)
        self.rates.copy_(hits / (hits + alarms + 0.001))


def _straight_through(value: Tensor, stand_in: Tensor) -> Tensor:
    return value.detach() + (stand_in - stand_in.detach())
