"""CelebA from files like torchvision's, made here."""

import numpy as np
import pytest
from PIL import Image

from robustforge.data.sources import load_arrays
from robustforge.types import UserError

FACES = {1: (0, 1), 2: (0, -1), 3: (1, 1), 4: (2, -1), 5: (2, 1), 6: (0, 1)}  # number: part, Male


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number in FACES:
        Image.new("RGB", (178, 218), (40 * number, 0, 0)).save(folder / "img_align_celeba" / f"{number:06}.jpg")
    parts = [f"{number:06}.jpg {part}" for number, (part, _) in FACES.items()]
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    rows = [f"{number:06}.jpg  -1 {male:2}" for number, (_, male) in FACES.items()]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["6", "Bald Male ", *rows]) + "\n")
    return tmp_path


def load(root):
    return load_arrays("celeba", "celeba", root, False, (3, 8, 8), 2)


def test_parts_labels_and_pixels_are_the_lists(root):
    found = load(root)
    assert found.y_train.tolist() == [1, 0, 1]
    assert found.y_test.tolist() == [0, 1]
    assert found.x_train.shape == (3, 3, 8, 8)
    np.testing.assert_allclose(found.x_train[:, 0].mean((1, 2)), [40, 80, 240], atol=3)
    np.testing.assert_allclose(found.x_test[:, 0].mean((1, 2)), [160, 200], atol=3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list_eval_partition.txt", None, "torchvision's files"),
        ("list_eval_partition.txt", "000001.jpg 0\n", "no test images"),
        ("list_eval_partition.txt", "000001.jpg 0\n000007.jpg 2\n", "no test images"),
        ("list_attr_celeba.txt", "6\nBald Young\n000001.jpg -1 1\n", "list of attributes"),
        ("img_align_celeba/000004.jpg", None, "000004.jpg' does not exist"),
    ],
)
def test_what_is_missing_is_named(root, name, text, message):
    path = root / "celeba" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=message):
        load(root)
