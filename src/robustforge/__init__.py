"""Train, attack and honestly compare defenses against adversarial examples."""

import os

# OpenMP's threads spin while they wait. On cores shared with anything else (a second run, a test, a noisy neighbour)
# that was measured to slow small networks tenfold; sleeping was not measurably slower on idle cores. It is read once,
# when torch loads, so it must be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
