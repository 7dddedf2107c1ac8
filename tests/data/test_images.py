"""Pixels where they enter: every kind that means something else is refused with the advice that is right for it."""

import numpy as np
import pytest

from robustforge.data import images as module
from robustforge.data.images import check_adversarial, check_images
from robustforge.types import UserError

EIGHT = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
UNIT = (EIGHT / 255).astype(np.float32)


def with_pixel(value, of=UNIT):
    x = of.copy()
    x[2, 0, 3, 3] = value
    return x


def test_8_bit_pixels_pass_as_they_are():
    assert check_images(EIGHT) is EIGHT


@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4"])
def test_floats_on_the_grid_of_8_bits_become_8_bit_pixels_and_it_is_said(kind, caplog):
    caplog.set_level("INFO")
    found = check_images((EIGHT / 255).astype(kind), "x_test")
    assert found.dtype == np.uint8
    assert np.array_equal(found, EIGHT)
    assert "x_test: the floats are multiples of 1/255" in caplog.text


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize(
    "chunk", [64, 1 << 24]
)  # the perturbed pixel is in the third of four chunks, or in the only one
def test_a_perturbation_of_one_pixel_keeps_all_floats(kind, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    x = with_pixel(0.4 + 0.001, UNIT).astype(kind)
    found = check_images(x)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert np.array_equal(found, x.astype(np.float32))
    assert check_images(found) is found


def test_perturbations_above_a_millionth_are_kept_and_those_below_are_not():
    for shift, kind in ((4e-6, np.float32), (1e-7, np.uint8)):
        assert check_images(with_pixel(UNIT[2, 0, 3, 3] + np.float32(shift))).dtype == kind


@pytest.mark.parametrize("kind", [np.int64, np.int16, np.uint16, np.int32])
def test_other_integers_within_8_bits_are_converted_and_it_is_said(kind, caplog):
    caplog.set_level("INFO")
    found = check_images(EIGHT.astype(kind), "x_train")
    assert found.dtype == np.uint8
    assert np.array_equal(found, EIGHT)
    assert "x_train: integers of type" in caplog.text


OBJECTS = np.empty(2, object)
OBJECTS[:] = [np.zeros((2, 2)), np.zeros((3, 3))]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (with_pixel(np.nan), r"NaN or infinite pixels \(first in image 2\): mend or remove"),
        (with_pixel(np.inf), r"NaN or infinite pixels \(first in image 2\)"),
        (UNIT * 2 - 1, r"from -1 to 1 .*store \(x \+ 1\) / 2"),
        (UNIT - 0.5, r"store x \+ 0.5"),
        ((UNIT - 0.3) / 0.2, r"undo the normalization with x \* std \+ mean"),
        (UNIT * 1.02 - 0.01, r"cut the overshoot with np.clip"),
        (EIGHT.astype(np.float32), "from 0 to 255 .*divide by 255"),
        (UNIT * 179, "divide by 255"),
        (UNIT * 16, "divide by the value of white"),
        (UNIT * 65535, "65535 for 16-bit"),
        (UNIT * 255 - 128, "black is 0 and white is 1"),
        (EIGHT.astype(np.uint16) * 257, "uint16 with values from 0 to 65535: .*65535 for 16-bit"),
        (EIGHT.astype(np.int64) - 300, "values from -300"),
        ((EIGHT.astype(int) - 128).astype(np.int8), r"\+ 128\)"),
        (EIGHT > 100, r"type bool: store x.astype\(np.uint8\) \* 255"),
        ((EIGHT > 100).astype(np.uint8), r"nearly black, .*1 of 255: .*store x \* 255"),
        ((EIGHT > 100).astype(np.int64), r"nearly black, .*store x \* 255"),
        (UNIT / 255, "divided by 255 twice"),
        (EIGHT * 0, "black images only"),
        (UNIT * 0, "black images only"),
        (UNIT.astype(complex), "complex numbers: store their real part"),
        (OBJECTS, r"images of different sizes.*np.stack"),
        (EIGHT.astype(str), "is of type <U3: store pixels as uint8"),
        (EIGHT.astype("M8[s]"), "store pixels as uint8"),
        (EIGHT[:0], r"shape \[0, 1, 8, 8\], which is no image"),
        (UNIT[:, :, :0], "no image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "x",
)
def test_what_is_doubtful_is_refused_with_the_right_advice(x, message):
    with pytest.raises(UserError, match=f"^x_test of 'a.npz' .*{message}") as found:
        check_images(x, "x_test of 'a.npz'")
    assert "\n" not in str(found.value)


def test_dark_images_pass_with_a_warning(caplog):
    assert check_images(EIGHT // 16).max() == 15
    assert check_images(UNIT * 0.05).dtype == np.float32
    assert caplog.text.count("is dark") == 2
    caplog.clear()
    check_images(EIGHT)
    check_images(UNIT)
    assert not caplog.text


def test_brightness_is_found_wherever_it_is(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 64)
    x = np.zeros_like(EIGHT)
    x[3] = 200
    assert check_images(x) is x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (with_pixel(np.nan), "first in image 2"),
        (with_pixel(7.5), "from 0 to 7.5, outside"),
        (with_pixel(-1e-3), "from -0.001 to 1, outside"),
        (EIGHT, "type uint8 where floats"),
    ],
)
def test_attacked_images_are_floats_of_an_image(x, message):
    check_adversarial(UNIT, "The set")
    with pytest.raises(UserError, match=f"^The set .*{message}"):
        check_adversarial(x, "The set")
