"""Nystrom approximation of attention among many tokens by a few landmarks."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.layers import attention_pool
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.utils import check_positive, check_rate

from .class_token_attention import cls_token_scores

__all__ = ["NystromAttention", "pseudo_inverse"]

KERNEL_SIZE = 33  # of the convolution over the values


class NystromAttention(nn.Module):
    r"""Multi-head attention approximated with m landmarks, for a batch of bags of different sizes.

    Nystromformer attention, proposed in arXiv:2102.03902:

    .. math::
        A_1 = \operatorname{softmax}(q \tilde k^\top), \quad A_2 = \operatorname{softmax}(\tilde q \tilde k^\top), \quad
        A_3 = \operatorname{softmax}(\tilde q k^\top), \quad
        y = W_o \left[A_1 A_2^+ A_3 v + w * v\right] + b_o

    with :math:`q` scaled by :math:`d^{-1/2}` and a convolution w along the tokens for each head. Zeros are prepended to
    the tokens of a bag until m divides their number; the landmarks are the means of m groups of consecutive tokens.

    No matrix of the size of the sequence is stored: both large softmaxes are computed by fused attention, the leading
    zeros are one key whose score is the logarithm of their number, and the pseudo-inverse is applied to
    :math:`A_3 v`. The result of a bag does not depend on the others in the batch, since landmarks and the scale
    of the inverse are computed per bag.

    Args:
        size: size E of a token.
        num_heads: number H of heads, which divides E.
        num_landmarks: number m of landmarks.
        dropout: dropout rate of the output.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1), or H does not divide E.

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
        check_rate(dropout=dropout)
        if size % num_heads:
            raise ValueError(f"`num_heads` must divide the size {size} of a token, got {num_heads}.")
        self.num_heads = num_heads
        self.num_landmarks = num_landmarks
        self.project = nn.Linear(size, 3 * size, bias=False)
        bound = KERNEL_SIZE**-0.5
        self.kernel = nn.Parameter(torch.empty(num_heads, KERNEL_SIZE).uniform_(-bound, bound))
        self.merge = nn.Linear(size, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, h: Tensor, counts: Tensor) -> Tensor:
        """Apply attention to tokens (B, T, E), of which the first ``counts`` (B,) are valid, at least one per bag."""
        mask = torch.arange(h.shape[1], device=h.device) < counts.unsqueeze(1)
        h = zero_out_padding(h, mask)
        group_size = (counts + self.num_landmarks - 1) // self.num_landmarks
        num_zeros = group_size * self.num_landmarks - counts
        q, k, v = self._split_heads(self.project(h), 3).unbind(0)
        marks = _landmark_means(h, self.num_landmarks, group_size, num_zeros)
        marks = functional.linear(marks, self.project.weight[: 2 * h.shape[2]])
        q_mark, k_mark = self._split_heads(marks, 2).unbind(0)
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))
        bias = torch.cat([bias, num_zeros.unsqueeze(1).to(q.dtype).log()], 1)[:, None, None]
        ends = [0, 0, 0, 1]
        attended = functional.scaled_dot_product_attention(
            q_mark, functional.pad(k, ends), functional.pad(v, ends), bias.expand(-1, -1, q_mark.shape[2], -1)
        )
        mark_scores = _product(q_mark.flatten(0, 1), k_mark.flatten(0, 1).transpose(1, 2)) / math.sqrt(q.shape[3])
        solved = _product(pseudo_inverse(mark_scores.softmax(-1)), attended.flatten(0, 1)).to(v.dtype)
        out = functional.scaled_dot_product_attention(q, k_mark, solved.view_as(attended))
        out = out + functional.conv2d(
            v, self.kernel[:, None, :, None].to(v.dtype), padding=[self.kernel.shape[1] // 2, 0], groups=self.num_heads
        )
        output: Tensor = self.drop(self.merge(out.transpose(1, 2).flatten(2)))
        return output

    def cls_scores(self, h: Tensor) -> Tensor:
        """Compute the scores (B, T, H) of exact attention, before its softmax, with the first token as query."""
        return cls_token_scores(h, self.project.weight, None, self.num_heads)

    def _split_heads(self, z: Tensor, parts: int) -> Tensor:
        """Reshape (B, T, parts E) to (parts, B, H, T, d)."""
        return z.unflatten(-1, [parts, self.num_heads, -1]).permute(2, 0, 3, 1, 4)


def _landmark_means(h: Tensor, num_landmarks: int, group_size: Tensor, num_zeros: Tensor) -> Tensor:
    """Average groups of ``group_size`` (B,) tokens (B, T, E), preceded by ``num_zeros`` (B,) zeros, to (B, m, E)."""
    bags, tokens, size = h.shape
    max_size = (tokens + num_landmarks - 1) // num_landmarks
    group_size, num_zeros = group_size[:, None, None], num_zeros[:, None, None]
    step = torch.arange(max_size, device=h.device)
    index = torch.arange(num_landmarks, device=h.device).unsqueeze(1) * group_size + step - num_zeros
    mask = (step < group_size) & (index >= 0)
    index = index.clamp(0, tokens - 1).flatten(1).unsqueeze(-1).expand(-1, -1, size)
    groups = h.gather(1, index).view(bags, num_landmarks, max_size, size)  # no -1, which zero bags do not determine
    total = groups.masked_fill(~mask.unsqueeze(-1), 0.0).sum(2, dtype=torch.promote_types(h.dtype, torch.float32))
    return (total / group_size).to(h.dtype)


def pseudo_inverse(a: Tensor, num_steps: int = 6) -> Tensor:
    r"""Approximate the Moore-Penrose inverses of matrices (B, m, m) by an iteration of products only.

    .. math::
        Z_0 = \frac{A^\top}{\lVert A \rVert_1 \lVert A \rVert_\infty}, \quad
        Z \leftarrow \tfrac14 Z \left(13 I - A Z \left(15 I - A Z (7 I - A Z)\right)\right)

    Each matrix is scaled by its own norms. For an ill-conditioned A, six steps are far from the limit.

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
    """Compute a batched matrix product in float32 or float64, also under autocast."""
    return attention_pool(a.transpose(1, 2), b)
