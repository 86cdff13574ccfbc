"""Multiple-instance learning with learned tokens whose attention an anchor steadies."""

from typing import Dict, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.blocks import PreNormTokens, TokenAttention
from monai_mil_ext.networks.layers import masked_softmax, zero_padding
from monai_mil_ext.utils import check_choice, check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["ASMIL"]

PROJECTIONS = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}


class ASMIL(BagNet):
    r"""Classifies a bag by what learned tokens read from it, a random part of them in training.

    .. math::
        h_n = \operatorname{ReLU}(W_p x_n), \quad f_i = \operatorname{read}(t_i, h), \quad
        \text{logits} = W_c \operatorname{read}(c, \{f_i : i \text{ kept}\}) + b_c

    with read of :py:class:`TokenAttention` or :py:class:`PreNormTokens`; time and memory grow with N (E + H T). The
    anchor that gives the method its name is no part of the network: ``AttentionAnchorHandler`` adds it to a trainer.
    Attention is the mean over heads and tokens; the scores are those of each, the head slower.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a projected instance; ``None`` is 128 for 384 features and else half of them.
        num_tokens: number T of tokens.
        num_heads: number H of heads, which divides E.
        block: ``"cross"``, attention only and weights of its own for each token, or ``"prenorm"``, one encoder layer
            that all tokens share.
        token_drop: rate at which tokens are dropped in training, at random for each bag; at least one is kept.
        n_drop: number of tokens dropped instead, exactly.
        dropout: rate within the blocks.

    Raises:
        ValueError: when a size is not positive, a rate not in [0, 1), ``n_drop`` leaves no token, the heads do not
            divide ``hidden_size``, or the input has the wrong shape.

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
        published = 128 if in_features == 384 else in_features // 2
        size = published if hidden_size is None else hidden_size
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=size)
        check_positive(num_tokens=num_tokens, num_heads=num_heads)
        check_choice("block", block, ("cross", "prenorm"))
        if size % num_heads:
            raise ValueError(f"`hidden_size` must be a multiple of the {num_heads} heads, got {size}.")
        for name, rate in {"token_drop": token_drop, "dropout": dropout}.items():
            if not 0 <= rate < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {rate!r}.")
        if n_drop is not None and not 0 <= n_drop < num_tokens:
            raise ValueError(f"`n_drop` must leave at least one of {num_tokens} tokens, got {n_drop!r}.")
        self.in_features = in_features
        self.token_drop = token_drop
        self.n_drop = n_drop
        self.tokens = nn.Parameter(1e-6 * torch.randn(num_tokens, size))
        self.cls = nn.Parameter(torch.zeros(1, size))
        self.embed = nn.Linear(in_features, size, bias=False)
        cross = block == "cross"
        self.attend, self.summarize = (
            TokenAttention(size, num_heads, queries, dropout) if cross else PreNormTokens(size, num_heads, dropout)
            for queries in (num_tokens, 1)
        )
        self.classify = nn.Linear(size, num_classes)

    reference_ignored = ("dimreduction.bn.*", "classifier.*")  # published, but never trained or used

    def reference_names(self) -> Dict[str, Union[str, Tuple[str, Optional[int]]]]:
        """Where each tensor of a published checkpoint belongs: our name and the token, for each has weights of its own.

        See :py:func:`load_reference_state_dict`.

        Raises:
            ValueError: for ``block="prenorm"``, of which no weights are published.
        """
        if not isinstance(self.attend, TokenAttention):
            raise ValueError('`block` must be "cross" for published weights, got "prenorm".')
        names: Dict[str, Union[str, Tuple[str, Optional[int]]]] = {"q": ("tokens", None), "cls": ("cls", None)}
        groups = [(f"sub_attention.{i}", "attend", i) for i in range(len(self.tokens))]
        for theirs, ours, token in [*groups, ("bag_attention", "summarize", 0)]:
            for kind in ("weight", "bias"):
                names[f"{theirs}.layer_norm.{kind}"] = f"{ours}.norm_{kind}", token
                for part, layer in PROJECTIONS.items():
                    names[f"{theirs}.{part}.{kind}"] = f"{ours}.attend.{layer}_{kind}", token
        whole = {"dimreduction.fc1.weight": "embed.weight"}
        whole |= {f"Slide_classifier.fc.{kind}": f"classify.{kind}" for kind in ("weight", "bias")}
        return {**names, **whole}

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """See :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        keys = self.attend.keys(torch.relu(self.embed(zero_padding(x, mask))))
        scores = self.score_tap(self.attend.score(self.tokens, keys))
        attention = masked_softmax(scores, mask)
        tokens = self.attend.read(self.tokens, attention, keys)
        embedding = self.summarize(self.cls, tokens, self._kept(tokens)).squeeze(1)
        return BagOutput(self.classify(embedding), attention.mean(2, keepdim=True), scores, embedding)

    def _kept(self, tokens: Tensor) -> Optional[Tensor]:
        """Which tokens (B, T) this training step keeps; nothing is drawn where all are kept."""
        if not self.training or (self.token_drop == 0 if self.n_drop is None else self.n_drop == 0):
            return None
        draw = torch.rand(tokens.shape[:2], device=tokens.device)
        n_drop = self.n_drop
        if n_drop is not None:
            return draw.argsort(1).argsort(1) >= n_drop
        return (draw >= self.token_drop) | (draw == draw.amax(1, keepdim=True))
