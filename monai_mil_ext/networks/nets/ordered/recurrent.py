"""Recurrent network over the ordered instances of a bag."""

from typing import Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from monai_mil_ext.networks.layers import attention_pool, masked_max, masked_softmax
from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_choice, check_positive, check_rate, without_autocast

__all__ = ["RecurrentMIL"]

CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}
PUBLISHED_LOGITS = ("npe", "idt", "lpe", "rpe", "cpe", "gte", "lt", "chronic", "acute_and_chronic")


class RecurrentMIL(BagNet):
    r"""Bidirectional recurrent network over ordered instances, as winners of RSNA challenges on CT used it.

    Given a bag X of ordered instances :math:`x_n`, the states of both directions are pooled by their maximum and by
    attention:

    .. math::
        g = \operatorname{BiGRU}([x_n;\, x_n - x_{n-1};\, x_n - x_{n+1}]), \quad e_n = \tanh(w^\top g_n), \quad
        z = [\max_n g_n;\, \sum_n \operatorname{softmax}_n(e)_n \, g_n], \quad \text{logits} = W z + b

    A difference beyond the bag is 0. ``slice_tap`` puts out logits :math:`W_s g_n + b_s` (B, N, S) of the instances,
    which can be trained where slices have labels; the logits of the bag do not depend on them
    (``logits_see_all_weights`` is False). The network depends on the order of instances (``permutation_invariant`` is
    False), which are neighbors even if there is padding between them. PyTorch's recurrent layers are exported for one
    size of a bag (``exports_dynamic_n`` is False) and not traced (``is_traceable`` is False). Since tanh bounds the
    scores, no instance gets more than :math:`e^2` times the attention of another.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        hidden_size: size of the state of each direction.
        cell: ``"gru"`` or ``"lstm"``.
        num_layers: number of layers.
        differences: whether the differences to both neighbors are appended to an instance.
        dropout: dropout rate of the pooled states.
        num_slice_logits: number S of logits of an instance.

    Raises:
        ValueError: when a size is not positive, the rate is not in [0, 1), the cell is unknown, or the input has the
            wrong shape.

    References:
        Xu, first place of the RSNA-STR Pulmonary Embolism Detection challenge 2020,
        https://github.com/GuanshuoXu/RSNA-STR-Pulmonary-Embolism-Detection

    Example:
        >>> RecurrentMIL(in_features=8, num_classes=2, hidden_size=4).forward_bag(torch.rand(1, 5, 8)).embedding.shape
        torch.Size([1, 16])
    """

    permutation_invariant = False
    exports_dynamic_n = False
    is_traceable = False
    logits_see_all_weights = False

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int = 128,
        cell: str = "gru",
        num_layers: int = 1,
        differences: bool = True,
        dropout: float = 0.0,
        num_slice_logits: int = 1,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, hidden_size=hidden_size)
        check_positive(num_layers=num_layers, num_slice_logits=num_slice_logits)
        check_choice("cell", cell, CELLS)
        check_rate(dropout=dropout)
        self.in_features = in_features
        self.differences = differences
        size = 3 * in_features if differences else in_features
        sizes = [size] + [2 * hidden_size] * (num_layers - 1)
        self.forward_rnn = nn.ModuleList([CELLS[cell](size, hidden_size, batch_first=True) for size in sizes])
        self.backward_rnn = nn.ModuleList([CELLS[cell](size, hidden_size, batch_first=True) for size in sizes])
        self.score = nn.Linear(2 * hidden_size, 1, bias=False)
        self.classify_slice = nn.Linear(2 * hidden_size, num_slice_logits)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(4 * hidden_size, num_classes)
        self.slice_tap = nn.Identity()

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        x = zero_out_padding(x, mask)
        order = None if mask is None else compact_order(mask)
        counts = torch.full_like(x[:, :1, 0].sum(1), x.shape[1], dtype=torch.long) if mask is None else mask.sum(1)
        g = uncompact(self._states(compact(x, order), counts), order)
        g = zero_out_padding(g, mask)
        self.slice_tap(self.classify_slice(g))
        scores = self.score_tap(torch.tanh(self.score(g)))
        attention = masked_softmax(scores, mask)
        highest, _ = masked_max(g, mask)
        embedding = torch.cat([highest.to(attention.dtype), attention_pool(attention, g).squeeze(1)], 1)
        logits = self.classify(self.dropout(embedding).to(self.classify.weight.dtype))
        return BagOutput(logits, attention, scores, embedding)

    reference_zero = ("attention.b",)  # a bias for each of 192 slots, which depends on the padding

    def reference_names(self) -> Dict[str, Union[str, Tuple[str, Union[slice, str]]]]:
        """Map names of weights of the published code, with its nine logits of a scan and one of a slice, to ours."""
        sizes = (len(self.forward_rnn), self.classify_slice.out_features, self.classify.out_features)
        if sizes != (1, 1, len(PUBLISHED_LOGITS)):
            raise ValueError(f"`net` must have 1 layer, 1 logit of a slice and 9 of a bag, got {sizes}.")
        names: Dict[str, Union[str, Tuple[str, Union[slice, str]]]] = {"attention.weight": ("score.weight", "T")}
        for ours, suffix in (("forward_rnn", ""), ("backward_rnn", "_reverse")):
            for p in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                names[f"lstm1.{p}{suffix}"] = f"{ours}.0.{p}"
        for p in ("weight", "bias"):
            names[f"last_linear_pe.{p}"] = f"classify_slice.{p}"
            rows = enumerate(PUBLISHED_LOGITS)
            names |= {f"last_linear_{logit}.{p}": (f"classify.{p}", slice(c, c + 1)) for c, logit in rows}
        return names

    def _states(self, x: Tensor, counts: Tensor) -> Tensor:
        """Compute states (B, N, 2 E) of instances whose padding, if any, is at the end; meaningless at padding."""
        if not x.numel():
            return torch.matmul(x, x.new_zeros([x.shape[2], self.score.in_features]))  # empty, and part of the graph
        if self.differences:
            x = self._with_differences(x, counts)
        if x.device.type != "cpu" or torch.jit.is_scripting():  # TorchScript cannot compile is_autocast_enabled
            return self._run(x, counts)
        with without_autocast(x):  # processors without instructions for bfloat16 have no LSTM in it
            return self._run(x.to(self.score.weight.dtype), counts)

    def _run(self, x: Tensor, counts: Tensor) -> Tensor:
        """Compute the states of all layers, forward and backward."""
        reverse = _reversed_order(counts, x.shape[1])
        for ahead, back in zip(self.forward_rnn, self.backward_rnn):  # noqa: B905 - TorchScript knows no `strict`
            x = torch.cat([ahead(x)[0], _take(back(_take(x, reverse))[0], reverse)], 2)
        return x

    def _with_differences(self, x: Tensor, counts: Tensor) -> Tensor:
        """Append the differences (B, N, F) to the previous and to the next instance, 0 at the ends of a bag."""
        step = x[:, 1:] - x[:, :-1]
        within = torch.arange(1, x.shape[1], device=x.device) < counts.unsqueeze(1)
        step = step.masked_fill(~within.unsqueeze(-1), 0.0)
        zeros = torch.zeros_like(x[:, :1])
        parts: List[Tensor] = [x, torch.cat([zeros, step], 1), torch.cat([-step, zeros], 1)]
        return torch.cat(parts, 2)


def _reversed_order(counts: Tensor, size: int) -> Tensor:
    """Return the indices (B, N) that reverse the valid instances at the front of each bag, and leave the padding."""
    index = torch.arange(size, device=counts.device)
    return torch.where(index < counts.unsqueeze(1), counts.unsqueeze(1) - 1 - index, index)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Return the instances (B, N, E) at indices (B, N)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
