"""Clustering-constrained attention multiple instance learning (CLAM)."""

from typing import Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import GatedAttention, TanhAttention
from monai_mil_ext.networks.nets.attention_pool_net import AttentionPoolNet
from monai_mil_ext.utils import check_positive, check_rate

__all__ = ["CLAM"]


class CLAM(AttentionPoolNet):
    r"""CLAM, proposed in `Data-efficient and weakly supervised computational pathology <https://arxiv.org/abs/2004.09666>`_.

    Given a bag X of instances :math:`x_n`, CLAM classifies their attention-weighted mean; in training, an instance
    classifier of each class also learns to tell the instances of highest attention from those of lowest:

    .. math::
        h_n = \operatorname{ReLU}(W_p x_n + b_p), \quad a_{\cdot j} = \operatorname{softmax}_n s_j(h_n), \quad
        z_j = \sum_n a_{nj} h_n, \quad \text{logits} = W_c z + b_c

    with the scores :math:`s` of :py:class:`GatedAttention` or :py:class:`TanhAttention`. With ``multi_branch``
    (CLAM-MB), each class has its own attention and :math:`\text{logits}_c = w_c^\top z_c + b_c`.

    In training, ``instance_tap`` puts out the logits (B, G, 2k, 2) of G instance classifiers for the k instances of
    highest attention, followed by the k of lowest, for :py:class:`CLAMInstanceLoss`; of a bag of n < k instances, the
    first n of both. The logits of the bag do not depend on these classifiers (``logits_see_all_weights`` is False).

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits; there are G = C instance classifiers, and two for one logit.
        hidden_size: size E of a projected instance.
        attention_size: size of the hidden layer of the attention; 384 in the published "big" form.
        num_instances: number k of instances of highest, and of lowest, attention.
        multi_branch: whether each class has its own attention.
        gated: whether the hidden layer of the attention is gated.
        dropout: dropout rate of the projected instances and of the hidden layer of the attention.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1), or the input has the wrong shape.

    References:
        Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide images",
        arXiv:2004.09666.

    Example:
        >>> net, seen = CLAM(in_features=8, num_classes=3, hidden_size=4, num_instances=2), []
        >>> _ = net.instance_tap.register_forward_hook(lambda module, args, output: seen.append(output.shape))
        >>> net(torch.rand(1, 6, 8)).shape, seen
        (torch.Size([1, 3]), [torch.Size([1, 3, 4, 2])])
    """

    logits_see_all_weights = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 512,
        attention_size: int = 256,
        num_instances: int = 8,
        multi_branch: bool = False,
        gated: bool = True,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=hidden_size)
        check_positive(num_instances=num_instances)
        check_rate(dropout=dropout)
        self.in_features = in_features
        self.num_instances = num_instances
        self.multi_branch = multi_branch
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_size), nn.ReLU(), nn.Dropout(dropout))
        attention = GatedAttention if gated else TanhAttention
        self.attend = attention(hidden_size, attention_size, num_classes if multi_branch else 1, dropout)
        self.classify = nn.Linear(hidden_size, num_classes)
        classifiers = [nn.Linear(hidden_size, 2) for _ in range(max(num_classes, 2))]
        self.classify_instance = nn.ModuleList(classifiers)
        self.instance_tap = nn.Identity()

    def score_instances(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Project and score instances, see :py:class:`AttentionPoolNet`."""
        h = self.embed(x)
        return h, self.attend(h)

    def challenge(self, scores: Tensor, h: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Classify instances of highest and lowest attention in training; the scores stay as they are."""
        if self.training:
            self.instance_tap(self._instance_logits(h, scores, mask))
        return scores

    def classify_pooled(self, pooled: Tensor) -> Tuple[Tensor, Tensor]:
        """Classify pooled instances, see :py:class:`AttentionPoolNet`."""
        embedding, pooled = pooled.flatten(1), pooled.to(self.classify.weight.dtype)
        if self.multi_branch:
            logits = (pooled * self.classify.weight).sum(2) + self.classify.bias
        else:
            logits = self.classify(pooled.squeeze(1))
        return logits, embedding

    def _instance_logits(self, h: Tensor, scores: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Compute the logits (B, G, 2k, 2) of the instances of highest and lowest attention of each class."""
        ranked = [self._ranked(sign * scores.detach(), mask) for sign in (1.0, -1.0)]
        index = torch.cat(ranked, 1).transpose(1, 2)  # (B, S, 2k)
        rows, slots = index.shape[1:]
        # at once, since each gather has a gradient of the size of the bag; of a bag of less than k, rows of any kind
        h = h if h.shape[1] else functional.pad(h, [0, 0, 0, 1])
        flat = index.clamp(max=h.shape[1] - 1).flatten(1).unsqueeze(-1)
        chosen = h.gather(1, flat.expand(-1, -1, h.shape[2])).unflatten(1, [rows, slots])
        logits: List[Tensor] = []
        for c, classify in enumerate(self.classify_instance):
            logits.append(classify(chosen[:, c if rows > 1 else 0]))
        return torch.stack(logits, 1)

    def _ranked(self, scores: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Return the indices (B, k, S) of the k highest scores; those beyond the bag point to padding."""
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        padded = functional.pad(scores, [0, 0, 0, self.num_instances], value=float("-inf"))
        return padded.topk(self.num_instances, 1)[1]

    def reference_names(self) -> Dict[str, Union[str, Tuple[str, slice]]]:
        """Map names of weights of the published code to those of this network.

        With many branches, it has a linear layer for each class, a row of ours.
        """
        size, gated = len(self.classify_instance), isinstance(self.attend, GatedAttention)
        has_dropout = isinstance(self.attend.dropout, nn.Dropout)
        gates = {"attention_a.0": "value", "attention_b.0": "gate", "attention_c": "score"}
        parts = gates if gated else {"module.0": "value", f"module.{2 + has_dropout}": "score"}
        names: Dict[str, Union[str, Tuple[str, slice]]] = {}
        for p in ("weight", "bias"):
            names[f"attention_net.0.{p}"] = f"embed.0.{p}"
            names |= {f"attention_net.3.{theirs}.{p}": f"attend.{ours}.{p}" for theirs, ours in parts.items()}
            names |= {f"instance_classifiers.{c}.{p}": f"classify_instance.{c}.{p}" for c in range(size)}
            if self.multi_branch:
                rows = range(self.classify.out_features)
                names |= {f"classifiers.{c}.{p}": (f"classify.{p}", slice(c, c + 1)) for c in rows}
            else:
                names[f"classifiers.{p}"] = f"classify.{p}"
        return names
