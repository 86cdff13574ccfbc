"""QG-MIL, a gated transformer over the instances of a bag."""

from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import GatedAttention
from monai_mil_ext.networks.blocks.gated_self_attention import ProjectedHeads, attention_logits, propagate_attention
from monai_mil_ext.networks.layers import masked_max, masked_softmax
from monai_mil_ext.networks.layers.bit_dropout import BitDropout
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.layers.norms import make_norm
from monai_mil_ext.networks.layers.packed import PackedLayout, pack, packed_layout, pool_packed, split_packed, unpack
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_choice, check_positive, check_rate

from .qgmil_block import QGMILBlock

__all__ = ["QGMIL"]

POOLINGS = ("attention", "mean", "max", "cls")
PUBLISHED_SIZE = 512  # the published code derives the sizes of heads and feed-forward network from it, whatever E is
PUBLISHED_NAMES = {  # our prefix: prefix in the published code, if they differ
    "attend.value.": "pooling.attention_V.0.",
    "attend.gate.": "pooling.attention_U.0.",
    "attend.score.": "pooling.attention_weights.",
    "pool_norm.": "pooling.norm.",
}


PRESETS: Dict[str, Dict[str, Any]] = {
    "qgmil_base": {"block": QGMILBlock()},
    "qgmil_elementwise": {"block": QGMILBlock(gate="elementwise")},
    "qgmil_no_gate": {"block": QGMILBlock(gate="none")},
    "qgmil_layernorm": {"block": QGMILBlock(norm="layer", qk_norm=False)},
    "qgmil_no_qknorm": {"block": QGMILBlock(qk_norm=False)},
    "qgmil_minimal": {"block": QGMILBlock(norm="layer", qk_norm=False, gate="none")},
    "qgmil_deep": {"block": QGMILBlock(), "num_layers": 4},
    "qgmil_light": {"block": QGMILBlock(num_heads=4)},
    "qgmil_small": {"block": QGMILBlock(num_heads=4, head_size=128, ffn_size=2048), "hidden_size": 256},
}
PRESETS["qgmil"] = PRESETS["qgmil_base"]


class QGMIL(BagNet):
    r"""QG-MIL, proposed in `QG-MIL <https://arxiv.org/abs/2606.20027>`_.

    Given a bag X of instances :math:`x_n`, QG-MIL applies L transformer blocks with gated, normalized attention heads
    to the projected instances, pools them by attention and classifies the result:

    .. math::
        h = \operatorname{norm}(W x + b), \quad L \times \text{block}, \quad
        z = \operatorname{norm}(\operatorname{norm}(h)), \quad a = \operatorname{softmax}_n s(z_n), \quad
        \text{logits} = W_2 \operatorname{ReLU}\left(W_1 \textstyle\sum_n a_n z_n + b_1\right) + b_2

    with the blocks of :py:class:`PreNormBlock` and the scores :math:`s` of :py:class:`GatedAttention`. The
    ``attention`` of the output depends on ``pooling``:

    - ``"attention"``: the weights a.
    - ``"mean"``: uniform weights. ``"max"``: the fraction of features whose maximum an instance holds. Neither has
      scores (``gives_scores`` is False).
    - ``"cls"``: the attention (B, N, H) of the class token to each instance in the last block. The weight on the class
      token itself is left out, so the sum is below one (``attention_is_distribution`` is False). Attention and scores
      are computed only by ``forward_bag`` or if the tap has a hook. The last block computes the class token alone, in
      O(N).

    The embedding of an empty bag is zero, or with ``"cls"`` that of the token alone. A batch with much padding is
    packed: its valid instances are concatenated, and each bag attends to itself, so that padding costs no time. With
    ``"cls"``, and if the network is scripted, exported or compiled, padding is computed and masked instead; the result
    is the same.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a token.
        num_layers: number L of blocks.
        block: options of the blocks; ``None`` means ``QGMILBlock()``.
        pooling: ``"attention"``, ``"mean"``, ``"max"`` or ``"cls"``.
        dropout: dropout rate of the tokens, of the outputs that blocks add to them, and inside the classifier.
        reference_compat: whether to reproduce the peculiarities of the published code: heads of size 512 / H and a
            feed-forward network of size 2048 for any ``hidden_size``, an unused attention pool with ``"cls"``, and RMS
            norms that round before their weight. Use it only with the weights and results of that code.
        packing: whether a batch with much padding is packed. ``None`` packs on a CPU only: on a GPU, the program would
            wait for the mask in every forward pass, which pays if much of large bags is padding.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1), the pooling is unknown, the input has the
            wrong shape, or H does not divide E without a ``head_size``.

    References:
        Zedda et al., QG-MIL, arXiv:2606.20027.

    Example:
        >>> net = QGMIL(in_features=8, num_classes=2, hidden_size=16, block=QGMILBlock(num_heads=4, gate="none"))
        >>> x, mask = torch.rand(2, 5, 8), torch.arange(5) < torch.tensor([[5], [3]])
        >>> net.eval().forward_bag(x, mask).attention.sum(1).round(decimals=4).tolist()
        [[1.0], [1.0]]
        >>> net.received_attention(x, mask).sum(1).round(decimals=4).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 512,
        num_layers: int = 1,
        block: Optional[QGMILBlock] = None,
        pooling: str = "attention",
        dropout: float = 0.25,
        reference_compat: bool = False,
        packing: Optional[bool] = None,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, num_layers=num_layers)
        check_choice("pooling", pooling, POOLINGS)
        if isinstance(hidden_size, bool) or not isinstance(hidden_size, int) or hidden_size < 2:
            raise ValueError(f"`hidden_size` must be an integer of at least 2, got {hidden_size!r}.")
        check_rate(dropout=dropout)
        block = block or QGMILBlock()
        if reference_compat:
            head_size = block.head_size or PUBLISHED_SIZE // block.num_heads
            block = replace(block, head_size=head_size, ffn_size=block.ffn_size or 4 * PUBLISHED_SIZE)
        self.in_features = in_features
        self.pooling = pooling
        self.packing = packing
        self.gives_scores = pooling in ("attention", "cls")
        self.attention_is_distribution = pooling != "cls"
        self.reference_ignored: Tuple[str, ...] = ("pooling.*",) if pooling == "cls" and not reference_compat else ()
        size, half = hidden_size, hidden_size // 2
        eps = 1e-6 if block.norm == "rms" else 1e-5  # as published, for the norms outside the blocks

        def norm() -> nn.Module:
            return make_norm(block.norm, size, eps, reference_compat)

        has_pool = pooling == "attention" or (pooling == "cls" and reference_compat)
        self.input_proj = nn.Sequential(nn.Linear(in_features, size), norm(), BitDropout(dropout))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size)) if pooling == "cls" else None
        self.layers = nn.ModuleList([block.build(size, dropout, reference_compat) for _ in range(num_layers)])
        self.final_norm = norm()
        self.attend = GatedAttention(size, half) if has_pool else None
        self.pool_norm = norm() if has_pool else None
        self.classifier = nn.Sequential(
            nn.Linear(size, half), nn.ReLU(), nn.Dropout(dropout), nn.Linear(half, num_classes)
        )
        self._reset_parameters()

    @classmethod
    def from_preset(
        cls,
        name: str,
        in_features: int,
        num_classes: int,
        num_kv_heads: Optional[int] = None,
        pooling: str = "attention",
        dropout: float = 0.25,
        reference_compat: bool = False,
    ) -> "QGMIL":
        """Create a published network by the name of its preset.

        ``"qgmil"`` is ``"qgmil_base"``. ``"qgmil_light"`` is the network that the published factory builds under this
        name, with as many parameters as the base; ``"qgmil_small"`` is the light network of the published class.

        Raises:
            ValueError: when the preset is unknown, or an argument is invalid, see the class.

        Example:
            >>> sum(p.numel() for p in QGMIL.from_preset("qgmil_small", in_features=1024, num_classes=1).parameters())
            2461058
        """
        check_choice("name", name, PRESETS)
        preset = dict(PRESETS[name])
        block = replace(preset.pop("block"), num_kv_heads=num_kv_heads)
        return cls(
            in_features,
            num_classes,
            block=block,
            pooling=pooling,
            dropout=dropout,
            reference_compat=reference_compat,
            **preset,
        )

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Compute logits, see :py:class:`BagNet`."""
        tapped = False
        if not torch.jit.is_scripting():  # a scripted tap has no hooks
            tapped = len(self.score_tap._forward_hooks) + len(self.score_tap._forward_pre_hooks) > 0
        return self._run(x, mask, tapped).logits

    @torch.jit.export
    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        return self._run(x, mask, True)

    @torch.no_grad()
    def received_attention(self, x: Tensor, mask: Optional[Tensor] = None, layer: int = -1) -> Tensor:
        r"""Compute the mean attention (B, N) that each instance receives from all instances in one block.

        .. math:: r_j = \frac{1}{H N} \sum_h \sum_i P_h[i, j]

        It is zero at padding and sums to one over the valid instances, or to less with a class token, which receives
        attention but is not used as a query here. Gates are ignored. It uses O(N) memory and depends on all N x N
        scores, so the time grows with N\ :sup:`2` as that of a forward pass does, and is less than that of two. The
        exception is a network with a single block and ``pooling="cls"``, whose forward pass is linear in N, because its
        only query is the class token, and much faster than this method.

        Args:
            x: bags (B, N, F).
            mask: mask (B, N), True for a valid instance; ``None`` if all are valid.
            layer: index of the block; negative indices count from the last.

        Raises:
            ValueError: when there is no such block, or the input has the wrong shape.
        """
        if not -len(self.layers) <= layer < len(self.layers):
            raise ValueError(f"`layer` must be the index of one of {len(self.layers)} blocks, got {layer!r}.")
        h, token_mask = self._embed(x, mask)
        index = layer % len(self.layers)
        for block in self.layers[:index]:
            h, _ = block(h, token_mask)
        weights = masked_softmax(h.new_zeros(x.shape[0], x.shape[1], 1), mask)[..., 0]
        weights = functional.pad(weights, [h.shape[1] - x.shape[1], 0])
        last_block: Any = self.layers[index]
        heads = last_block.project(h)
        return propagate_attention(weights, heads.query, heads.key, token_mask)[:, h.shape[1] - x.shape[1] :]

    @torch.no_grad()
    def attention_rollout(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        r"""Propagate the weights a of the pool through all blocks to the instances (B, N), using O(N) memory.

        .. math:: a^\top \bar P_L \cdots \bar P_1

        with the mean over heads :math:`\bar P`. It sums to one over the valid instances. With ``pooling="cls"``, a is
        one for the class token, and the final weight of the token is left out. Gates and residuals are ignored.
        """
        h, token_mask = self._embed(x, mask)
        heads_of_blocks: List[ProjectedHeads] = []
        for i, block in enumerate(self.layers):
            h, heads = block(h, token_mask, self.pooling == "cls" and i == len(self.layers) - 1)
            heads_of_blocks.append(heads)
        attention = self._pool(self.final_norm(h), heads_of_blocks[-1], x, mask, False).attention
        weights = h.new_ones(len(h), 1) if attention is None else attention[..., 0]
        for heads in reversed(heads_of_blocks):
            weights = propagate_attention(weights, heads.query, heads.key, token_mask)
        return weights[:, weights.shape[1] - x.shape[1] :]

    def reference_names(self) -> Dict[str, str]:
        """Map the published parameter names to ours; see :py:func:`load_reference_state_dict`."""
        names = {}
        for ours in self.state_dict():
            prefix = next((p for p in PUBLISHED_NAMES if ours.startswith(p)), "")
            names[PUBLISHED_NAMES.get(prefix, "") + ours[len(prefix) :]] = ours
        return names

    def _reset_parameters(self) -> None:
        """Initialize the weights as published."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def _embed(self, x: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Optional[Tensor]]:
        """Return the tokens (B, T, E), with the class token first if there is one, and their mask (B, T)."""
        self.check_input(x, mask, self.in_features)
        h: Tensor = self.input_proj(zero_out_padding(x, mask))
        token = self.cls_token
        if token is not None:
            h = torch.cat([token.to(h.dtype).expand(h.shape[0], -1, -1), h], 1)
            return h, self._add_token(mask)
        # in an empty bag padding attends to padding, since an empty softmax is NaN; pooling ignores the result
        return h, None if mask is None else mask | ~mask.any(1, keepdim=True)

    def _add_token(self, mask: Optional[Tensor]) -> Optional[Tensor]:
        return None if mask is None else functional.pad(mask, [1, 0], value=1.0)

    def _run(self, x: Tensor, mask: Optional[Tensor], with_attention: bool) -> BagOutput:
        """Compute the output; attention and scores that the logits do not need only if ``with_attention``."""
        if not torch.jit.is_scripting():  # a script cannot depend on the number of valid instances
            self.check_input(x, mask, self.in_features)
            layout = packed_layout(mask, self.packing) if self.cls_token is None else None
            if layout is not None:
                return self._run_packed(x, mask, layout, with_attention)
        h, token_mask = self._embed(x, mask)
        h, heads = self._apply_blocks(h, token_mask)
        return self._pool(h, heads, x, mask, with_attention)

    def _run_packed(self, x: Tensor, mask: Optional[Tensor], layout: PackedLayout, with_attention: bool) -> BagOutput:
        """Compute the output from the packed valid instances."""
        parts = [self._apply_blocks(self.input_proj(pack(x, part)), None, part.sizes) for part in split_packed(layout)]
        return self._pool(torch.cat([h for h, _ in parts], 1), parts[-1][1], x, mask, with_attention, layout)

    def _apply_blocks(
        self, h: Tensor, mask: Optional[Tensor], sizes: Optional[List[int]] = None
    ) -> Tuple[Tensor, ProjectedHeads]:
        """Return the tokens after all blocks, and the heads of the last block; ``sizes`` as in a block."""
        for i, block in enumerate(self.layers):
            h, heads = block(h, mask, self.pooling == "cls" and i == len(self.layers) - 1, sizes)
        return self.final_norm(h), heads

    def _pool(
        self,
        h: Tensor,
        heads: ProjectedHeads,
        x: Tensor,
        mask: Optional[Tensor],
        with_attention: bool,
        layout: Optional[PackedLayout] = None,
    ) -> BagOutput:
        """Pool and classify the tokens ``h`` of bags ``x``, which are packed if there is a layout."""
        attention: Optional[Tensor] = None
        scores: Optional[Tensor] = None
        if self.pooling == "cls":
            embedding = h[:, 0]
            if with_attention:
                attention, scores = self._class_attention(heads, mask)
        elif self.pooling == "max":
            embedding, attention = masked_max(unpack(h, layout, x), mask)
        elif self.attend is not None and self.pool_norm is not None:
            h = self.pool_norm(h)
            scores = self.score_tap(unpack(self.attend(h), layout, x))
            attention = masked_softmax(scores, mask)
            embedding = pool_packed(attention, h, layout)[:, 0]
        else:
            attention = masked_softmax(h.new_zeros([x.shape[0], x.shape[1], 1]), mask)
            embedding = pool_packed(attention, h, layout)[:, 0]
        return BagOutput(self.classifier(embedding.to(h.dtype)), attention, scores, embedding)

    def _class_attention(self, heads: ProjectedHeads, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """Compute the attention of the class token to each instance, and its scores, both (B, N, H)."""
        row = attention_logits(heads.query, heads.key)[:, :, 0].transpose(1, 2)
        scores = self.score_tap(row[:, 1:])
        attention = masked_softmax(torch.cat([row[:, :1], scores], 1), self._add_token(mask))
        return attention[:, 1:], scores
