"""Orthogonal matching pursuit against scikit-learn's, patches by hand, residuals and their gradient."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import sparse_encode

from robustforge.defenses.mrr.sparse_coding import ClassDictionaries, orthogonal_matching_pursuit, patches_of


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize(("atoms", "length", "nonzeros"), [(60, 49, 5), (225, 49, 5), (20, 49, 8), (30, 12, 1)])
def test_codes_are_scikit_learns(atoms, length, nonzeros):
    dictionary, signals = unit(atoms, length), 3 * unit(100, length, seed=1)
    theirs = sparse_encode(signals.numpy(), dictionary.numpy(), algorithm="omp", n_nonzero_coefs=nonzeros)
    ours = orthogonal_matching_pursuit(signals, dictionary, nonzeros)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-5, rtol=0)
    single = orthogonal_matching_pursuit(signals.float(), dictionary.float(), nonzeros)
    assert single.dtype == torch.float32
    assert (single - ours).abs().max() < 1e-5


def test_each_image_has_a_dictionary_of_its_own():
    dictionaries, signals = unit(3, 20, 9), unit(3, 7, 9, seed=1)
    together = orthogonal_matching_pursuit(signals, dictionaries, 3)
    for one, dictionary, codes in zip(signals, dictionaries, together, strict=True):
        torch.testing.assert_close(codes, orthogonal_matching_pursuit(one, dictionary, 3))


def test_a_sparse_signal_is_found_exactly_and_zero_is_left_alone():
    dictionary = torch.eye(6, dtype=torch.float64)
    signals = torch.tensor([[0, 2.0, 0, 0, -1.0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    codes = orthogonal_matching_pursuit(signals, dictionary, 4)
    torch.testing.assert_close(codes, signals, atol=1e-9, rtol=0)
    # two atoms that are the same: the second is never needed
    twice = torch.cat([dictionary, dictionary])
    assert torch.allclose(orthogonal_matching_pursuit(signals, twice, 4) @ twice, signals, atol=1e-6)


def test_patches_cover_the_image():
    x = torch.arange(2 * 1 * 4 * 4).float().view(2, 1, 4, 4)
    patches = patches_of(x, 2, 2)
    assert patches.shape == (2, 4, 4)
    assert patches[0, 0].tolist() == [0, 1, 4, 5]
    assert patches[0, 3].tolist() == [10, 11, 14, 15]
    assert patches_of(torch.rand(1, 3, 5, 5), 2, 2).shape == (1, 9, 12)


@pytest.fixture
def dictionaries():
    made = ClassDictionaries(2, 1, side=3, stride=3, atoms=6, nonzeros=2)
    for label in range(2):
        made.load(label, unit(6, 9, seed=label), torch.full((9,), 0.1 * label), 1.0 + label)
    return made


def test_score_is_the_distance_to_the_reconstruction(dictionaries):
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 0, 1, 1])
    scores = dictionaries(x, label)
    for k in range(5):
        c = int(label[k])
        patches = patches_of(x[k : k + 1], 3, 3)[0].double()
        mean, scale, atoms = dictionaries.means[c].double(), float(dictionaries.scales[c]), dictionaries.atoms[c]
        codes = sparse_encode(
            ((patches - mean) / scale).numpy(), atoms.double().numpy(), algorithm="omp", n_nonzero_coefs=2
        )
        rebuilt = torch.from_numpy(codes) @ atoms.double() * scale + mean
        assert float(scores[k]) == pytest.approx(float((patches - rebuilt).norm()), abs=1e-5)
    dictionaries.score = "psnr"
    psnr = dictionaries(x, label)
    torch.testing.assert_close(psnr, 10 * (scores.square() / 36).log10(), atol=1e-4, rtol=1e-4)


def test_gradient_of_the_residual_is_exact(dictionaries):
    # against finite differences of the real thing, pursuit included
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(3)).requires_grad_(True)
    label = torch.tensor([1])
    (gradient,) = torch.autograd.grad(dictionaries(x, label).sum(), x)
    assert gradient.abs().min() > 0
    step = 1e-2
    for place in [(0, 0, 1, 1), (0, 0, 4, 2), (0, 0, 5, 5)]:
        shift = torch.zeros_like(x)
        shift[place] = step
        with torch.no_grad():
            difference = (dictionaries(x + shift, label) - dictionaries(x - shift, label)) / (2 * step)
        assert float(gradient[place]) == pytest.approx(float(difference), abs=5e-3)
