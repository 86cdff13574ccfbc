"""QG-MIL: a gated transformer that aggregates instances."""

from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.networks.blocks import AttentionHeads, GatedScores, head_scores, pass_on
from monai_mil_ext.networks.layers import (
    RealRows,
    find_real_rows,
    make_norm,
    masked_max,
    masked_softmax,
    pool_rows,
    split_rows,
    spread_rows,
    take_rows,
    zero_padding,
)
from monai_mil_ext.utils import check_choice, check_positive

from .bag_net import BagNet, BagOutput
from .qgmil_block import QGMILBlock

__all__ = ["QGMIL"]

POOLINGS = ("attention", "mean", "max", "cls")
PUBLISHED_SIZE = 512  # from which the published code derives the sizes of heads and feed-forward part, whatever E is
PUBLISHED_NAMES = {  # of what we call otherwise: ours, theirs
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
    r"""Lets instances attend to one another through gated, normalised heads, then pools them.

    .. math::
        h = \operatorname{norm}(W x + b), \quad L \times \text{block}, \quad
        z = \operatorname{norm}(\operatorname{norm}(h)), \quad a = \operatorname{softmax}_n s(z_n), \quad
        \text{logits} = W_2 \operatorname{ReLU}\left(W_1 \textstyle\sum_n a_n z_n + b_1\right) + b_2

    with the blocks of :py:class:`PreNormBlock` and :math:`s` of :py:class:`GatedScores`. What ``attention`` of the
    output is depends on ``pooling``:

    - ``"attention"``: the weights a.
    - ``"mean"``: uniform. ``"max"``: the share of the features whose maximum an instance holds. Neither has scores, so
      ``gives_scores`` is False.
    - ``"cls"``: what the class token gives to each instance in the last block, (B, N, H). It keeps some for itself, so
      the sum is below one and ``attention_is_distribution`` False. It and the scores are computed when asked for or
      when the tap has a hook. The last block works for this token alone, in O(N).

    The embedding of an empty bag is zero, with ``"cls"`` that of the token alone. A batch with much padding costs what
    its real instances cost: they stand side by side, and each bag attends to itself alone. With ``"cls"``, and where
    the network is scripted, exported or compiled, padding is computed and masked; the result is the same.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size E of a token.
        num_layers: number L of blocks.
        block: what a block consists of; ``None`` means ``QGMILBlock()``.
        pooling: ``"attention"``, ``"mean"``, ``"max"`` or ``"cls"``.
        dropout: rate on the tokens, on what blocks add to them, and inside the head.
        reference_compat: do as the published code where it is odd: heads of size 512 / H, a feed-forward part of 2048
            whatever the ``hidden_size``, a pool that ``"cls"`` has and does not use, and RMS norms that round before
            their weight. For weights and numbers of that code only.

    Raises:
        ValueError: when a size is not positive, the rate not in [0, 1), the pooling unknown, the input of the wrong
            shape, or H does not divide E and there is no ``head_size``.

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
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, num_layers=num_layers)
        check_choice("pooling", pooling, POOLINGS)
        if isinstance(hidden_size, bool) or not isinstance(hidden_size, int) or hidden_size < 2:
            raise ValueError(f"`hidden_size` must be an integer of at least 2, got {hidden_size!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), got {dropout!r}.")
        block = block or QGMILBlock()
        if reference_compat:
            head_size = block.head_size or PUBLISHED_SIZE // block.num_heads
            block = replace(block, head_size=head_size, ffn_size=block.ffn_size or 4 * PUBLISHED_SIZE)
        self.in_features = in_features
        self.pool_by = pooling
        self.gives_scores = pooling in ("attention", "cls")
        self.attention_is_distribution = pooling != "cls"
        self.reference_ignored: Tuple[str, ...] = ("pooling.*",) if pooling == "cls" and not reference_compat else ()
        size, half = hidden_size, hidden_size // 2
        coarse = 1e-6 if block.norm == "rms" else 1e-5  # as published, outside the blocks

        def norm() -> nn.Module:
            return make_norm(block.norm, size, coarse, reference_compat)

        pools = pooling == "attention" or (pooling == "cls" and reference_compat)
        self.input_proj = nn.Sequential(nn.Linear(in_features, size), norm(), nn.Dropout(dropout))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size)) if pooling == "cls" else None
        self.layers = nn.ModuleList([block.build(size, dropout, reference_compat) for _ in range(num_layers)])
        self.final_norm = norm()
        self.attend = GatedScores(size, half) if pools else None
        self.pool_norm = norm() if pools else None
        self.classifier = nn.Sequential(
            nn.Linear(size, half), nn.ReLU(), nn.Dropout(dropout), nn.Linear(half, num_classes)
        )
        self._reset()

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
        """A published network: ``"qgmil"`` is ``"qgmil_base"``, ``"qgmil_small"`` the light one as its class builds it.

        ``"qgmil_light"`` is what the published factory gives under that name, with as many parameters as the base.

        Raises:
            ValueError: when there is no such preset, or an argument is wrong; see the class.

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
        """See :py:class:`BagNet`."""
        asked = False
        if not torch.jit.is_scripting():  # a scripted tap has no hooks
            asked = len(self.score_tap._forward_hooks) + len(self.score_tap._forward_pre_hooks) > 0
        return self._run(x, mask, asked).logits

    @torch.jit.export
    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """See :py:class:`BagNet`."""
        return self._run(x, mask, True)

    @torch.no_grad()
    def received_attention(self, x: Tensor, mask: Optional[Tensor] = None, layer: int = -1) -> Tensor:
        r"""What instances receive from one another in one block, (B, N): zero on padding, in memory linear in N.

        .. math:: r_j = \frac{1}{H N} \sum_h \sum_i P_h[i, j]

        It sums to one over the real instances; with a class token, which takes a share and does not ask here, to less.
        The gate does not enter. Each r depends on all N x N scores, so the time grows with N\ :sup:`2` as that of a
        forward does, and is less than that of two. The one exception is a network of a single block with
        ``pooling="cls"``: there only the token asks, a forward is linear in N, and this is many of them.

        Args:
            x: (B, N, F).
            mask: (B, N), True for a real instance; ``None`` if all are real.
            layer: which block, as a list is indexed.

        Raises:
            ValueError: when there is no such block, or the input has the wrong shape.
        """
        if not -len(self.layers) <= layer < len(self.layers):
            raise ValueError(f"`layer` must be the index of one of {len(self.layers)} blocks, got {layer!r}.")
        h, seen = self._enter(x, mask)
        index = layer % len(self.layers)
        for block in self.layers[:index]:
            h, _ = block(h, seen)
        share = masked_softmax(h.new_zeros(x.shape[0], x.shape[1], 1), mask)[..., 0]
        share = functional.pad(share, [h.shape[1] - x.shape[1], 0])
        last: Any = self.layers[index]
        heads = last.project(h)
        return pass_on(share, heads.query, heads.key, seen)[:, h.shape[1] - x.shape[1] :]

    @torch.no_grad()
    def attention_rollout(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        r"""How the pool's weights a spread over the instances through all blocks, (B, N), in memory linear in N.

        .. math:: a^\top \bar P_L \cdots \bar P_1

        with the mean over heads :math:`\bar P`. It sums to one over the real instances. With ``pooling="cls"`` all of a
        is on the class token, and what comes back to it is left out. Neither gates nor residuals enter.
        """
        h, seen = self._enter(x, mask)
        passed: List[AttentionHeads] = []
        for i, block in enumerate(self.layers):
            h, heads = block(h, seen, self.pool_by == "cls" and i == len(self.layers) - 1)
            passed.append(heads)
        attention = self._pool(self.final_norm(h), passed[-1], x, mask, False).attention
        share = h.new_ones(len(h), 1) if attention is None else attention[..., 0]
        for heads in reversed(passed):
            share = pass_on(share, heads.query, heads.key, seen)
        return share[:, share.shape[1] - x.shape[1] :]

    def reference_names(self) -> Dict[str, str]:
        """Our name of every published parameter; see :py:func:`load_reference_state_dict`."""
        names = {}
        for ours in self.state_dict():
            prefix = next((p for p in PUBLISHED_NAMES if ours.startswith(p)), "")
            names[PUBLISHED_NAMES.get(prefix, "") + ours[len(prefix) :]] = ours
        return names

    def _reset(self) -> None:
        """Draw the weights as published."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def _enter(self, x: Tensor, mask: Optional[Tensor]) -> Tuple[Tensor, Optional[Tensor]]:
        """Tokens (B, T, E), the class token first if there is one, and which of them may be attended to."""
        self.check_input(x, mask, self.in_features)
        h: Tensor = self.input_proj(zero_padding(x, mask))
        token = self.cls_token
        if token is not None:
            h = torch.cat([token.to(h.dtype).expand(h.shape[0], -1, -1), h], 1)
            return h, self._with_token(mask)
        # in an empty bag padding attends to padding: a softmax over nothing would be NaN, and the pool leaves it out
        return h, None if mask is None else mask | ~mask.any(1, keepdim=True)

    def _with_token(self, mask: Optional[Tensor]) -> Optional[Tensor]:
        return None if mask is None else functional.pad(mask, [1, 0], value=1.0)

    def _run(self, x: Tensor, mask: Optional[Tensor], asked: bool) -> BagOutput:
        """All of the output; what is beside the way to the logits only if ``asked``."""
        if not torch.jit.is_scripting():  # a script would have to know how many real instances there will be
            self.check_input(x, mask, self.in_features)
            rows = find_real_rows(mask) if self.cls_token is None else None
            if rows is not None:
                return self._run_rows(x, mask, rows, asked)
        h, seen = self._enter(x, mask)
        h, heads = self._mix(h, seen)
        return self._pool(h, heads, x, mask, asked)

    def _run_rows(self, x: Tensor, mask: Optional[Tensor], rows: RealRows, asked: bool) -> BagOutput:
        """The same of the real instances alone."""
        parts = [self._mix(self.input_proj(take_rows(x, part)), None, part.sizes) for part in split_rows(rows)]
        return self._pool(torch.cat([h for h, _ in parts], 1), parts[-1][1], x, mask, asked, rows)

    def _mix(
        self, h: Tensor, seen: Optional[Tensor], sizes: Optional[List[int]] = None
    ) -> Tuple[Tensor, AttentionHeads]:
        """Tokens after all blocks, and what they attended by in the last; ``sizes`` as of a block."""
        for i, block in enumerate(self.layers):
            h, heads = block(h, seen, self.pool_by == "cls" and i == len(self.layers) - 1, sizes)
        return self.final_norm(h), heads

    def _pool(
        self,
        h: Tensor,
        heads: AttentionHeads,
        x: Tensor,
        mask: Optional[Tensor],
        asked: bool,
        rows: Optional[RealRows] = None,
    ) -> BagOutput:
        """The output for bags ``x`` of whose instances, or of the ``rows`` among them alone, the tokens ``h`` are."""
        attention: Optional[Tensor] = None
        scores: Optional[Tensor] = None
        if self.pool_by == "cls":
            embedding = h[:, 0]
            if asked:
                attention, scores = self._class_row(heads, mask)
        elif self.pool_by == "max":
            embedding, attention = masked_max(spread_rows(h, rows, x), mask)
        elif self.attend is not None and self.pool_norm is not None:
            h = self.pool_norm(h)
            scores = self.score_tap(spread_rows(self.attend(h), rows, x))
            attention = masked_softmax(scores, mask)
            embedding = pool_rows(attention, h, rows)[:, 0]
        else:
            attention = masked_softmax(h.new_zeros([x.shape[0], x.shape[1], 1]), mask)
            embedding = pool_rows(attention, h, rows)[:, 0]
        return BagOutput(self.classifier(embedding.to(h.dtype)), attention, scores, embedding)

    def _class_row(self, heads: AttentionHeads, mask: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """What the class token gives to each instance and the scores of that, (B, N, H) both."""
        row = head_scores(heads.query, heads.key)[:, :, 0].transpose(1, 2)
        scores = self.score_tap(row[:, 1:])
        attention = masked_softmax(torch.cat([row[:, :1], scores], 1), self._with_token(mask))
        return attention[:, 1:], scores
