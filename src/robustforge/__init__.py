"""Train, attack and honestly compare defenses against adversarial examples."""

import os

# OpenMP's threads spin while they wait. On cores shared with anything else (a second run, a test, a noisy neighbor)
# that was seen to slow small networks about tenfold; what sleeping costs on idle cores was not measured. It is read
# once, when torch loads, so it must be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
