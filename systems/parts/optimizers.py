"""Optimizers that torch does not have."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class AdaBound(torch.optim.Optimizer):
    """Adam whose step of each weight is bounded, from both sides ever closer, so that it ends as SGD (Luo et al. 2019).

    In step t the rate of a weight is lr x sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(v) + eps), clipped to
    [final x (1 - 1 / (gamma t + 1)), final x (1 + 1 / (gamma t))] (Algorithm 2, with Adam's correction of the bias and
    the bounds of the authors' code), and is multiplied by the mean gradient m. Where the learning rate is changed on
    the way, the final one changes with it.

    The libraries that have it bring a hundred other optimizers along; this is the one that is used.

    Args:
        parameters: What learns.
        lr: The rate to begin with, as Adam's.
        final_lr: The rate to end with, as SGD's.
        betas: Of the running means of gradients and of their squares.
        gamma: How fast the bounds close.
        eps: Keeps the division finite.
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
        """Take a step; `closure`, where there is one, computes the loss and its gradients first."""
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
