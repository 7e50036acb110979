"""Muon for the matrices, AdamW for everything else; both can live inside a CUDA graph."""

import torch


def orthogonalise(update):
    """Newton-Schulz: singular values go to about one. `update`: [matrices, rows, columns]."""
    x = update.bfloat16()
    if x.shape[-2] > x.shape[-1]:
        return orthogonalise(x.mT).mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Muon:
    """Momentum, then an orthogonal step of the size that AdamW would take.

    Matrices of one shape are stacked, so that a step is a few batched products.
    """

    def __init__(self, matrices, lr, momentum=0.95, decay=0.02):
        groups = {}
        for matrix in matrices:
            groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros_like(torch.stack(g), dtype=torch.float32) for g in self.groups]
        self.lr, self.momentum, self.decay = lr, momentum, decay

    @torch.no_grad()
    def step(self):
        for matrices, buffer in zip(self.groups, self.buffers):
            gradient = torch.stack([m.grad for m in matrices])
            buffer.lerp_(gradient, 1 - self.momentum)
            step = orthogonalise(gradient.lerp(buffer, self.momentum)).float()
            scale = 0.2 * max(buffer.shape[-2:]) ** 0.5
            torch._foreach_mul_(matrices, 1 - self.lr * self.decay)
            torch._foreach_sub_(matrices, list((step * (scale * self.lr)).unbind()))


def split(model):
    """Matrices inside the layers, then the embedding, norms, convolutions and decay parameters."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and "embed" not in name
        tiny = "in_proj_a" in name or "in_proj_b" in name
        (matrices if inner and not tiny else rest).append(parameter)
    return matrices, rest
