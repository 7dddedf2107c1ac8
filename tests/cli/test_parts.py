"""evaluate.py in parts, as several machines of a job array run it."""

import numpy as np
import pytest

from robustforge.cli.evaluating import Asked
from robustforge.evaluation.share import Share
from robustforge.records.table import read_records
from robustforge.types import UserError

RUN = ("defense=none", "model=lenet", "debug=fast", "attack.steps=1", "protocol.suites.all.attacks={fgsm: {}}")
AGAIN = ("protocol=smoke", "attack=pgd", "attack.steps=2", "protocol.suites.all.attacks={fgsm: {}}", "threat.eps=0.1",
         "+protocol.pictures=false", "progress=false")  # fmt: skip


@pytest.mark.usefixtures("quiet_figures")
def test_parts_on_the_command_line_make_the_result_of_the_whole(tool, command, tmp_path):
    place = tmp_path / "run"
    assert command(*RUN, "report=true", f"paths.output_dir={tmp_path}", f"hydra.run.dir={place}").code == 0

    def evaluated(*more, store=None):
        where = [f"paths.store_dir={store}"] if store else []
        answer = tool("evaluate", f"run={place}", *AGAIN, *where, *more)
        return answer, sorted(place.glob("evaluations/*/records.parquet"))

    early, results = evaluated("merge=true")
    assert (early.code, results) == (2, [])
    assert "are not attacked yet" in early.err
    for part in ("2/2", "1/2"):
        answer, results = evaluated(f"shard={part}")
        assert (answer.code, results) == (0, []), answer.err
        assert "merge=true in place of shard=" in answer.out
    merged, (path,) = evaluated("merge=true")
    assert merged.code == 0, merged.err
    parts = read_records(path)
    again, (same,) = evaluated("overwrite=true")
    assert again.code == 0, again.err
    assert f"To read and to share: {same.parent}/report.html" in again.out, "not where it was written first"
    whole = read_records(same)
    assert parts.cells.keys() == whole.cells.keys()
    for key, part in parts.cells.items():
        for name in ("index", "prediction", "success", "linf", "backwards"):
            assert np.array_equal(part[name], whole.cells[key][name]), (key, name)
    refused, _ = evaluated("shard=3/2")
    assert refused.code == 2
    assert "give a part and the number of parts" in refused.err


@pytest.mark.parametrize(
    "wishes",
    [
        {"share": Share(1, 2), "merge": True},
        {"share": Share(1, 2), "overwrite": True},
        {"merge": True, "overwrite": True},
    ],
)
def test_wishes_that_exclude_each_other(wishes):
    with pytest.raises(UserError, match=r"give one of them\.$"):
        Asked(**wishes)
