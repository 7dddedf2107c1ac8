"""One evaluation in a process of its own: ``python evaluated.py FOLDER BATCH_SIZE [RANK WORLD PORT]``."""

import os
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.defenses.none import PlainClassifier
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.evaluation.runner import Evaluation
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat


def evaluation(folder: Path, batch_size: int, steps: int = 10) -> Evaluation:
    data = ImageData("digits", "digits", (1, 28, 28), 10, limit_test=200, eval_batch_size=batch_size)
    data.setup()
    network = partial(small_cnn, (1, 28, 28), 10, (0.3,), (0.3,), (8, 16), 32)
    defense = PlainClassifier(network, training=None, seed=0)
    optimizer = torch.optim.Adam(defense.parameters(), lr=4e-3)
    x, y = data.train.images.float() / 255, data.train.labels
    torch.manual_seed(0)
    for _ in range(4):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(defense(x[rows]).logits, y[rows]).backward()
            optimizer.step()
    attacks = {
        "fgsm": FGSM(random_share=0.5, precision="float32"),
        "pgd": PGD(steps=steps, restarts=3, precision="float32"),
    }
    protocol = Protocol("test", {"all": Suite(attacks)}, [Threat("linf", 0.05)])
    cells = folder / "cells"
    return Evaluation("none", defense, data, protocol, folder, cells, {"classifier": "k"}, torch.device("cpu"), True)


if __name__ == "__main__":
    folder, batch_size, *ranks = sys.argv[1:]
    torch.set_num_threads(1)
    if ranks:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ranks[2]}
        dist.init_process_group("gloo", rank=int(ranks[0]), world_size=int(ranks[1]))
    print(evaluation(Path(folder), int(batch_size), int(os.environ.get("STEPS", "10"))).run()[0])
