"""Compare the operations of drivers/graphs.py with others: those on whole matrices (`dense`), or those of dgl (`dgl`).

Runs in the engine's Python. The second argument is a folder for what dgl writes.
"""

# pyright: reportMissingImports=false
import os
import sys
from pathlib import Path

# Else dgl writes a file into the home folder.
os.environ.update(DGLBACKEND="pytorch", DGLDEFAULTDIR=sys.argv[2])
sys.path.insert(0, str(Path(__file__).parents[2] / "snakefold" / "engines" / "drivers"))

import graphs
import torch
from torch.testing import assert_close


class Dense:
    """By a matrix that has a row for each node, a column for each edge, and ones where the edge ends at the node."""

    def __init__(self, ends, *, num_nodes):
        self.meets = ends[1] == torch.arange(num_nodes)[:, None]

    def copy_e_sum(self, values):
        return torch.einsum("ne,e...->n...", self.meets.to(values.dtype), values)

    def e_dot_v(self, edges, nodes):
        products = torch.einsum("e...c,n...c->ne...", edges, nodes)
        return (products * self.meets[..., None]).sum(0)[..., None]

    def edge_softmax(self, logits):
        each = torch.where(self.meets[..., None], logits, -torch.inf).softmax(1)
        return each.nan_to_num().sum(0)


class Dgl:
    """By dgl itself."""

    def __init__(self, ends, *, num_nodes):
        import dgl

        self.of = {name: getattr(dgl.ops, name) for name in ("copy_e_sum", "e_dot_v", "edge_softmax")}
        self.graph = dgl.graph(ends, num_nodes=num_nodes)

    def __getattr__(self, name):
        return lambda *values: self.of[name](self.graph, *values)


def drawn(nodes: int, edges: int, draw: torch.Generator):
    """A graph with edges to all nodes but the last, some of them more than once, and what its operations work on."""
    ends = torch.randint(nodes - 1, (2, edges), generator=draw)
    shapes = {
        "copy_e_sum": [(edges, 4, 3, 5)],
        "e_dot_v": [(edges, 4, 12), (nodes, 4, 12)],
        "edge_softmax": [(edges, 4)],
    }
    inputs = {name: [3 * torch.randn(shape, generator=draw) for shape in each] for name, each in shapes.items()}
    return tuple(ends), inputs


draw = torch.Generator().manual_seed(0)
other = {"dense": Dense, "dgl": Dgl}[sys.argv[1]]
for nodes, edges in ((2, 1), (12, 40), (60, 3000)):
    ends, inputs = drawn(nodes, edges, draw)
    graph = graphs.Graph(ends, num_nodes=nodes).to("cpu")
    assert all(torch.equal(one, two) for one, two in zip(graph.edges(), ends, strict=True))
    for name, values in inputs.items():
        operation = getattr(graphs, name)
        found = operation(graph, *values)
        assert torch.equal(found, operation(graphs.Graph(ends, num_nodes=nodes), *values))
        assert_close(found, getattr(other(ends, num_nodes=nodes), name)(*values), rtol=1e-5, atol=1e-5)
        # Numbers of 16 bits come out as such, as close as those can be, also where PyTorch is to compute with 16 bits.
        for short in (torch.float16, torch.bfloat16):
            rounded = [each.to(short) for each in values]
            with torch.autocast("cpu", dtype=short):
                of_short = operation(graph, *rounded)
            exact = operation(graph, *(each.float() for each in rounded))
            assert of_short.dtype == short
            assert_close(of_short.float(), exact, rtol=torch.finfo(short).eps, atol=1e-5)
try:
    graphs.copy_e_sum(graphs.Graph((torch.tensor([0]), torch.tensor([3])), num_nodes=3), torch.ones(1, 1))
except ValueError as error:
    assert str(error) == "an edge ends at node 3 of a graph of 3 nodes"
else:
    raise AssertionError("an edge to nowhere was taken")
