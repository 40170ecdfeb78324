"""Cross-modality graph structured attention (CGSA), a loss, and its dynamic weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ddag.settings_graph import Graph as GraphSettings
from reidcore.modules import Batch, Context, Loss, at_least_float32

SLOPE = 0.2  # of the leaky ReLU on attention scores
GAIN = 1.414  # of the Xavier initialisation


class GraphAttention(nn.Module):
    """Heads of a graph attention layer without activation (Velickovic et al. 2018; Ye et al. 2020,
    equations 6 and 7). [K, inputs] -> [heads, K, outputs].

    weight: [heads, inputs, outputs]. score: [heads, 2 * outputs]; its first half acts on the node
    that attends, the second on the one attended to.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 1, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        self.score = nn.Parameter(torch.empty(heads, 2 * outputs))
        for head in range(heads):
            nn.init.xavier_uniform_(self.weight[head], GAIN)
            nn.init.xavier_uniform_(self.score[head, :, None], GAIN)

    def attention(self, h: Tensor, edges: Tensor) -> Tensor:
        """[heads, K, K] over the second node, 0 where there is no edge; h is [heads, K, outputs],
        edges [K, K] is true on the diagonal."""
        first, second = self.score.chunk(2, 1)
        one, other = h @ first[:, :, None], h @ second[:, :, None]
        scores = F.leaky_relu(one + other.mT, SLOPE)
        return scores.masked_fill(~edges, -torch.inf).softmax(2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = x @ self.weight
        return F.dropout(self.attention(h, edges), self.dropout, self.training) @ h


def chosen(batch: Batch, per_id: int) -> Tensor:
    """int64 [K], ascending: of every identity the first `per_id` pictures in turns, the first of
    each modality, lower numbers before, then the second of each, and so on."""
    pid, modality = batch.pid, batch.images.modality
    same = pid[:, None] == pid
    alike = same & (modality[:, None] == modality)
    place = torch.arange(len(batch), device=pid.device)
    turn = (alike & (place < place[:, None])).sum(1)
    sooner = (turn < turn[:, None]) | ((turn == turn[:, None]) & (modality < modality[:, None]))
    return ((same & sooner).sum(1) < per_id).nonzero()[:, 0]


class Graph(Loss):
    """Cross-entropy of a graph attention network on the batch's pictures, in which all pictures of
    an identity, of both modalities, are connected (Ye et al. 2020, section 3.3).

    Heads with ELU are joined, and a last layer of one head gives a score for every training
    identity. Returns the loss times `balance`; logs `nll`, the loss itself, and `balance`, which is
    1, or follows from other losses after each epoch (section 3.4, equation 11).
    """

    factor: Tensor

    def __init__(self, config: GraphSettings, context: Context):
        super().__init__()
        self.feature, self.per_id, self.dropout = config.feature, config.per_id, config.dropout
        self.elu = config.activation == "elu"
        self.reduction = config.reduction
        self.balance = config.balance
        inputs = context.vector(config.feature)
        self.heads = GraphAttention(inputs, config.dim, config.heads, config.dropout)
        self.last = GraphAttention(config.heads * config.dim, context.identities, 1, config.dropout)
        start = config.first if config.balance else 1.0
        # Part of the state, so that a resumed run goes on with it.
        self.register_buffer("factor", torch.tensor(start))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def logits(self, x: Tensor, pid: Tensor) -> Tensor:
        """[K, identities] of nodes x [K, D] of the identities pid [K]."""
        edges = pid[:, None] == pid
        joined = F.elu(self.heads(self.drop(x), edges)).transpose(0, 1).flatten(1)
        scores = self.last(self.drop(joined), edges)[0]
        return F.elu(scores) if self.elu else scores

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        x, pid = at_least_float32(features[self.feature]), batch.pid
        if self.per_id is not None:
            nodes = chosen(batch, self.per_id)
            x, pid = x[nodes], pid[nodes]
        with torch.autocast(x.device.type, enabled=False):
            nll = F.cross_entropy(self.logits(x, pid), pid, reduction=self.reduction)
        return self.factor * nll, {"nll": nll, "balance": self.factor}

    def after_epoch(self, means: Mapping[str, float]) -> None:
        if self.balance:
            self.factor.fill_(1 / (1 + sum(means[name] for name in self.balance)))


def build_graph(config: GraphSettings, context: Context) -> Graph:
    return Graph(config, context)
