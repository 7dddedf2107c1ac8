"""``store.py``: what is there, whether it is whole, and that nothing goes which a run folder names."""

import json
import os
import time

import pytest

from robustforge.cli.store import age_words, main, size_words
from robustforge.config.store_content import RECENT, content, products_of
from robustforge.training.locks import exclusive
from robustforge.training.store import ArtifactStore

KEYS = {name: f"{number:x}" * 64 for number, name in enumerate(("used", "given", "loose", "young", "held"), 10)}


def name_of(word):
    return f"{'given' if word == 'given' else 'stack'}-{KEYS[word][:16]}"


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.fixture
def outputs(tmp_path):
    """A store with products old enough to go, and a finished run that names two of them."""
    store = ArtifactStore(tmp_path / "store")
    for word, key in KEYS.items():
        stage = name_of(word).partition("-")[0]
        (store.workspace(stage, key) / "weights.safetensors").write_bytes(bytes(1000))
        folder = store.commit(stage, key, {"stage": stage}, ("weights.safetensors",)).folder
        age(folder, 0 if word == "young" else 2 * RECENT)
    (store.root / "cells").mkdir()
    (store.root / "cells" / "c.parquet").write_bytes(bytes(10))
    damaged = store.root / "stack-0.damaged-1"
    damaged.mkdir()
    age(damaged, 2 * RECENT)
    run = tmp_path / "memdef_digits" / "default"
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps({"stages": [{"name": "stack", "key": KEYS["used"]}]}))
    kept = store.folder("given", KEYS["given"])
    (run / "config.yaml").write_text(f"defense: {{undefended_from: {kept}/weights.safetensors}}\n")
    return tmp_path


@pytest.fixture
def store(outputs, capsys):
    """store(action, *settings): exit code and what was printed."""

    def call(action, *settings):
        with pytest.raises(SystemExit) as stop:
            main([action, f"store={outputs / 'store'}", *settings])
        shown = capsys.readouterr()
        return stop.value.code, shown.out + shown.err

    return call


def there(outputs):
    return {path.name for path in (outputs / "store").iterdir()}


def test_what_a_run_names(outputs):
    run = outputs / "memdef_digits" / "default"
    assert products_of(run) == {name_of("used"), name_of("given")}
    (run / "result.json").unlink()
    (run / "stages.json").write_text(json.dumps({"stages": [{"name": "stack", "key": KEYS["loose"]}]}))
    assert products_of(run) == {name_of("loose"), name_of("given")}, "a run that was not evaluated names its stages"


def test_list_and_size(outputs, store):
    code, shown = store("list")
    assert code == 0
    assert all(name_of(word) in shown for word in KEYS)
    (line,) = [line for line in shown.splitlines() if name_of("used") in line]
    assert " 1 " in line.replace("│", " "), "one run names it"
    code, shown = store("size")
    assert shown.splitlines()[-1].startswith("in all: ")
    assert "product: 5" in shown
    (used,) = [
        one for one in content(outputs / "store", [outputs / "memdef_digits/default"]) if one.name == name_of("used")
    ]
    assert used.size > 1000


def test_prune_shows_first_and_keeps_what_is_named(outputs, store):
    before = there(outputs)
    with exclusive(ArtifactStore(outputs / "store").lock_path("stack", KEYS["held"]), "the product"):
        code, shown = store("prune")
        assert (code, there(outputs)) == (0, before)
        assert "Nothing was removed: give yes=true" in shown
        assert name_of("loose") in shown
        assert name_of("given") not in shown
        assert store("prune", "yes=true")[0] == 0
    assert before - there(outputs) == {name_of("loose"), "stack-0.damaged-1"}
    assert store("prune", "--yes")[0] == 0
    assert before - there(outputs) == {name_of("loose"), name_of("held"), "stack-0.damaged-1"}
    assert store("prune", "--yes", "cells=true")[0] == 0
    assert "cells" not in there(outputs)
    (outputs / "memdef_digits" / "default" / "config.yaml").write_text("defense: {}\n")
    store("prune", "--yes")
    assert name_of("given") not in there(outputs), "no run names it any more"


def test_what_an_unfinished_run_may_have_made_stays(outputs, store):
    going = outputs / "other" / "run"
    going.mkdir(parents=True)
    (going / "config.yaml").write_text("defense: {}\n")
    age(going / "config.yaml", 3 * RECENT)
    _, shown = store("prune", "yes=true")
    assert "1 have not finished" in shown
    assert name_of("loose") in there(outputs)
    age(going / "config.yaml", RECENT)
    store("prune", "yes=true")
    assert name_of("loose") not in there(outputs), "it is older than the run"


def test_verify_finds_what_changed(outputs, store):
    code, shown = store("verify")
    assert (code, shown) == (0, "5 of 5 are whole.\n")
    path = outputs / "store" / name_of("used") / "weights.safetensors"
    path.write_bytes(b"x" + bytes(999))
    code, shown = store("verify")
    assert code == 1
    assert f"damaged: {name_of('used')}: " in shown
    assert "4 of 5 are whole." in shown
    (outputs / "store" / name_of("loose")).rename(outputs / "store" / "stack-ffffffffffffffff")
    assert "is the manifest of another key" in store("verify")[1]


def test_mistakes_are_one_sentence(outputs, store, tmp_path):
    assert store("list", "stor=x") == (2, "Error: 'stor=x' is no setting: give store=, runs=, cells=, yes=.\n")
    assert store("prune", "yes=perhaps")[0] == 2
    code, shown = store("prune", f"runs={outputs / 'store' / 'cells'}")
    assert code == 2
    assert "everything would go" in shown
    assert store("list", f"store={tmp_path / 'nowhere'}")[0] == 2


def test_words():
    assert [size_words(size) for size in (12, 1234, 56_780_000, 3e12)] == ["12 B", "1.2 kB", "56.8 MB", "3000.0 GB"]
    assert [age_words(age) for age in (3600, 86400, 3 * 86400)] == ["1 h", "24 h", "3 days"]
