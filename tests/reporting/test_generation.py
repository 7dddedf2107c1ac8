import numpy as np
from matplotlib.image import imread

from robustforge.reporting.figures.generation import class_grid


def test_the_grid_shows_classes_then_reconstructions(tmp_path):
    for channels in (1, 3):
        folder = tmp_path / str(channels)
        folder.mkdir()
        shape = (channels, 28, 28)
        np.savez(
            folder / "generation.npz", samples=np.full((10, 8, *shape), 0.5), clean=np.ones((10, *shape)),
            rebuilt=np.zeros((10, *shape)),
        )  # fmt: skip
        path = class_grid(folder)
        assert path == folder / "figures" / "generation.png"
        picture = imread(path)
        assert picture.shape[0] > picture.shape[1] * 0.8
        assert picture.std() > 0.05


def test_without_samples_there_is_no_picture(tmp_path):
    assert class_grid(tmp_path) is None
