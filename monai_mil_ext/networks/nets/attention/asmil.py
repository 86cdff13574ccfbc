"""Attention-stabilized multiple instance learning (ASMIL)."""

from typing import Callable, Dict, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.blocks import PreNormQueryAttention, QueryAttention
from monai_mil_ext.networks.nets.attention_pool_net import AttentionPoolNet
from monai_mil_ext.utils import check_choice, check_count, check_positive, check_rate

__all__ = ["ASMIL"]

PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}


class ASMIL(AttentionPoolNet):
    r"""ASMIL, proposed in `ASMIL: Attention-Stabilized Multiple Instance Learning <https://arxiv.org/abs/2603.06658>`_.

    Given a bag X of instances :math:`x_n`, ASMIL attends to it with T learned tokens, and classifies a summary of the
    tokens, of which a random part is dropped in training:

    .. math::
        h_n = \operatorname{ReLU}(W_p x_n), \quad f_i = \operatorname{read}(t_i, h), \quad
        \text{logits} = W_c \operatorname{read}(c, \{f_i : i \text{ kept}\}) + b_c

    with read of :py:class:`QueryAttention` or :py:class:`PreNormQueryAttention`; time and memory grow with
    N (E + H T). The anchor network that stabilizes the attention is not part of this class:
    ``AttentionAnchorHandler`` adds it to a trainer. Attention is the mean over heads and tokens; scores are those
    of each head and token, head-major.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a projected instance; ``None`` means 128 for 384 features, otherwise half of
            ``in_features``.
        num_tokens: number T of tokens.
        num_heads: number H of heads, which divides E.
        block: ``"cross"`` for attention alone, with separate weights for each token, or ``"prenorm"`` for one
            transformer layer that all tokens share.
        token_drop: rate at which tokens are dropped in training, at random for each bag; at least one is kept.
        n_drop: exact number of dropped tokens, instead of a rate.
        dropout: dropout rate within the blocks.

    Raises:
        ValueError: when a size is not positive, a rate is not in [0, 1), ``n_drop`` leaves no token, the number of
            heads does not divide ``hidden_size``, or the input has the wrong shape.

    References:
        Ye, Mohajer Hamidi, Chi, Li, Pilanci, Ogawa, Haseyama, Plataniotis, "ASMIL: Attention-Stabilized Multiple
        Instance Learning for Whole-Slide Imaging", arXiv:2603.06658.

    Example:
        >>> net = ASMIL(in_features=16, num_classes=2).eval()
        >>> out = net.forward_bag(torch.rand(2, 5, 16))
        >>> out.logits.shape, out.attention.shape, out.scores.shape
        (torch.Size([2, 2]), torch.Size([2, 5, 1]), torch.Size([2, 5, 64]))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: Optional[int] = None,
        num_tokens: int = 8,
        num_heads: int = 8,
        block: str = "cross",
        token_drop: float = 0.5,
        n_drop: Optional[int] = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        published_size = 128 if in_features == 384 else in_features // 2
        size = published_size if hidden_size is None else hidden_size
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=size)
        check_positive(num_tokens=num_tokens, num_heads=num_heads)
        check_choice("block", block, ("cross", "prenorm"))
        if size % num_heads:
            raise ValueError(f"`hidden_size` must be a multiple of the {num_heads} heads, got {size}.")
        check_rate(token_drop=token_drop, dropout=dropout)
        check_count(n_drop=0 if n_drop is None else n_drop)
        if n_drop is not None and n_drop >= num_tokens:
            raise ValueError(f"`n_drop` must leave at least one of {num_tokens} tokens, got {n_drop!r}.")
        self.in_features = in_features
        self.token_drop = token_drop
        self.n_drop = n_drop
        self.tokens = nn.Parameter(1e-6 * torch.randn(num_tokens, size))
        self.cls = nn.Parameter(torch.zeros(1, size))
        self.embed = nn.Linear(in_features, size, bias=False)
        cross = block == "cross"
        self.attend, self.summarize = (
            QueryAttention(size, num_heads, queries, dropout)
            if cross
            else PreNormQueryAttention(size, num_heads, dropout)
            for queries in (num_tokens, 1)
        )
        self.classify = nn.Linear(size, num_classes)

    reference_ignored = ("dimreduction.bn.*", "classifier.*")  # in the checkpoint, but never trained or used

    def reference_names(self) -> Dict[str, Union[str, Tuple[str, Optional[int]]]]:
        """Map the tensor names of a published checkpoint to ours, with the index of the token for separate weights.

        See :py:func:`load_reference_state_dict`.

        Raises:
            ValueError: when ``block`` is ``"prenorm"``, for which no weights are published.
        """
        if not isinstance(self.attend, QueryAttention):
            raise ValueError('`block` must be "cross" for published weights, got "prenorm".')
        names: Dict[str, Union[str, Tuple[str, Optional[int]]]] = {"q": ("tokens", None), "cls": ("cls", None)}
        groups = [(f"sub_attention.{i}", "attend", i) for i in range(len(self.tokens))]
        for published, ours, token in [*groups, ("bag_attention", "summarize", 0)]:
            for kind in ("weight", "bias"):
                names[f"{published}.layer_norm.{kind}"] = f"{ours}.norm_{kind}", token
                for published_layer, layer in PROJECTIONS.items():
                    names[f"{published}.{published_layer}.{kind}"] = f"{ours}.attend.{layer}_{kind}", token
        shared = {"dimreduction.fc1.weight": "embed.weight"}
        shared |= {f"Slide_classifier.fc.{kind}": f"classify.{kind}" for kind in ("weight", "bias")}
        return {**names, **shared}

    def score_instances(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Project instances to keys and score them for each head and token, see :py:class:`AttentionPoolNet`."""
        keys = self._keys(x)
        return keys, self.attend.score(self.tokens, keys)

    def instance_scorer(self) -> Callable[[Tensor], Tuple[Tensor, Tensor]]:
        """Return :py:meth:`score_instances` with the tokens absorbed once, whose weights are large."""
        weight, offset = self.attend.absorb(self.tokens)

        def score(x: Tensor) -> Tuple[Tensor, Tensor]:
            keys = self._keys(x)
            return keys, nn.functional.linear(keys, weight, offset)

        return score

    def _keys(self, x: Tensor) -> Tensor:
        """Project instances (B, N, F) to keys (B, N, E)."""
        keys: Tensor = self.attend.keys(torch.relu(self.embed(x)))
        return keys

    def pool(self, attention: Tensor, h: Tensor) -> Tensor:
        """Pool keys for each head and token, see :py:class:`AttentionPoolNet`."""
        pooled: Tensor = self.attend.attend.pool(attention, h)
        return pooled

    def summarize_attention(self, attention: Tensor) -> Tensor:
        """Return the mean over heads and tokens."""
        return attention.mean(2, keepdim=True)

    def classify_pooled(self, pooled: Tensor) -> Tuple[Tensor, Tensor]:
        """Summarize the tokens and classify, see :py:class:`AttentionPoolNet`."""
        tokens = self.attend.read_pooled(self.tokens, pooled)
        embedding = self.summarize(self.cls, tokens, self._token_mask(tokens)).squeeze(1)
        return self.classify(embedding), embedding

    def _token_mask(self, tokens: Tensor) -> Optional[Tensor]:
        """Draw the mask (B, T) of the tokens to keep in this training step; ``None`` if all are kept."""
        if not self.training or (self.token_drop == 0 if self.n_drop is None else self.n_drop == 0):
            return None
        draw = torch.rand(tokens.shape[:2], device=tokens.device)
        n_drop = self.n_drop
        if n_drop is not None:
            return draw.argsort(1).argsort(1) >= n_drop
        return (draw >= self.token_drop) | (draw == draw.amax(1, keepdim=True))
