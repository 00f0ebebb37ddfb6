"""NAS-Bench-201's space: its table, its network in torch, and equal cells."""

import itertools

import jax
import numpy as np
import pytest

from oneshot.cost_tables import CostTables
from oneshot.costs import Costs
from oneshot.elimination import total
from oneshot.spaces import cell201
from oneshot.spaces.cell201 import average_pool
from oneshot.spaces.cell201_symmetry import (
    EDGES,
    OPERATIONS,
    canonical_cell,
    network,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def small():
    return cell201(size="tiny", channels=4, cells=2, stages=2, impl="lax")


@pytest.mark.slow
def test_parameters_and_multiply_adds_are_the_tables_of_all_15625_cells(data_dir):
    path = data_dir / "nas_bench_201.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there.")
    table = np.load(path)
    archs, net = table["arch"], cell201()
    assert tuple(table["ops"]) == OPERATIONS == net.space.choices[0].options
    names = [f"{source}->{target}" for source, target in EDGES]
    assert [choice.name for choice in net.space.choices] == names
    tables, costs = CostTables(net, IMAGE), Costs(net, IMAGE)
    for cost in ("params", "macs"):
        np.testing.assert_array_equal(tables.values(cost, archs), table[cost])
        grid = total(tables.tables(cost), tuple(range(6)))
        np.testing.assert_array_equal(grid[tuple(archs.T)], table[cost])
    for i in (0, 1234, 15624):  # and block by block
        assert costs(archs[i])["params"] == table["params"][i]
        assert costs(archs[i])["macs"] == table["macs"][i]


@pytest.mark.slow
def test_all_conv3x3_costs_what_the_benchmark_says():
    tables = CostTables(cell201(), IMAGE)
    ends = tables.ends("macs")
    assert (ends.greatest, ends.largest) == (220_119_680, (3,) * 6)
    assert tables.ends("params").greatest == 1_531_546


def test_equal_layers_of_all_cells_share_programs(small):
    assert len(small.space.choices) == 6
    # 6 edges: 2 convolutions for each width; skip and pool alike in both stages.
    edges = 6 * (2 * 2 + 2)
    assert len(set(small.structures.values())) == edges + len(
        ("stem", "open", "reduction", "head")
    )


def test_average_pool_leaves_out_what_is_outside():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    want = F.avg_pool2d(
        torch.tensor(x).permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False
    )
    np.testing.assert_allclose(average_pool(x), want.permute(0, 2, 3, 1), atol=1e-6)


def conv_norm(x, conv, norm, stride=1):
    """A convolution and a norm by the batch, in torch."""
    kernel = torch.tensor(np.asarray(conv["kernel"]))
    kernel = kernel[None, None] if kernel.ndim == 2 else kernel
    pad = kernel.shape[0] // 2
    y = F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=pad)
    if norm is None:
        return y
    scale, bias = (torch.tensor(np.asarray(norm[k])) for k in ("scale", "bias"))
    return F.batch_norm(y, None, None, scale, bias, training=True)


def in_torch(net, params, arch, x):
    """The network of an arch as the paper describes it."""
    h = torch.tensor(x).permute(0, 3, 1, 2)
    h = conv_norm(h, **params["stem"]["conv"])
    for stage in (1, 2):
        if stage > 1:
            own = params["reduce1"]
            y = conv_norm(F.relu(h), **own["first"], stride=2)
            y = conv_norm(F.relu(y), **own["second"])
            h = y + conv_norm(F.avg_pool2d(h, 2), own["shortcut"], None)
        for cell in range(2):
            nodes = [h, 0 * h, 0 * h, 0 * h]
            for (source, target), option in zip(EDGES, arch, strict=True):
                name, term = OPERATIONS[option], nodes[source]
                if name == "none":
                    continue
                if name == "avg_pool_3x3":
                    term = F.avg_pool2d(term, 3, 1, 1, count_include_pad=False)
                if name.startswith("nor_conv"):
                    own = params[f"stage{stage}.{cell}.{source}->{target}.{name}"]
                    term = conv_norm(F.relu(term), **own["conv"])
                nodes[target] = nodes[target] + term
            h = nodes[3]
    scale, bias = (torch.tensor(np.asarray(params["head"]["norm"][k])) for k in
                   ("scale", "bias"))  # fmt: skip
    h = F.relu(F.batch_norm(h, None, None, scale, bias, training=True)).mean((2, 3))
    linear = params["head"]["linear"]
    weights = [torch.tensor(np.asarray(linear[k])) for k in ("kernel", "bias")]
    return h @ weights[0] + weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [(3, 1, 2, 4, 0, 3)])
def test_the_network_is_that_of_the_paper(small, arch):
    rng = np.random.default_rng(1)
    weights = jax.tree.map(
        lambda a: rng.normal(0.3, 0.3, a.shape).astype(np.float32), small.abstract()
    )
    x = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
    got, _ = small.apply(*weights, arch, x, train=True)
    want = in_torch(small, weights.params, arch, x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_images_that_cannot_be_halved_are_refused(small):
    with pytest.raises(ValueError, match="multiples of 4"):
        CostTables(small, jax.ShapeDtypeStruct((1, 7, 8, 3), np.float32)).ends("macs")
    with pytest.raises(ValueError, match="'tiny', 'published'"):
        cell201(size="huge")
    with pytest.raises(ValueError, match="cells=0"):
        cell201(cells=0)


def expression(arch):
    """A cell as the benchmark's authors count it: each node as a text of its edges."""
    nodes = ["0"]
    for node in (1, 2, 3):
        terms = []
        for (source, target), option in zip(EDGES, arch, strict=True):
            name, inner = OPERATIONS[option], nodes[min(source, len(nodes) - 1)]
            if target == node and (name == "none" or inner == "#"):
                terms.append("#")  # a sum "#+#" does not count as nothing
            elif target == node:
                terms.append(inner if name == "skip_connect" else f"({inner})@{name}")
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


def test_the_published_number_of_unique_cells_is_that_of_expressions():
    archs = list(itertools.product(range(5), repeat=6))
    assert len(archs) == 15_625
    assert len({expression(arch) for arch in archs}) == 6_466
    assert len({canonical_cell(None, arch) for arch in archs}) == 5_224


def test_canonical_cells_are_their_own_representatives():
    for arch in [(3, 3, 3, 3, 3, 3), (4, 1, 0, 2, 0, 3), (1, 1, 1, 1, 1, 1)]:
        first = canonical_cell(None, arch)
        assert canonical_cell(None, first) == first <= arch


@pytest.mark.parametrize(
    "a, b",
    [
        # 0->1 reaches nothing, or reaches it along another identity
        ((3, 0, 0, 1, 0, 0), (0, 0, 0, 1, 0, 0)),
        ((3, 0, 0, 0, 1, 0), (0, 3, 0, 0, 0, 1)),
        # sums of terms in another order; the pooled sum
        ((2, 3, 0, 0, 1, 1), (3, 2, 0, 0, 1, 1)),
        ((1, 0, 0, 1, 4, 0), (0, 1, 0, 4, 0, 1)),
        ((1, 4, 1, 0, 0, 4), (4, 1, 1, 0, 0, 4)),
    ],
)
def test_cells_of_one_network(a, b):
    assert canonical_cell(None, a) == canonical_cell(None, b)


def test_a_shared_convolution_is_not_two():
    shared = (3, 0, 1, 0, 2, 3)  # both 1->3 and 2->3 read one convolution
    apart = (3, 3, 0, 0, 2, 3)
    assert network(shared) != network(apart)
    # and a norm after a convolution of nothing still adds its bias
    assert network((0, 0, 0, 1, 3, 0)) != network((0, 0, 0, 1, 0, 0))
    assert network((0, 0, 0, 1, 3, 0)) == network((0, 0, 0, 1, 2, 0))


def test_what_is_the_same_at_every_pixel_stays_so():
    offset = (0, 2, 0, 1, 0, 1)  # of the norm of 0->2, whose input is the cell's
    assert network(offset) != network((0, 2, 0, 1, 0, 4))
    offset = (0, 0, 3, 1, 0, 1)  # of the norm of 1->2, whose input is nothing
    assert network(offset) == network((0, 0, 3, 1, 0, 4))  # averaged
    assert network(offset) == network((0, 0, 3, 1, 0, 2))  # of another norm
    assert network(offset) != network((0, 0, 3, 1, 0, 3))  # with zeros around it
