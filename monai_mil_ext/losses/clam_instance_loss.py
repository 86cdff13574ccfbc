"""Instance loss of CLAM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from monai_mil_ext.utils import check_choice, check_values, without_autocast

from .smooth_svm import SmoothSVMLoss

__all__ = ["CLAMInstanceLoss"]

LOSSES = ("svm", "cross_entropy")


class CLAMInstanceLoss(nn.Module):
    r"""Loss of CLAM's instance classifiers on the instances of highest and of lowest attention.

    In a bag of class y, the k instances of highest attention are positive for classifier y and the k of lowest are
    negative; with ``subtyping``, the k of highest attention are negative for the classifiers of all other classes:

    .. math::
        L = \ell_y \;\text{ or }\; \frac1C \sum_c \ell_c, \quad
        \ell_y = \frac{1}{2k} \sum_{i \in \text{top}, \text{low}} \ell(g_y(h_i), [i \in \text{top}]), \quad
        \ell_{c \ne y} = \frac1k \sum_{i \in \text{top}} \ell(g_c(h_i), 0)

    averaged over the bags with instances. A bag of n < k instances has k = n: an instance can then be positive and
    negative, as in the published code from k = n on; ``disjoint`` takes :math:`k = \lfloor n / 2 \rfloor` there.

    Args:
        loss: ``"svm"`` for :py:class:`SmoothSVMLoss`, or ``"cross_entropy"``.
        subtyping: whether classes exclude one another, such as subtypes of a tumor; not for tumor against normal.
        disjoint: whether no instance may be positive and negative.

    Raises:
        ValueError: when ``loss`` is unknown, or an input has the wrong shape or range.

    References:
        Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide images",
        arXiv:2004.09666.

    Example:
        >>> logits = torch.zeros(1, 2, 6, 2)  # one bag, two classes, three instances of each kind
        >>> round(CLAMInstanceLoss("cross_entropy")(logits, torch.tensor([1])).item(), 4)
        0.6931
    """

    def __init__(self, loss: str = "svm", subtyping: bool = False, disjoint: bool = False) -> None:
        super().__init__()
        check_choice("loss", loss, LOSSES)
        self.loss = loss
        self.subtyping = subtyping
        self.disjoint = disjoint
        self._svm = SmoothSVMLoss(reduction="none")

    def forward(self, logits: Tensor, label: Tensor, count: Tensor | None = None) -> Tensor:
        """Compute the loss of instance logits (B, C, 2k, 2) for classes (B,); ``count`` (B,) instances are in a bag."""
        classes, slots = self._check(logits, label)
        with without_autocast(logits):
            z = logits.to(torch.promote_types(logits.dtype, torch.float32))
            k = slots // 2
            n = label.new_full(label.shape, 2 * k, dtype=torch.long) if count is None else count.to(z.device).long()
            used = torch.minimum(n, n.new_tensor(2 * k)) // 2 if self.disjoint else n.clamp(max=k)
            valid = torch.arange(k, device=z.device) < used.unsqueeze(1)
            is_class = torch.arange(classes, device=z.device) == label.long().reshape(-1, 1)
            top, low = z[:, :, :k], z[:, :, k:]
            inside = (self._mean(top, 1, valid) + self._mean(low, 0, valid)) / 2
            terms = torch.where(is_class, inside, self._mean(top, 0, valid) if self.subtyping else 0.0)
            per_bag = terms.sum(1) / (classes if self.subtyping else 1)
            return per_bag.sum() / (used > 0).sum().clamp(min=1)

    def _mean(self, z: Tensor, target: int, valid: Tensor) -> Tensor:
        """Compute the mean loss (B, C) of the valid ones among k instances, 0 without any."""
        rows = z.flatten(0, 2)
        y = torch.full_like(rows[:, 0], target, dtype=torch.long)
        values = self._svm(rows, y) if self.loss == "svm" else cross_entropy(rows, y, reduction="none")
        values = values.view(z.shape[:3]).masked_fill(~valid.unsqueeze(1), 0.0)
        return values.sum(2) / valid.sum(1, keepdim=True).clamp(min=1)

    def _check(self, logits: Tensor, label: Tensor) -> tuple[int, int]:
        """Return the numbers of classes and of slots."""
        if logits.ndim != 4 or logits.shape[3] != 2 or logits.shape[2] % 2 or not logits.is_floating_point():
            got = f"{logits.dtype} {tuple(logits.shape)}"
            raise ValueError(f"`logits` must be floating point of shape (B, C, 2k, 2), got {got}.")
        if label.shape != logits.shape[:1]:
            raise ValueError(f"`label` must have shape (B,) = ({len(logits)},), got {tuple(label.shape)}.")
        wrong = (label < 0) | (label >= logits.shape[1]) | (label.float() != label.float().floor())
        rule = f"`label` must be classes from 0 to {logits.shape[1] - 1}"
        check_values(~wrong, lambda: f"{rule}, got {label[wrong][0].item()}.")
        return logits.shape[1], logits.shape[2]
