"""Attention among many tokens by way of a few landmarks."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import bag_pool, zero_padding
from monai_mil_ext.utils import check_positive

from .class_token_attention import first_token_scores

__all__ = ["NystromAttention", "pseudo_inverse"]

WIDTH = 33  # of the convolution over the values


class NystromAttention(nn.Module):
    r"""Multi-head attention approximated through m landmarks, for bags of different numbers of tokens at once.

    .. math::
        A_1 = \operatorname{softmax}(q \tilde k^\top), \quad A_2 = \operatorname{softmax}(\tilde q \tilde k^\top), \quad
        A_3 = \operatorname{softmax}(\tilde q k^\top), \quad
        y = W_o \left[A_1 A_2^+ A_3 v + w * v\right] + b_o

    with :math:`q` scaled by :math:`d^{-1/2}` and a convolution w along the tokens, one a head. The t tokens of a bag
    are led by zeros until m divides their number; a landmark is the mean of that many tokens in a row.

    No matrix of the size of the sequence is stored: both large softmaxes are fused attention, the leading zeros are
    one key whose score is the logarithm of their number, and the pseudo-inverse is applied to what :math:`A_3` found. A
    bag's result is its own: its landmarks are counted by its own length, the inverse is scaled by its own sums.

    Args:
        size: size E of a token.
        num_heads: number H of heads, which divides E.
        num_landmarks: number m of landmarks.
        dropout: rate on the output.

    Raises:
        ValueError: when a size is not positive or H does not divide E.

    References:
        Xiong et al., "Nystromformer: A Nystrom-Based Algorithm for Approximating Self-Attention", arXiv:2102.03902.

    Example:
        >>> attend = NystromAttention(size=8, num_heads=2, num_landmarks=4)
        >>> attend(torch.rand(2, 10, 8), torch.tensor([10, 7])).shape
        torch.Size([2, 10, 8])
    """

    def __init__(self, size: int, num_heads: int, num_landmarks: int, dropout: float = 0.1) -> None:
        super().__init__()
        check_positive(size=size, num_heads=num_heads, num_landmarks=num_landmarks)
        if size % num_heads:
            raise ValueError(f"`num_heads` must divide the size {size} of a token, got {num_heads}.")
        self.num_heads = num_heads
        self.num_landmarks = num_landmarks
        self.project = nn.Linear(size, 3 * size, bias=False)
        self.kernel = nn.Parameter(torch.empty(num_heads, WIDTH).uniform_(-(WIDTH**-0.5), WIDTH**-0.5))
        self.merge = nn.Linear(size, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, h: Tensor, counts: Tensor) -> Tensor:
        """Tokens (B, T, E) in and out, of which the first ``counts`` (B,) of a bag are its own, at least one."""
        real = torch.arange(h.shape[1], device=h.device) < counts.unsqueeze(1)
        h = zero_padding(h, real)
        share = (counts + self.num_landmarks - 1) // self.num_landmarks
        front = share * self.num_landmarks - counts
        q, k, v = self._heads(self.project(h), 3).unbind(0)
        marks = landmark_means(h, self.num_landmarks, share, front)
        q_mark, k_mark = self._heads(functional.linear(marks, self.project.weight[: 2 * h.shape[2]]), 2).unbind(0)
        bias = torch.zeros_like(real, dtype=q.dtype).masked_fill(~real, float("-inf"))
        bias = torch.cat([bias, front.unsqueeze(1).to(q.dtype).log()], 1)[:, None, None]
        ends = [0, 0, 0, 1]
        found = functional.scaled_dot_product_attention(
            q_mark, functional.pad(k, ends), functional.pad(v, ends), bias.expand(-1, -1, q_mark.shape[2], -1)
        )
        among = _product(q_mark.flatten(0, 1), k_mark.flatten(0, 1).transpose(1, 2)) / math.sqrt(q.shape[3])
        spread = _product(pseudo_inverse(among.softmax(-1)), found.flatten(0, 1)).to(v.dtype)
        out = functional.scaled_dot_product_attention(q, k_mark, spread.view_as(found))
        out = out + functional.conv2d(
            v, self.kernel[:, None, :, None].to(v.dtype), padding=[self.kernel.shape[1] // 2, 0], groups=self.num_heads
        )
        dropped: Tensor = self.drop(self.merge(out.transpose(1, 2).flatten(2)))
        return dropped

    def first_scores(self, h: Tensor) -> Tensor:
        """Scores (B, T, H) of exact attention, before its softmax, that the first of tokens (B, T, E) gives to each."""
        return first_token_scores(h, self.project.weight, None, self.num_heads)

    def _heads(self, z: Tensor, parts: int) -> Tensor:
        """(B, T, parts E) to (parts, B, H, T, d)."""
        return z.unflatten(-1, [parts, self.num_heads, -1]).permute(2, 0, 3, 1, 4)


def landmark_means(h: Tensor, num_landmarks: int, share: Tensor, front: Tensor) -> Tensor:
    """Means (B, m, E) of ``share`` (B,) tokens in a row, of tokens (B, T, E) led by ``front`` (B,) zeros."""
    bags, tokens, size = h.shape
    widest = (tokens + num_landmarks - 1) // num_landmarks
    share, front = share[:, None, None], front[:, None, None]
    step = torch.arange(widest, device=h.device)
    source = torch.arange(num_landmarks, device=h.device).unsqueeze(1) * share + step - front
    taken = (step < share) & (source >= 0)
    source = source.clamp(0, tokens - 1).flatten(1).unsqueeze(-1).expand(-1, -1, size)
    rows = h.gather(1, source).view(bags, num_landmarks, -1, size)
    total = rows.masked_fill(~taken.unsqueeze(-1), 0.0).sum(2, dtype=torch.promote_types(h.dtype, torch.float32))
    return (total / share).to(h.dtype)


def pseudo_inverse(a: Tensor, num_steps: int = 6) -> Tensor:
    r"""Moore-Penrose inverses of matrices (B, m, m), iterated towards by products only.

    .. math::
        Z_0 = \frac{A^\top}{\lVert A \rVert_1 \lVert A \rVert_\infty}, \quad
        Z \leftarrow \tfrac14 Z \left(13 I - A Z \left(15 I - A Z (7 I - A Z)\right)\right)

    Each matrix is scaled by its own norms. Six steps are far from the limit where A is ill-conditioned.

    Example:
        >>> a = torch.tensor([[[0.8, 0.2], [0.3, 0.7]]])
        >>> torch.allclose(pseudo_inverse(a) @ a, torch.eye(2), atol=1e-5)
        True
    """
    sums = a.abs().sum(1).amax(1) * a.abs().sum(2).amax(1)
    z = a.transpose(1, 2) / sums[:, None, None]
    eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    for _ in range(num_steps):
        az = _product(a, z)
        z = _product(z, 13 * eye - _product(az, 15 * eye - _product(az, 7 * eye - az))) / 4
    return z


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Batched product in float32 or float64, under autocast too."""
    return bag_pool(a.transpose(1, 2), b)
