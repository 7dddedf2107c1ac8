import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch.distributions import MultivariateNormal

from robustforge.defenses.gmvae.mixture import MixtureDetector, chi2_quantile, class_means, squared_distances
from robustforge.types import UserError


def test_means_are_one_hot_and_padded():
    assert torch.equal(class_means(3, 3), torch.eye(3))
    wide = class_means(10, 32)
    assert wide.shape == (10, 32)
    assert torch.equal(wide[:, :10], torch.eye(10))
    assert not wide[:, 10:].any()
    distances = torch.cdist(wide, wide)[~torch.eye(10, dtype=torch.bool)]
    torch.testing.assert_close(distances, torch.full((90,), 2**0.5))


def test_a_latent_narrower_than_the_classes_is_refused():
    with pytest.raises(UserError, match="10 or more"):
        class_means(10, 9)


@pytest.mark.parametrize(("latent", "value"), [(1, 9.00), (10, 26.90), (32, 58.75), (100, 143.85)])
def test_the_papers_critical_values(latent, value):
    """The 3-sigma rule: two-sided, 99.73 %."""
    level = torch.erf(torch.tensor(3 / 2**0.5, dtype=torch.float64)).item()
    assert chi2_quantile(level, latent) == pytest.approx(value, abs=0.006)
    assert chi2_quantile(0.9973, latent) == pytest.approx(value, abs=0.011)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1 - 1e-6), st.integers(1, 200))
def test_chi2_is_scipys(level, freedom):
    assert chi2_quantile(level, freedom) == pytest.approx(chi2.ppf(level, freedom), rel=1e-7)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_chi2_refuses_what_is_no_probability(level):
    with pytest.raises(UserError, match="between 0 and 1"):
        chi2_quantile(level, 10)


@pytest.fixture
def detector():
    """Three classes in four dimensions with covariances of their own."""
    made = MixtureDetector(3, 4, 0.5, pixels=2)
    factors = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    covariance = factors @ factors.mT + 0.1 * torch.eye(4)
    made.covariance.copy_(covariance)
    made.precision.copy_(torch.linalg.inv(covariance))
    made.tau_encoder.copy_(torch.tensor([1.0, 2.0, 4.0]))
    made.tau_decoder.copy_(torch.tensor([[10.0], [20.0], [40.0]]))
    return made


def test_mahalanobis_is_the_exponent_of_the_density(detector):
    z = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    everything = detector.all_mahalanobis(z)
    for number in range(3):
        density = MultivariateNormal(detector.means[number], detector.covariance[number])
        peak = density.log_prob(detector.means[number])
        expected = -2 * (density.log_prob(z) - peak)
        torch.testing.assert_close(everything[:, number], expected, rtol=1e-4, atol=1e-4)
        same = torch.full((7,), number)
        torch.testing.assert_close(detector.mahalanobis(z, same), expected, rtol=1e-4, atol=1e-4)


def test_the_printed_distance_has_the_covariance(detector):
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    delta = z[0] - detector.means[1]
    assert detector.all_mahalanobis(z, literal=True)[0, 1].item() == pytest.approx(
        (delta @ detector.covariance[1] @ delta).item(), rel=1e-5
    )


def test_parts_are_in_units_of_the_predicted_classs_thresholds(detector):
    z = detector.means + 0.1
    residual = torch.tensor([[2.0, 3.0]] * 3)
    parts = detector.detector_scores(z, residual)
    assert detector.nearest(z).tolist() == [0, 1, 2]
    torch.testing.assert_close(parts[:, 1], torch.tensor([0.5, 0.25, 0.125]))
    torch.testing.assert_close(parts[:, 0], detector.mahalanobis(z, torch.arange(3)) / torch.tensor([1.0, 2.0, 4.0]))


def test_errors_are_those_of_the_class():
    made = MixtureDetector(3, 4, 0.5, pixels=2, errors=["squared", "cauchy"])
    made.pixel_weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.5, 4.0]]))
    made.tau_decoder.copy_(torch.tensor([[1.0, 1.0], [10.0, 2.0], [100.0, 4.0]]))
    residual = torch.tensor([[2.0, 3.0], [1.0, 1.0]])
    expected = torch.tensor([
        [[5, math.log(3 * 4)], [5, math.log(5)], [5, math.log(2 * 13)]],
        [[2, math.log(2 * 2)], [2, math.log(3)], [2, math.log(1.5 * 5)]],
    ])  # fmt: skip
    torch.testing.assert_close(made.all_errors(residual), expected)
    aimed = made.detector_scores(made.means[:2], residual, torch.tensor([2, 1]))
    assert aimed.shape == (2, 3)
    torch.testing.assert_close(aimed[0, 1:], expected[0, 2] / torch.tensor([100.0, 4.0]))
    torch.testing.assert_close(aimed[1, 1:], expected[1, 1] / torch.tensor([10.0, 2.0]))


def test_the_cauchy_error_is_minus_the_log_density():
    """Of independent Cauchy residuals with the weights' scales, up to what does not depend on them."""
    made = MixtureDetector(2, 2, 0.5, pixels=5, errors=["cauchy"])
    residual = torch.rand(6, 5)
    weight = 1 + torch.rand(5)
    density = torch.distributions.Cauchy(0.0, weight.rsqrt())
    expected = (density.log_prob(torch.zeros(5)) - density.log_prob(residual.sqrt())).sum(1)
    torch.testing.assert_close(made.errors(residual, weight)[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_parts_are_float32_under_autocast(detector):
    z = torch.randn(4, 4).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = detector.detector_scores(z, torch.rand(4, 2))
    assert parts.dtype == torch.float32
    torch.testing.assert_close(parts[:, 0], detector.detector_scores(z.float(), torch.rand(4, 2))[:, 0])


def test_squared_distances_by_hand():
    assert squared_distances(torch.tensor([[1.0, 2.0]]), torch.eye(2)).tolist() == [[4.0, 2.0]]
