"""Multiply-adds counted by hand, and parameters of what extraction cuts out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from supernets import BY_NAME, REFERENCES, dense_layer, linear

from oneshot.costs import Costs, count_macs
from oneshot.extraction import extract
from oneshot.jaxprs import trace, used_boxes
from oneshot.layers import Identity, OneOf
from oneshot.spaces import nb_macro
from oneshot.supernet import Supernet

SLOW = ("vit", "decoder")


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(stride=1, groups=1, padding="SAME"):
    return lambda x, w: lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# [n, h, w, out] outputs, each of k * k * (in / groups) multiply-adds.
CONVOLUTIONS = [
    (conv(), (1, 8, 8, 3), (3, 3, 3, 5), 8 * 8 * 5 * 27),
    (conv(2), (2, 8, 8, 3), (3, 3, 3, 5), 2 * 4 * 4 * 5 * 27),
    (conv(1, 6), (1, 8, 8, 6), (5, 5, 1, 6), 8 * 8 * 6 * 25),
    (conv(1, 2), (1, 4, 4, 6), (3, 3, 3, 4), 4 * 4 * 4 * 27),
    (conv(1, 1, "VALID"), (1, 8, 8, 3), (3, 3, 3, 5), 6 * 6 * 5 * 27),
]


@pytest.mark.parametrize("fn, x, w, want", CONVOLUTIONS)
def test_convolutions_count_taps_times_outputs(fn, x, w, want):
    assert count_macs(fn, zeros(*x), zeros(*w)) == want
    assert count_macs(jax.jit(fn), zeros(*x), zeros(*w)) == want


def test_products_count_outputs_times_depth():
    assert count_macs(jnp.dot, zeros(2, 3), zeros(3, 4)) == 24
    attention = count_macs(
        lambda q, k: jnp.einsum("blhd,bmhd->bhlm", q, k),
        zeros(2, 5, 3, 4),
        zeros(2, 6, 3, 4),
    )
    assert attention == 2 * 3 * 5 * 6 * 4
    assert count_macs(lambda x: x + x * x, zeros(9)) == 0


def test_a_scan_counts_as_often_as_it_runs():
    def loop(x, w):
        return lax.scan(lambda c, _: (c @ w, None), x, None, length=7)[0]

    assert count_macs(loop, zeros(2, 3), zeros(3, 3)) == 7 * 18


def test_a_conditional_counts_its_dearest_branch():
    def either(flag, x, w):
        return lax.cond(flag, lambda: x @ w @ w, lambda: x @ w)

    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    assert count_macs(either, flag, zeros(2, 3), zeros(3, 3)) == 2 * 18


def test_a_loop_of_unknown_length_counts_once():
    def loop(x, w):
        return lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w, x)

    assert count_macs(loop, zeros(2, 3), zeros(3, 3)) == 18


def test_custom_derivatives_and_checkpoints_are_looked_into():
    @jax.custom_vjp
    def f(x, w):
        return x @ w

    f.defvjp(lambda x, w: (x @ w, None), lambda r, g: (g, g))
    assert count_macs(f, zeros(2, 3), zeros(3, 4)) == 24
    assert count_macs(jax.checkpoint(f), zeros(2, 3), zeros(3, 4)) == 24
    assert count_macs(jax.vmap(jnp.dot), zeros(5, 2, 3), zeros(5, 3, 4)) == 5 * 24


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(r, marks=[pytest.mark.slow] if r.name in SLOW else [], id=r.name)
        for r in REFERENCES
    ],
)
def test_parameters_are_those_of_the_extracted_model(reference):
    net = reference.make()
    x, weights = reference.batch(2)[0], reference.weights(net)
    costs = Costs(net, x)
    for arch in reference.archs(net, 4, seed=3):
        model = extract(net, weights, arch, x, recalibrate=False)
        params = jax.tree.leaves(nnx.state(model, nnx.Param))
        assert costs.params(arch) == sum(p.size for p in params)
        run = count_macs(lambda x, m=model: m(x), x[:1])
        assert costs.macs(arch) == run


def test_costs_of_a_dense_network_by_hand():
    layers = [OneOf(skip=Identity, fc=dense_layer(8, 8))]
    net = Supernet(dense_layer(12, 8), layers, linear(8, 5))
    costs = Costs(net, np.ones((64, 12), np.float32))
    ends = (12 * 8 + 8 + 16) + (8 * 5 + 5)  # weights, bias, norm; weights, bias
    assert costs((0,)) == {"params": ends, "macs": 96 + 40, "depth": 2}
    assert costs((1,)) == {"params": ends + 88, "macs": 96 + 64 + 40, "depth": 3}


def test_elastic_slices_cost_what_they_are():
    reference = BY_NAME["elastic_width"]
    net = reference.make()
    costs = Costs(net, reference.batch()[0])
    for width in (4, 6, 9):
        wide = {"width": width, "layer0.op": "wide", "layer1.op": "skip"}
        got = costs(net.space.arch(wide))
        products = 12 * width + width * width + width * 5
        assert got["macs"] == products
        assert got["params"] == products + 2 * 2 * width + 5


def test_costs_do_not_depend_on_the_batch():
    reference = BY_NAME["tiny"]
    net = reference.make()
    arch = reference.archs(net, 1)[0]
    a, b = (Costs(net, reference.batch(n)[0])(arch) for n in (1, 5))
    assert a == b


def test_only_static_slices_narrow_what_is_read():
    def read(w):
        first = lax.slice(w, (0, 0), (2, 3))
        return (first.sum() + jax.jit(lambda v: lax.slice(v, (1, 0), (3, 2)).sum())(w),)

    assert used_boxes(trace(read, zeros(4, 5)), 1) == [((0, 3), (0, 3))]
    assert used_boxes(trace(lambda w: w * 2, zeros(4)), 1) == [((0, 4),)]
    assert used_boxes(trace(lambda w, v: v, zeros(4), zeros(2)), 2) == [None, ((0, 2),)]
    gathered = trace(lambda w: w[jnp.array([0, 1])], zeros(4, 2))
    assert used_boxes(gathered, 1) == [((0, 4), (0, 2))]


def test_nb_macro_costs_what_the_published_table_says(data_dir):
    table_file = data_dir / "nas_bench_macro.npz"
    if not table_file.exists():
        pytest.skip(f"needs {table_file}")
    table = np.load(table_file)
    costs = Costs(nb_macro(), zeros(1, 32, 32, 3))
    codes = [tuple(map(int, code)) for code in table["arch"]]
    assert len(set(codes)) == 6561
    got = np.array([[costs.params(c), costs.macs(c)] for c in codes])
    np.testing.assert_array_equal(got[:, 0], table["params"])
    np.testing.assert_array_equal(got[:, 1], table["flops"])
