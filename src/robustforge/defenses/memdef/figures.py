"""What the memory does to the latents of an image, as a picture (arXiv:2202.02595, Fig. 3)."""

from __future__ import annotations

import torch

from robustforge.defenses.figures import Figure, Picture, Scene
from robustforge.defenses.memdef.system import WITHOUT_SLOT, MemorySystem


def memdef_figures(system: MemorySystem) -> dict[str, Figure]:
    """The figures of one defense, by name: none where there is no latent to show."""
    if system.variant in ("selector", "classifier"):
        return {}
    return {"latents": lambda scene: latents(scene, system)}


@torch.no_grad()
def latents(scene: Scene, system: MemorySystem, count: int = 500) -> Picture:
    """Latents of the first ``count`` test images, without and with memory.

    Notes:
        The paper's plot opens the slot of the true label, so that classes lie apart by the mask alone, whatever was
        learned: the third panel opens the slot that the selector answers, as the deployed system does.
    """
    x, y = scene.images(count)
    encoded = system.stack.encoder(x)
    spaces = {"encoder, without memory": encoded}
    if system.variant not in WITHOUT_SLOT:
        memory = system.stack.memory
        spaces["read with the label's slot (paper)"] = memory(encoded, y).target
        spaces["read with the selector's slot"] = memory(encoded, system.slots(x)).target
    arrays = {f"space{number}": value for number, value in enumerate(spaces.values())}
    return Picture("scatter", {**arrays, "spaces": list(spaces), "label": y, "title": "clean test images"})
