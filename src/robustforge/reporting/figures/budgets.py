"""One image under growing budgets, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustforge.reporting.figures.gallery import changes, channels_note, draw_change, show
from robustforge.reporting.figures.style import INK, PALETTE, Arrays, drawing, save


def budgets(data: Arrays, path: Path) -> Path:
    """Draws for every attack the image by budget, its changes below.

    Changes are red where the attack made the image lighter and blue where darker; full color is the budget. A red title
    is a wrong answer.

    Args:
        data: ``clean`` (C, H, W), ``attacked`` (A, E, C, H, W), ``prediction`` (A, E), ``label`` (), ``eps`` (E,) in
            pixel units and ``attack`` (A,), names.
        path: of the PNG.
    """
    names, eps = data["attack"], data["eps"]
    with drawing(0.95 * (len(eps) + 1) + 0.6, 2.3 * len(names) + 0.5) as figure:
        words = "above: attacked, with budget and answer; below: the change"
        figure.suptitle(f"label {int(data['label'])}; {words}{channels_note(data['clean'])}", fontsize=9)
        grid = figure.subplots(2 * len(names), len(eps) + 1, squeeze=False)
        for i, name in enumerate(names):
            images = np.concatenate([data["clean"][None], data["attacked"][i]])
            for j, image in enumerate(images):
                above, below = grid[2 * i][j], grid[2 * i + 1][j]
                show(above, image)
                change = changes(image - data["clean"])
                draw_change(below, change, min(float(eps[j - 1]) if j else 1.0, float(np.abs(change).max()) or 1.0))
                answer = None if j == 0 else int(data["prediction"][i][j - 1])
                heading = "clean" if answer is None else f"{eps[j - 1]:.3g}: {answer}"
                wrong = answer is not None and answer != int(data["label"])
                above.set_title(heading, fontsize=8, loc="center", color=PALETTE[1] if wrong else INK)
            grid[2 * i][0].set_ylabel(str(name), fontsize=8)
        return save(figure, path)
