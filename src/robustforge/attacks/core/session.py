"""What every attack needs around it: frozen networks, passes counted, a trace kept, honest judging in float32.

The caller's parameters, modes, gradients and random state are as they were when an attack returns, also when it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robustforge.accel import fast_bf16
from robustforge.attacks.core.checks import check_logits
from robustforge.attacks.core.finite import Finite
from robustforge.attacks.core.geometry import inside
from robustforge.attacks.core.inputs import check_images, check_labels, checked
from robustforge.attacks.core.models import as_surface, as_threat
from robustforge.attacks.core.passes import copied, derivative
from robustforge.attacks.core.prepared import Prepared
from robustforge.attacks.core.surface import Objective, Surface, fooled, frozen
from robustforge.attacks.core.targets import choose_targets
from robustforge.attacks.core.trace import TraceKeeper
from robustforge.losses.classification import margin
from robustforge.randomness import global_draws
from robustforge.types import AttackResult, DefenseOutput, Threat


class AttackSession:
    """A surface under attack by one batch: every pass an attack makes goes through here.

    Images are addressed by ``rows``, their positions in the batch, so that attacks may work on survivors only.

    Attributes:
        surface: what is attacked.
        x: (B, C, H, W) clean images.
        y: (B,) true labels.
        threat: the budget results must respect.
        index: (B,) sample numbers, which address random draws.
        tracing: whether gradients enter the trace; attacks turn it off after their first restart.
        traced: how many of the leading rows enter the trace (runs of the same image side by side), or None for all.
        threshold: risk above which the system rejects, or None.
        targets: (B,) classes a targeted attack wants, or None.
        forwards: (B,) forward passes so far.
        backwards: (B,) backward passes so far.
    """

    def __init__(
        self,
        surface: Surface,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        *,
        index: Tensor | None = None,
        precision: str = "auto",
        threshold: float | None = None,
    ) -> None:
        self.surface, self.x, self.y, self.threat, self.threshold = surface, x, y, threat, threshold
        self.index = torch.arange(len(x), device=x.device) if index is None else index
        self.targets: Tensor | None = None
        self.tracing = True
        self.traced: int | None = None
        with torch.inference_mode(False):  # or they could not be counted up where gradients are on again
            self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            self.backwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            self._trace = TraceKeeper(len(x), x.device)
            self._finite = Finite(precision == "bf16" or (precision == "auto" and fast_bf16(x.device)), x.device)
        self._prepared = Prepared(surface)

    def everyone(self) -> Tensor:
        """(B,) all rows."""
        return torch.arange(len(self.x), device=self.x.device)

    def gradient(
        self, x: Tensor, rows: Tensor, objective: Objective, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and backward pass of the attacker's objective.

        Args:
            x: (n, C, H, W) iterates.
            rows: (n,) whose they are.
            objective: what is maximized, (logits, labels) -> (n,). Targeted sessions maximize its
                negative at the targets.
            goal: handed to ``objective`` in place of labels or targets.

        Returns:
            (gradient (n, C, H, W) float32, logits (n, K), value (n,)), detached.
        """
        aim, sign = self.y[rows] if goal is None else goal, 1.0
        if goal is None and self.targets is not None:
            aim, sign = self.targets[rows], -1.0

        def function(leaf: Tensor) -> tuple[list[Tensor], Tensor]:
            logits, value = self.surface.evaluate(leaf, self.y[rows], objective, aim)
            return [sign * value], logits

        (gradient,), (value,), logits = self.differentiate(x, rows, function)
        self.record(rows[: self.traced], gradient[: self.traced], value[: self.traced])
        return gradient, logits.detach(), value

    def differentiate(
        self, x: Tensor, rows: Tensor, function: Callable[[Tensor], tuple[Sequence[Tensor], Tensor]]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """One forward pass and one backward pass a value.

        Args:
            x: (n, C, H, W) iterates.
            rows: (n,) whose they are.
            function: iterates -> (values, each (n,), and the logits (n, K)); called again where bf16 fails.

        Returns:
            (gradients of the values' sums, each (n, C, H, W) float32 with NaN as 0; values; logits). Logits that are
            not finite in float32 raise UserError.
        """
        leaf = x.detach().requires_grad_(True)
        with self._prepared.passing(self._finite.bf16, graph=True):
            with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self._finite.bf16):
                values, logits = function(copied(leaf))
            self._prepared.led_to([*values, logits])
            gradients = [derivative(value, leaf, number + 1 < len(values)) for number, value in enumerate(values)]
        self._count(self.forwards, rows, self.surface.draws)
        self._count(self.backwards, rows, self.surface.draws * len(gradients))
        if not self._finite.accepts(logits, *values, *gradients):
            return self.differentiate(x, rows, function)
        return [self._finite.cleaned(one) for one in gradients], [value.detach() for value in values], logits

    @torch.no_grad()
    def logits(self, x: Tensor, rows: Tensor, *, exact: bool = False) -> Tensor:
        """(n, K) of the first view, in the attacker's precision (or ``exact``: float32), without gradients."""
        bf16 = self._finite.bf16 and not exact
        with self._prepared.passing(bf16), torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = self.surface.logits(copied(x), self.y[rows]).float()
        self._count(self.forwards, rows)
        return logits if self._finite.accepts(logits) else self.logits(x, rows)

    @torch.no_grad()
    def system_output(self, x: Tensor, rows: Tensor) -> DefenseOutput:
        """What the deployed system answers to (n, C, H, W), in the attacker's precision and without gradients."""
        bf16 = self._finite.bf16
        with self._prepared.passing(bf16), torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            output = self.surface.system(copied(x), self.y[rows])
        self._count(self.forwards, rows)
        numbers = [values for values in (output.logits, output.risk) if values is not None]
        return output if self._finite.accepts(*numbers) else self.system_output(x, rows)

    @torch.no_grad()
    def classes(self) -> int:
        """Number of classes, by an uncounted pass of one image."""
        return int(self.surface.logits(copied(self.x[:1]), self.y[:1]).shape[1])

    def suspects(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(n,) bool: the attacker's own pass says that the goal is reached; worth asking the system."""
        predicted = logits.argmax(1)
        return predicted != self.y[rows] if self.targets is None else predicted == self.targets[rows]

    def lead(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(n,) margin by which the goal is reached in ``logits`` (n, K), negative where it is missed."""
        logits = logits.float()
        return margin(logits, self.y[rows]) if self.targets is None else -margin(logits, self.targets[rows])

    def fools(self, x_adv: Tensor, rows: Tensor | None = None, *, count: bool = True) -> Tensor:
        """Whether the goal is reached, judged in float32 on the images as they stand.

        Args:
            x_adv: (n, C, H, W).
            rows: (n,) whose they are; all by default.
            count: as a forward pass.

        Returns:
            (n,) bool: the system is wrong (or answers the target) and accepts.
        """
        rows = self.everyone() if rows is None else rows
        if not len(rows):  # many a network has no answer to no images: x.view(len(x), -1) is an error
            return torch.zeros_like(rows, dtype=torch.bool)
        if count:
            self._count(self.forwards, rows)
        with torch.autocast(x_adv.device.type, enabled=False):
            wrong, output = fooled(self.surface, x_adv, self.y[rows], self.threshold)
        check_logits(output.logits)
        return wrong if self.targets is None else wrong & (output.logits.argmax(1) == self.targets[rows])

    def finish(self, x_adv: Tensor) -> AttackResult:
        """Asserts the budget and judges the images (B, C, H, W) as returned, by the one success rule.

        Raises:
            RuntimeError: the attack left the ball or made NaN; a bug of the attack, never of the caller.
        """
        x_adv = x_adv.detach().float().contiguous()
        if len(x_adv) and not bool(inside(x_adv, self.x, self.threat).all()):
            raise RuntimeError("The attack returned images outside its budget or outside [0, 1].")
        self._finite.report()
        self.targets = None  # whatever the attack aimed at, success is a wrong label that is accepted
        success = self.fools(x_adv, count=False)
        return AttackResult(x_adv, success, self.forwards, self.backwards, self._trace.result(self.backwards))

    @staticmethod
    def _count(counter: Tensor, rows: Tensor, passes: int = 1) -> None:
        counter.index_add_(0, rows, torch.full_like(rows, passes))  # a row that stands twice (restarts) counts twice

    def record(self, rows: Tensor, gradient: Tensor, value: Tensor) -> None:
        """Enters one step of the rows (n,) into the trace: its gradient (n, C, H, W) and objective (n,)."""
        if self.tracing:
            self._trace.record(rows, gradient, value, self.backwards[rows] - 1)


@contextmanager
def attacking(
    surface: Surface,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    index: Tensor | None = None,
    precision: str = "auto",
    threshold: float | None = None,
    target: str | int | None = None,
    seed: int = 0,
) -> Iterator[AttackSession]:
    """The frame of an attack: images checked, networks frozen, targets chosen, and everything put back afterwards.

    Args:
        surface: what is differentiated and what judges; a network or another callable stands for its surface.
        x: clean images in [0, 1], (B, C, H, W).
        y: true labels, (B,).
        threat: ball the result stays in; a bare radius is one in the L-infinity norm.
        index: (B,) sample numbers for the random draws; default 0..B-1.
        precision: of the attacker's passes: ``auto``, ``float32`` or ``bf16``.
        threshold: risk above which the attacked system rejects.
        target: None for an untargeted attack, or see :func:`robustforge.attacks.core.targets.choose_targets`.
        seed: of random targets.

    Raises:
        UserError: images that are not float (B, C, H, W) in [0, 1], labels that are no classes, or answers that are no
            logits; see :mod:`robustforge.attacks.core.inputs`.
    """
    check_images(x)
    y, threat = check_labels(y, len(x)), as_threat(threat)
    surface = checked(as_surface(surface), y)
    session = AttackSession(surface, x.detach(), y, threat, index=index, precision=precision, threshold=threshold)
    # randomized defenses draw from the global generator: the same numbers for the same images, and the caller's kept
    with frozen(surface.modules), global_draws(seed, session.index):
        if target is not None and len(x):
            session.targets = choose_targets(target, session.logits(x, session.everyone()), y, session.index, seed)
        yield session
