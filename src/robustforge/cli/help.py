"""``--help`` of the Hydra commands: groups that fit a screen; Hydra's own full list is behind ``--help-all``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from robustforge.config.locate import config_folder

WIDTH, MOST_LINES = 100, 2
ALL = "--help-all"
_SHORT = ("--help", "-h")


@dataclass(frozen=True)
class Page:
    """One screen.

    Attributes:
        about: what the command does, in a sentence.
        examples: (command, what it does) pairs.
        groups: names of option groups by heading.
        settings: (setting, what it does) pairs that are often changed.
    """

    about: str
    examples: Sequence[tuple[str, str]]
    groups: Mapping[str, Sequence[str]]
    settings: Sequence[tuple[str, str]]


_RUN = "run=outputs/memdef_digits/default"
PAGES = {
    "train": Page(
        "train.py trains a defense, attacks it, and reports what is left of its accuracy.",
        (
            ("train.py", "Memory Defense on digits, in minutes"),
            ("train.py defense=mrr dataset=mnist", "the paper's values and protocol"),
            ("train.py -m defense.memory_size=20,50,100 seed=0,1", "a sweep: a run folder each, one summary"),
            ("train.py debug=fast", "one batch of everything, as a trial"),
            ("train.py --cfg job", "prints the composition and does nothing"),
        ),
        {
            "What is trained": ("defense", "dataset", "model", "selector", "stack"),
            "What attacks it": ("protocol", "attack", "threat"),
            "How it is trained": ("optimizer", "scheduler", "trainer", "callbacks", "debug"),
            "Where it goes": ("logger", "paths"),
        },
        (
            ("seed=0", "of weights, batches and attacks"),
            ("threat.eps=8/255", "the budget, pixels in [0, 1]"),
            ("protocol.n_test=1000", "attacked test images; null: all"),
            ("defense.<name>=", "settings of the defense: conf/defense/<name>.yaml says which"),
            ("dataset.limit_train=1000", "training images, to try things out"),
            ("paths.data_dir=data", "or ROBUSTFORGE_DATA"),
            ("evaluate=false report=false", "train alone; no report.html"),
        ),
    ),
    "evaluate": Page(
        "evaluate.py attacks a trained run with another protocol, attack or budget.",
        (
            (f"evaluate.py {_RUN}", "the protocol smoke"),
            (f"evaluate.py {_RUN} protocol=paper", "the defense's own tables"),
            (f"evaluate.py {_RUN} protocol=adaptive", "attacks adapted to the defense, with a verdict"),
            (f"evaluate.py {_RUN} attack=torchattacks/APGD", "one more attack"),
            (f"evaluate.py {_RUN} threat.eps=0.2 attack.steps=100", "settings of budget and attack"),
        ),
        {"What attacks it": ("protocol", "attack", "threat"), "Where it goes": ("logger",)},
        (
            ("seed=0", "of the attacks"),
            ("device=gpu", "cpu | gpu"),
            ("shard=2/8, then merge=true", "one evaluation on several machines"),
            ("overwrite=true", "attack again although the records are there"),
            ("export=robustbench", "adversarial images and a claim, as RobustBench takes them"),
            ("paths.store_dir=, paths.data_dir=", "where products and data lie now, if they were moved"),
            ("trust=[mynets]", "modules of your own that the run builds networks from"),
        ),
    ),
    "export": Page(
        "export.py writes a trained run as a folder of its own, to keep, share and load.",
        (
            (f"export.py {_RUN}", "to <run>/exported"),
            (f"export.py {_RUN} push=me/model", "and uploads it to the Hugging Face hub"),
        ),
        {},
        (
            ("to=folder", "where it goes"),
            ("evaluation=folder", "the result on its card"),
            ("private=true", "on the hub"),
        ),
    ),
    "adversarial_set": Page(
        "make_adversarial_set.py attacks a split once and keeps the images.",
        ((f"make_adversarial_set.py {_RUN} attack=pgd split=test", "to <run>/adversarial_sets"),),
        {"What attacks it": ("attack", "threat")},
        (("surface=end_to_end", "what is attacked"), ("split=train", "train | calibration | test"), ("out=folder", "")),
    ),
}


def answer_help(name: str, arguments: Sequence[str]) -> list[str]:
    """Prints the screen and ends the command where the command line asks for it.

    Args:
        name: of the command's root config.
        arguments: the command line, without the program's name.

    Returns:
        The command line for Hydra, whose own ``--help`` is what ``--help-all`` asks for.
    """
    if ALL not in arguments and any(item in _SHORT for item in arguments):
        print(screen(name))
        sys.exit(0)
    return ["--help" if item == ALL else item for item in arguments]


def screen(name: str) -> str:
    """The text of one command, at most ``WIDTH`` columns wide."""
    page = PAGES[name]
    lines = [page.about, ""]
    program = "python " if name == "train" else "python scripts/"
    lines += _columns([(program + command, words) for command, words in page.examples])
    folder = config_folder()
    for heading, groups in page.groups.items():
        lines += ["", f"{heading} (group=option)"]
        lines += [line for group in groups for line in _options(group, _names(folder / group))]
    lines += ["", "Often set (key=value)"]
    lines += _columns(page.settings)
    lines += [
        "",
        "  --help-all   every group, option and setting        --hydra-help   Hydra's own flags",
        "  -sc install=bash   completion of groups and settings by the Tab key (also zsh, fish)",
    ]
    if name == "train":
        lines.append("The same command again continues a killed run.")
    return "\n".join(line.rstrip() for line in lines)


def _columns(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns; what does not fit beside is put below."""
    left = min(max(len(first) for first, _ in pairs), 60) + 2
    lines = []
    for first, second in pairs:
        beside = len(first) < left and 2 + left + len(second) <= WIDTH
        lines += [f"  {first:<{left}}{second}"] if beside else [f"  {first}", f"      {second}"]
    return lines


def _names(folder: Path) -> list[str]:
    found = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    plain = [name for name in found if "/" not in name]
    inner = sorted({f"{name.split('/')[0]}/<name>" for name in found if "/" in name})
    return [*plain, *inner, *(["torchattacks/<Name>"] if folder.name == "attack" else [])]


def _options(group: str, names: Sequence[str]) -> list[str]:
    """At most ``MOST_LINES`` lines of a group's options; the last one says how many are left out."""
    lines = wrap(" ".join(names), WIDTH - 14)
    if len(lines) > MOST_LINES:
        kept = wrap(" ".join(names), WIDTH - 14 - len(" ... (99 more)"))[:MOST_LINES]
        left = len(names) - sum(len(line.split()) for line in kept)
        lines = [*kept[:-1], f"{kept[-1]} ... ({left} more)"]
    return [f"  {group if place == 0 else '':<11} {line}" for place, line in enumerate(lines)]
