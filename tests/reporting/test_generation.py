import numpy as np
from matplotlib.image import imread

from robustforge.reporting.figures.samples import samples


def test_the_grid_shows_classes_then_reconstructions(tmp_path):
    for channels in (1, 2, 3, 5):
        shape = (channels, 28, 28)
        arrays = {"samples": np.full((10, 8, *shape), 0.5), "clean": np.ones((10, *shape))}
        path = samples({**arrays, "rebuilt": np.zeros((10, *shape))}, tmp_path / f"{channels}.png")
        picture = imread(path)
        assert picture.shape[0] > picture.shape[1] * 0.8
        assert picture.std() > 0.05
