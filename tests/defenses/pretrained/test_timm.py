"""Networks of timm, made by its factory: attacked, refused where nobody trusts it, exported and loaded again."""

import pytest
import timm
import torch

import robustforge as rf


@pytest.mark.usefixtures("quiet_figures")
def test_a_network_of_timm(train_run, tool, tmp_path):
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    torch.save(network.state_dict(), tmp_path / "net.pt")
    run = train_run(
        "defense=pretrained", "defense.network._target_=timm.create_model", "+defense.network.model_name=test_resnet",
        "+defense.network.num_classes=10", "+defense.network.in_chans=1", f"defense.weights={tmp_path / 'net.pt'}",
        "defense.mean=0.3", "defense.std=0.3", "attack.steps=1", "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 1}}",
    )  # fmt: skip
    assert run.result["stages"] == []
    assert {cell["attack"] for cell in run.result["cells"]} == {"clean", "fgsm", "bim", "pgd"}

    asked = "protocol=clean", "progress=false", "+protocol.pictures=false"
    refused = tool("evaluate", f"run={run.folder}", *asked)
    assert (refused.code, refused.err.endswith("if you trust whoever wrote it, add trust=timm.\n")) == (2, True)
    trusted = tool("evaluate", f"run={run.folder}", *asked, "trust=timm")
    assert trusted.code == 0, trusted.err

    made = tool("export", f"run={run.folder}", f"to={tmp_path / 'mine'}", "trust=timm")
    assert made.code == 0, made.err
    assert 'trust=["timm"]' in (tmp_path / "mine" / "README.md").read_text()
    (tmp_path / "net.pt").unlink()
    with pytest.raises(rf.UserError, match="add trust=timm"):
        rf.load_run(tmp_path / "mine")
    defense = rf.load_run(tmp_path / "mine", trust="timm")
    x = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.allclose(defense(x).logits, network((x - 0.3) / 0.3), atol=1e-5)
