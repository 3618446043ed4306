"""Graphs for the SE(3) transformer of RoseTTAFold2, which takes them from dgl, and dgl has no build for today's GPUs.

These are the operations that RoseTTAFold2 calls, as dgl documents them, in PyTorch alone: they run where PyTorch runs.
Each node's edges are reduced in their own order and by no atomic additions, so that every run gives the same bits.
Numbers of 16 bits are computed with 32, and given back as they came. Runs in the engine's own Python.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import sys
from functools import cached_property
from types import ModuleType

import torch
from torch import Tensor


class Graph:
    """Directed edges between numbered nodes; `edata` holds what belongs to the edges, (edges, ...) by name."""

    def __init__(self, ends: tuple[Tensor, Tensor], *, num_nodes: int) -> None:
        self.sources, self.destinations = ends
        self.num_nodes = num_nodes
        self.edata: dict[str, Tensor] = {}

    def edges(self) -> tuple[Tensor, Tensor]:
        """The nodes where the edges begin and where they end, (edges) each."""
        return self.sources, self.destinations

    def to(self, device: torch.device | str) -> Graph:
        """The same graph, and what belongs to its edges, on a device."""
        there = Graph((self.sources.to(device), self.destinations.to(device)), num_nodes=self.num_nodes)
        there.edata = {name: values.to(device) for name, values in self.edata.items()}
        return there

    def reduce(self, values: Tensor, how: str) -> Tensor:
        """The `sum` or `max` of the values, (edges, ...), of each node's incoming edges: (nodes, ...).

        The sum of none is 0. Raises ValueError if an edge ends at no node.
        """
        order, counts = self._incoming
        return torch.segment_reduce(values[order], how, lengths=counts, axis=0, unsafe=True)

    @cached_property
    def _incoming(self) -> tuple[Tensor, Tensor]:
        """The edges in the order of the nodes where they end, (edges), and how many end at each, (nodes)."""
        counts = torch.bincount(self.destinations, minlength=self.num_nodes)
        if len(counts) > self.num_nodes:
            raise ValueError(f"an edge ends at node {len(counts) - 1} of a graph of {self.num_nodes} nodes")
        return torch.sort(self.destinations, stable=True).indices, counts


def copy_e_sum(graph: Graph, values: Tensor) -> Tensor:
    """The sum over each node's incoming edges: of (edges, ...), (nodes, ...)."""
    return graph.reduce(_wide(values), "sum").to(values.dtype)


def e_dot_v(graph: Graph, edges: Tensor, nodes: Tensor) -> Tensor:
    """The dot product of each edge's vector with that of the node where it ends.

    Of (edges, ..., components) and (nodes, ..., components): (edges, ..., 1).
    """
    return (_wide(edges) * _wide(nodes)[graph.destinations]).sum(-1, keepdim=True).to(edges.dtype)


def edge_softmax(graph: Graph, logits: Tensor) -> Tensor:
    """The softmax over each node's incoming edges: (edges, ...), as the logits are."""
    wide = _wide(logits)
    powers = (wide - graph.reduce(wide, "max")[graph.destinations]).exp()
    return (powers / graph.reduce(powers, "sum")[graph.destinations]).to(logits.dtype)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def install() -> None:
    """Be the `dgl` that this process imports from now on."""
    operations = ModuleType("dgl.ops", __doc__)
    vars(operations).update(copy_e_sum=copy_e_sum, e_dot_v=e_dot_v, edge_softmax=edge_softmax)
    pooling = ModuleType("dgl.nn.pytorch", __doc__)
    # The SE(3) transformer's module imports them; RoseTTAFold2 pools nothing over graphs.
    vars(pooling).update(AvgPooling=None, MaxPooling=None)
    dgl = ModuleType("dgl", __doc__)
    vars(dgl).update(DGLGraph=Graph, graph=Graph, ops=operations)
    sys.modules.update({module.__name__: module for module in (dgl, operations, pooling)})
