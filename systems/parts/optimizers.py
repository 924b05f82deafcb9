"""An optimizer that torch does not have, AdaBound, and a schedule of learning rates."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class AdaBound(torch.optim.Optimizer):
    """AdaBound (Luo et al. 2019): Adam with bounds on each weight's learning rate.

    The bounds narrow during training, so AdaBound begins as Adam and ends as SGD. m and v are the running means of a
    weight's gradients and of their squares. In step t, the learning rate of the weight is
    lr x sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(v) + eps), clipped to
    [final x (1 - 1 / (gamma t + 1)), final x (1 + 1 / (gamma t))]. The weight decreases by this rate times m. This is
    Algorithm 2 with Adam's bias correction and the bounds of the authors' code. If the learning rate is changed during
    training, the final rate changes by the same factor.

    Libraries with AdaBound contain a hundred other optimizers, and this project needs only this one.

    Args:
        parameters: The parameters to train.
        lr: The initial learning rate, as in Adam.
        final_lr: The final learning rate, as in SGD.
        betas: Decay rates of the running means of gradients and of their squares.
        gamma: The speed at which the bounds narrow.
        eps: Added to the denominator to keep the division finite.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        final_lr: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        gamma: float = 1e-3,
        eps: float = 1e-8,
    ):
        super().__init__(
            parameters,
            {"lr": lr, "initial_lr": lr, "final_lr": final_lr, "betas": betas, "gamma": gamma, "eps": eps},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take a training step. If `closure` is given, call it first to compute the gradients, and return its loss."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (beta1, beta2), gamma = group["betas"], group["gamma"]
            final = group["final_lr"] * group["lr"] / group["initial_lr"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
                state["step"] += 1
                t = state["step"]
                mean = state["mean"].lerp_(weight.grad, 1 - beta1)
                square = state["square"].mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
                size = group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t)
                low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
                weight.sub_((size / (square.sqrt() + group["eps"])).clamp(low, high) * mean)
        return loss


def warmup_cosine(epochs: float, warmup: float, decay: float, lowest: float = 0.0) -> float:
    """Return the learning rate at a point of the training, as a share of the highest rate.

    The rate rises linearly during the warm-up and then falls along half a cosine. After that, it stays at the lowest
    rate. This is the schedule of the DCASE 2025 baseline (CPJKU/dcase2025_task6_baseline, `retrieval_module.py`). The
    result depends only on the arguments, so a resumed training has the same rates.

    Args:
        epochs: The number of epochs since the beginning of the training, with a fraction.
        warmup: The number of epochs of the warm-up.
        decay: The number of epochs of the cosine.
        lowest: The share at the beginning and at the end.

    >>> [round(warmup_cosine(epochs, 1, 4, 0.1), 3) for epochs in (0, 0.5, 1, 3, 5, 9)]
    [0.1, 0.55, 1.0, 0.55, 0.1, 0.1]
    """
    if epochs < warmup:
        height = epochs / warmup
    elif epochs < warmup + decay:
        height = (1 + math.cos(math.pi * (epochs - warmup) / decay)) / 2
    else:
        height = 0.0
    return lowest + (1 - lowest) * height
