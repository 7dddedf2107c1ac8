"""Attack a model that you have, and learn whether the number can be believed.

Run it from a checkout, or where robustforge is installed: ``python examples/attack_your_model.py``. About a minute.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import robustforge as rf

# %% A network trained elsewhere: plain PyTorch, nothing of this package in it
images = load_digits()
x = torch.tensor(images.images).float()[:, None] / 16  # (N, 1, 8, 8) in [0, 1]
y = torch.tensor(images.target)
x_train, y_train, x_test, y_test = x[:1400], y[:1400], x[1400:1500], y[1400:1500]

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, 2, 1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, 2, 1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(128, 10),
)
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
for _ in range(8):
    for rows in torch.randperm(len(y_train)).split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(x_train[rows]), y_train[rows]).backward()
        optimizer.step()

# %% One attack: any name of conf/attack, any setting of its file; the model stays as it is, in training mode even
result = rf.attack(model, x_test, y_test, "pgd", eps=0.1, steps=20)
print(f"PGD leaves {100 * (~result.success).float().mean():.1f} % of the images standing.")

# The same by object, and one of a fraction of a budget:
result = rf.attacks.PGD(steps=20, restarts=2)(model.eval(), x_test, y_test, rf.Threat("linf", "8/255"))
print(f"At 8/255 it leaves {100 * (~result.success).float().mean():.1f} %.")

# %% A number with a verdict: AutoAttack, your attack, and checks that the attacks worked.
# The budgets of this example are cut down; leave `overrides` out for real ones.
suite = "protocol.suites.standard.attacks"
quick = [
    "attack.steps=20",
    f"{suite}.auto.attacks.apgd_ce.steps=20",
    f"{suite}.auto.attacks.apgd_t.steps=10",
    f"{suite}.auto.attacks.fab_t.steps=5",
    f"{suite}.auto.attacks.square.n_queries=50",
]
report = rf.evaluate(model, (x_test, y_test), eps=0.1, protocol="standard", overrides=quick, folder="evaluation")
print(report)
report.to_html("report.html")
print("robust accuracy:", report.robust_accuracy, "interval:", report.interval)

# %% A model that hides its gradients looks more robust to plain PGD. It is not, and the verdict says so.
masked = rf.evaluate(lambda x: 1000 * model(x), (x_test, y_test), eps=0.1, overrides=quick)
print(masked.verdict)

# %% A defense of your own: a purifier in front of the classifier, a detector beside it
detector = rf.system(logits=model, risk=lambda x: (x - F.avg_pool2d(x, 3, 1, 1)).abs().mean((1, 2, 3)))
held_out = (x_train[:200], y_train[:200])  # thresholds are fitted on clean images that are not attacked
print(rf.evaluate(detector, (x_test, y_test), eps=0.1, protocol="smoke", calibration=held_out))

# %% The same from the command line, with the network in a module mynets.py of yours and its weights in net.pt:
#
#   python train.py defense=pretrained defense.network._target_=mynets.Net defense.weights=net.pt \
#       dataset=npz dataset.path=mine.npz dataset.shape=[1,8,8] dataset.num_classes=10 threat.eps=0.1 protocol=standard
#
# with np.savez("mine.npz", x_train=..., y_train=..., x_test=..., y_test=...). Both give the same records.
