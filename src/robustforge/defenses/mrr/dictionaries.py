"""Learns the input defenders' dictionaries from a stream of training images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from robustforge.defenses.mrr.settings import InputSettings
from robustforge.defenses.mrr.sparse_coding import ClassDictionaries
from robustforge.randomness import SampleRandom
from robustforge.types import Batch, UserError


def random_patches(x: Tensor, index: Tensor, side: int, count: int, seed: int) -> Tensor:
    """Patches at random places.

    Args:
        x: (B, C, H, W) images.
        index: (B,) sample numbers, which address the draws.
        side: of a patch, pixels.
        count: patches an image.
        seed: of the draws.

    Returns:
        (B, count, C * side * side).
    """
    windows = x.unfold(2, side, 1).unfold(3, side, 1)  # (B, C, rows, columns, side, side), a view
    size = torch.tensor(windows.shape[2:4], device=x.device)
    draws = SampleRandom(seed, "mrr/patches").uniform(index, (count, 2))
    place = (draws * size).long()
    image = torch.arange(len(x), device=x.device)[:, None]
    return windows[image, :, place[..., 0], place[..., 1]].flatten(2)


def learn_dictionaries(
    dictionaries: ClassDictionaries, batches: Iterable[Batch], settings: InputSettings, seed: int
) -> None:
    """Fills ``dictionaries`` with one dictionary a class.

    Args:
        dictionaries: filled in place.
        batches: of the training split.
        settings: sizes and sparsity.
        seed: of patches, first atoms and mini-batches.

    Raises:
        UserError: a class without any image.

    Notes:
        Only as many patches are kept as the mini-batches will read. They are centered by the class's mean patch and
        divided by one standard deviation, so that errors of standardized patches and of pixels are proportional.
    """
    wanted, classes = settings.iterations * settings.batch, len(dictionaries.atoms)
    kept: list[list[Tensor]] = [[] for _ in range(classes)]
    counts = [0] * classes
    for batch in batches:
        patches = random_patches(batch.x, batch.index, settings.patch, settings.patches_per_image, seed)
        for label in torch.unique(batch.y).tolist():
            if counts[label] < wanted:
                kept[label].append(patches[batch.y == label].flatten(0, 1)[: wanted - counts[label]].cpu())
                counts[label] += len(kept[label][-1])
    for label, parts in enumerate(kept):
        if not parts:
            raise UserError(
                f"Class {label} has no training image to learn a dictionary from: raise dataset.limit_train."
            )
        patches = torch.cat(parts).double()
        mean, scale = patches.mean(0), max(float(patches.sub(patches.mean(0)).square().mean().sqrt()), 1e-6)
        dictionaries.load(label, _learn(((patches - mean) / scale).numpy(), settings, seed), mean, scale)


def _learn(patches: np.ndarray, settings: InputSettings, seed: int) -> Tensor:
    """(A, d) atoms after ``settings.iterations`` mini-batches; a stream that is shorter is read again."""
    learner = MiniBatchDictionaryLearning(
        n_components=settings.atoms,
        alpha=settings.alpha,
        batch_size=settings.batch,
        fit_algorithm="cd",
        random_state=seed,
    )
    order = np.random.default_rng(seed)
    with warnings.catch_warnings():
        # the codes of a single mini-batch need not converge: the dictionary is an average over all of them
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(settings.iterations):
            learner.partial_fit(
                patches[order.choice(len(patches), settings.batch, replace=len(patches) < settings.batch)]
            )
    return torch.from_numpy(learner.components_)
