"""What dashboards are sent, read back from what they wrote. Nothing here reaches a network: W&B is offline."""

import csv
import json

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from offline_wandb import read_offline
from omegaconf import OmegaConf
from pages import IMAGES, write_run, write_sweep

from robustforge.cli import reproduce, wandb_board
from robustforge.cli.loggers import RunLoggers, Told
from robustforge.cli.sweep import SweepSummary
from robustforge.config.isolated import GROUP
from robustforge.config.logger_settings import check_agent
from robustforge.reporting.boards import CELLS, cell_rows, chart_rows, charts, numbers
from robustforge.reporting.html.files import read_run
from robustforge.reporting.seeds import fold
from robustforge.training import distributed
from robustforge.training.runner import StageReport
from robustforge.training.store import ArtifactStore
from robustforge.types import UserError

OFFLINE = {
    "kind": "wandb", "project": "p", "entity": None, "group": None, "offline": True, "images": 3,
    "artifacts": ["weights", "adversarial_set", "result"],
}  # fmt: skip
KEY = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_MODE", GROUP):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fresh_wandb():
    """fresh_wandb(): W&B reads its environment variables anew, and again after the test."""
    import wandb

    yield wandb.teardown
    wandb.teardown()


def publish(settings, folder, store=None, reports=(), **told):
    loggers = RunLoggers(settings, folder, Told("demo/run", **told))
    loggers.publish(read_run(folder).result, [])
    if store is not None:
        loggers.keep(store, reports)
    loggers.finish(0)


def stored(tmp_path):
    """A store with weights and an adversarial set, and the reports on them."""
    store, reports = ArtifactStore(tmp_path / "store"), []
    for name, file in (("stack", "weights.safetensors"), ("crafted", "images.npy")):
        (store.workspace(name, KEY) / file).write_text(name)
        store.commit(name, KEY, {}, (file,))
        reports.append(StageReport(name, KEY, name == "stack", 1.0))
    return store, reports


def test_a_run_in_wandb(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "report.html").write_text("<p>page</p>")
    publish(OFFLINE, folder, *stored(tmp_path), tags=["a"], config={"seed": 3}, group="demo")
    (found,) = read_offline(folder)
    assert (found.run.display_name, found.run.run_group, found.run.job_type) == ("demo/run", "demo", "train")
    assert (found.config["seed"], found.exit_code) == (3, 0)
    result = read_run(folder).result

    columns, rows = found.table("result")
    assert columns == list(CELLS)
    told = [dict(zip(columns, row, strict=True)) for row in rows]
    (worst,) = [
        row for row in told if row["system"] == "memdef" and row["attack"] == "worst_case" and row["eps"] < 0.05
    ]
    assert worst["low"] < worst["accuracy"] < worst["high"]
    assert (worst["verdict"], worst["false_positive_rate"]) == ("unreliable", 0.05)
    assert "no iterated attack" in worst["violated"].replace("_", " ")
    (same,) = [one for one in result["worst_case"] if one["system"] == "memdef" and one["eps"] < 0.05]
    assert worst["backwards"] == same["backwards"] > 0
    assert "seconds" in columns
    assert len(rows) == len(result["cells"]) + len(result["worst_case"])
    assert found.summary["objective"] == result["objective"]
    assert numbers(result).items() <= found.summary.items()

    columns, rows = found.table("images")
    assert columns[:5] == ["image", "clean", "attacked", "change", "rebuilt"]
    images = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [(one["image"], one["label"], one["answer"], one["accepted"], one["outcome"]) for one in images] == [
        (7, 1, 1, True, "held"), (8, 2, 0, True, "fooled"), (9, 3, 3, True, "held"),
    ]  # fmt: skip
    assert images[1]["risk"] == pytest.approx(0.2)
    pictures = [
        name for name in found.artifacts[f"run-{found.run.run_id}-images", "run_table"] if name.endswith(".png")
    ]
    assert len(pictures) == 9, "three of each image; what is rebuilt is the clean image here"

    wanted = charts(result, read_run(folder).records)
    assert set(wanted) == {"security_curve_linf", "risk_coverage", "roc"}
    for name, chart in wanted.items():
        assert {line: list(zip(*points, strict=True)) for line, points in chart.lines.items()} == {
            line: [tuple(map(pytest.approx, point)) for point in points] for line, points in found.chart(name).items()
        }
    assert max(x for points in found.chart("risk_coverage").values() for x, _ in points) == 100

    assert found.artifacts["stack-0123456789abcdef", "weights"] == ["manifest.json", "weights.safetensors"]
    assert found.artifacts["crafted-0123456789abcdef", "adversarial_set"] == ["images.npy", "manifest.json"]
    kept = found.artifacts[f"result-{found.run.run_id}", "result"]
    assert {"records.parquet", "report.html", "result.json"} <= set(kept)


def test_the_same_as_csv_and_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = write_run(tmp_path / "run")
    publish({"kind": "tensorboard", "images": 3}, folder)
    files = read_run(folder)
    (place,) = folder.glob("tensorboard/result/version_*")
    board = EventAccumulator(str(place))
    board.Reload()
    scalars = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert scalars["objective"] == [(0, pytest.approx(files.result["objective"]))]
    xs, ys = next(iter(charts(files.result, files.records)["security_curve_linf"].lines.values()))
    points = [(round(1000 * x), pytest.approx(y)) for x, y in zip(xs, ys, strict=True)]
    assert points in [found for tag, found in scalars.items() if tag.startswith("security_curve_linf/")]
    (table,) = board.Tensors("result/text_summary")
    assert b"| system | attack |" in table.tensor_proto.string_val[0]
    assert [tag for tag in board.Tags()["images"] if tag.startswith("images/")] == [
        "images/7_label_1_answer_1_held", "images/8_label_2_answer_0_fooled", "images/9_label_3_answer_3_held",
    ]  # fmt: skip

    rows = list(csv.DictReader((folder / "cells.csv").open()))
    assert [row["accuracy"] for row in rows] == [str(row[CELLS.index("accuracy")]) for row in cell_rows(files.result)]
    rows = list(csv.reader((folder / "charts.csv").open()))
    assert len(rows) == 1 + len(chart_rows(charts(files.result, files.records)))


def test_a_sweep_ends_with_a_run_of_its_own(tmp_path, capsys):
    folder = write_sweep(tmp_path / "sizes")
    cfg = {"hydra": {"sweep": {"dir": str(folder)}}, "report": False, "logger": OFFLINE, "tags": ["a"]}
    SweepSummary().on_multirun_end(OmegaConf.create(cfg))
    (found,) = read_offline(folder)
    assert (found.run.job_type, found.run.run_group, found.run.display_name) == ("sweep", "sizes", "sizes/summary")
    columns, rows = found.table("sweep")
    assert columns[:3] == ["defense.memory_size", "runs", "finished"]
    worst = {
        size: [read_run(folder / f"{size}-{seed}").result["objective"] for seed in (0, 1)] for size in (20, 50, 100)
    }
    for row in rows:
        one, folded = dict(zip(columns, row, strict=True)), fold(worst[int(row[0])])
        ends = (one["objective"], one["objective, low"], one["objective, high"])
        assert ends == pytest.approx((folded.mean, folded.low, folded.high))
    assert [row[0] for row in rows] == ["20", "50", "100"]
    line = found.chart("defense.memory_size")["worst case"]
    assert line == [(float(size), pytest.approx(fold(worst[size]).mean)) for size in (20, 50, 100)]
    assert len(found.table("summary")[1]) == 6
    assert found.summary["objective"] == max(value for values in worst.values() for value in values)
    assert (folder / "charts.csv").read_text().startswith("chart,line,x,y\ndefense.memory_size,clean,20.0,")


def test_a_table_of_a_paper_is_beside_its_runs(tmp_path, monkeypatch, capsys):
    asked = ["logger=wandb", "logger.offline=true", "logger.project=q"]
    assert reproduce.reproduce("memdef/table5", "cpu", asked, tmp_path, only=[]) == 0
    (found,) = read_offline(tmp_path)
    assert (found.run.job_type, found.run.run_group) == ("reproduce", "memdef/table5/cpu")
    assert found.run.project == "q"
    columns, rows = found.table("table")
    cells = json.loads((tmp_path / "memdef" / "table5" / "cpu" / "table.json").read_text())["cells"]
    assert [row[columns.index("paper")] for row in rows] == [cell["paper"] for cell in cells]
    started = []
    monkeypatch.setattr(reproduce, "run_together", lambda _, environments: started.append(environments[0][GROUP]) or 0)
    assert reproduce._train([], tmp_path / "memdef/table5/cpu/full") == 0
    assert started == ["memdef/table5/cpu"]


FIT = (
    "defense=none", "model=lenet", "~debug", "protocol.n_test=8", "defense.training.epochs=2", "attack.steps=1",
    "protocol.suites.all.attacks={fgsm: {}}",
)  # fmt: skip
AGAIN = ("protocol=smoke", "attack=pgd", "attack.steps=1", "protocol.suites.all.attacks={fgsm: {}}", "threat.eps=0.05",
         "protocol.n_test=8", "progress=false", "report=false")  # fmt: skip


@pytest.mark.usefixtures("quiet_figures")
def test_stages_from_the_store_and_evaluations(train_run, tool):
    first = train_run(*FIT)
    second = train_run(*FIT, "logger=wandb", "logger.offline=true", name="second")
    (trained,) = read_offline(second.folder)
    made, reused = (list(csv.DictReader((run.folder / "metrics/undefended/version_0/metrics.csv").open()))
                    for run in (first, second))  # fmt: skip
    assert reused == made, "a stage from the store shows how it was trained"
    assert trained.column("undefended/train/loss") == [
        float(r["undefended/train/loss"]) for r in made if r["undefended/train/loss"]
    ]
    assert any(row.get("undefended/learning_rate") for row in made)
    columns, ((*row,),) = trained.table("stages")
    assert dict(zip(columns, row, strict=True))["reused"] is True
    (product,) = second.folder.parent.glob("store/undefended-*")
    assert (product.name, "weights") in trained.artifacts
    train_run(*FIT, name="second")
    assert len(list(second.folder.glob("metrics/undefended/version_*"))) == 1

    where = (f"run={second.folder}", *AGAIN, f"paths.store_dir={second.folder.parent / 'store'}")
    assert tool("evaluate", *where).code == 0
    (silent,) = second.folder.glob("evaluations/*")
    answer = tool("evaluate", *where, "logger=wandb", "logger.offline=true")
    assert answer.code == 0, answer.err
    assert list(second.folder.glob("evaluations/*")) == [silent], "the folder does not depend on the logger"
    (found,) = read_offline(silent)
    assert found.run.job_type == "evaluate"
    assert found.config["trained_run"]["id"] == trained.run.run_id
    assert found.config["trained_run"]["name"] == trained.run.display_name == "none_digits/second"
    assert found.run.display_name == f"none_digits/second/{silent.name}"
    assert (found.run.run_group, found.exit_code) == ("none_digits", 0)
    assert found.table("result")[1]
    assert not [kind for _, kind in found.artifacts if kind == "weights"], "they belong to the training run"


def test_wandbs_agent_names_the_run(tmp_path, monkeypatch, fresh_wandb):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agents01")
    monkeypatch.setenv("WANDB_PROJECT", "of-the-agent")
    fresh_wandb()  # the agent starts a process for each run
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "wandb_id.txt").write_text("deadbeef")
    RunLoggers(OFFLINE, folder, Told("demo/run")).finish(0)
    assert wandb_board.known_identity(folder) == "agents01", "the id is that of the run that there is"
    (found,) = read_offline(folder)
    assert (found.run.run_id, found.run.sweep_id, found.run.project) == ("agents01", "sweep123", "of-the-agent")


def test_the_agent_and_a_sweep_of_ours_exclude_each_other():
    check_agent(["seed=1"], {"WANDB_SWEEP_ID": "x"})
    check_agent(["-m", "seed=1,2"], {})
    with pytest.raises(UserError, match="leave out -m"):
        check_agent(["-m", "seed=1,2"], {"WANDB_SWEEP_ID": "x"})


def test_the_agents_sweep_consists_of_overrides(compose):
    from robustforge.config.locate import config_folder

    sweep = yaml.safe_load((config_folder() / "wandb_sweep.yaml").read_text())
    assert sweep["metric"] == {"name": "objective", "goal": "maximize"}
    fixed = [item for item in sweep["command"] if not item.startswith("$")]
    drawn = [f"{key}={spec['values'][0]}" for key, spec in sweep["parameters"].items()]
    OverridesParser.create().parse_overrides([*fixed, *drawn])
    cfg = compose(*fixed, *drawn)
    assert (cfg.logger.kind, cfg.defense.memory_size) == ("wandb", 20)


def test_other_ranks_send_nothing(tmp_path, monkeypatch):
    import wandb

    folder = write_run(tmp_path / "run")
    for name in ("init", "Image", "Table", "Artifact"):
        monkeypatch.setattr(wandb, name, lambda *_, **__: pytest.fail("W&B on another rank"))
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    publish(OFFLINE, folder, *stored(tmp_path))
    assert not (folder / "cells.csv").exists()
    assert IMAGES > 3
