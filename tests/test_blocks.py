"""Blocks against their definitions by plain operations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from layer_references import (
    build,
    close,
    elastic,
    evaluate,
    inverted_residual,
    normal,
    reference_conv,
    run,
    textbook,
    value_and_vjp,
)

import oneshot.nn as on
from oneshot.nn.slab_weights import slab_width, slabs_pay


@textbook
def reference_inverted_residual(block, x):
    """The block's definition over its own weights, by plain operations."""

    def norm(x, module):
        y = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + module.epsilon)
        return y * module.scale[...] + module.bias[...]

    y = reference_conv(x, block.expand_kernel[...], 1)
    y = jax.nn.relu(norm(y, block.expand_norm))
    y = reference_conv(y, block.depthwise_kernel[...], block.stride)
    y = jax.nn.relu(norm(y, block.depthwise_norm))
    y = norm(reference_conv(y, block.project_kernel[...], 1), block.project_norm)
    return x + y if x.shape == y.shape else y


@pytest.mark.slow
@pytest.mark.parametrize(
    "out, kernel, stride, impl",
    [
        (4, 5, 1, "shift"),  # by slabs
        (6, 5, 1, "shift"),
        (4, 5, 2, "shift"),
        (4, 3, 2, "shift"),  # one operation after another
        (4, 5, 2, "lax"),
    ],
)
def test_inverted_residual(out, kernel, stride, impl):
    block = inverted_residual(4, out, 3, kernel, stride, impl)
    x = normal(1, 8, 7, 7, 4)
    graph, params, rest = nnx.split(block, nnx.Param, ...)

    def plain(params, x):
        return reference_inverted_residual(nnx.merge(graph, params, rest), x)

    def ours(params, x):
        return nnx.merge(graph, params, rest, copy=True)(x)

    got, want = (value_and_vjp(f, params, x) for f in (ours, plain))
    close((got[0], got[1][1]), (want[0], want[1][1]))
    close(nnx.to_pure_dict(got[1][0]), nnx.to_pure_dict(want[1][0]))


def test_inverted_residual_keeps_nothing_of_the_hidden_size():
    block = inverted_residual(4, 4, 3, 5)
    graph, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)
    x = normal(1, 8, 6, 6, 4)

    def residuals(params, x):
        def f(params, x):
            return nnx.merge(graph, params, stats, copy=True)(x)

        return jax.vjp(f, params, x)[1]

    shapes = [
        leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(residuals, params, x))
    ]
    # The input and the output of the last convolution.
    assert [s for s in shapes if len(s) == 4] == [(8, 6, 6, 4)] * 2
    assert max(map(math.prod, shapes)) == 8 * 6 * 6 * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, width, expand, kernel, stride",
    [(32, 16, 3, 3, 2), (32, 16, 2, 5, 1), (9, 64, 6, 5, 2), (4, 128, 6, 5, 1)],
)
def test_inverted_residual_of_several_slabs(size, width, expand, kernel, stride):
    block = inverted_residual(width, width, expand, kernel, stride, "shift")
    plain = inverted_residual(width, width, expand, kernel, stride, "lax")
    x = 3 + normal(1, 64, size, size, width)
    assert slab_width(width * expand, 64 * size**2) < width * expand
    assert slabs_pay((kernel, kernel, width * expand), x.shape)
    got, want = jax.tree.leaves(run(block, x)), jax.tree.leaves(run(plain, x))
    for a, b in zip(got, want, strict=True):
        # By norm: of so many pixels one may lie on either side of a ReLU's kink.
        assert np.linalg.norm(a - b) < 2e-3 * np.linalg.norm(b)


@pytest.mark.parametrize("kernel", [3, 5])
def test_hidden_statistics_do_not_cancel(kernel):
    block = inverted_residual(4, 4, 3, kernel)
    block.depthwise_norm.momentum = 0.0
    # A hidden channel far from zero, with little variance: the ReLU passes all of it.
    block.expand_norm.bias[...] = jnp.full(12, 1000.0)
    middle = kernel // 2
    block.depthwise_kernel[...] = (
        jnp.zeros((kernel, kernel, 12)).at[middle, middle].set(1.0)
    )
    *_, stats = run(block, normal(1, 32, 6, 6, 4))
    want = np.square(block.expand_norm.scale[...])
    np.testing.assert_allclose(stats["depthwise_norm"]["var"], want, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("expand, kernel, stride", [(4, 7, 1), (2, 3, 1), (3, 5, 2)])
def test_elastic_inverted_residual_is_the_sliced_block(expand, kernel, stride):
    block = elastic(stride)
    plain = inverted_residual(4, 4, expand, kernel, stride)
    hidden, low = 4 * expand, (7 - kernel) // 2
    centre = slice(low, low + kernel)
    index = {
        "expand_kernel": np.s_[:, :hidden],
        "depthwise_kernel": np.s_[centre, centre, :hidden],
        "project_kernel": np.s_[:hidden],
        "expand_norm": np.s_[:hidden],
        "depthwise_norm": np.s_[:hidden],
        "project_norm": np.s_[:],
    }

    def sliced(state):
        return {
            name: jax.tree.map(
                lambda v, name=name: jnp.asarray(np.asarray(v)[index[name]]), value
            )
            for name, value in state.items()
        }

    for kind in (nnx.Param, nnx.BatchStat):
        nnx.update(plain, sliced(nnx.to_pure_dict(nnx.state(block, kind))))
    x = normal(2, 4, 7, 7, 4)
    y, grad_params, grad_x, stats = run(block, x, expand=expand, kernel=kernel)
    want, want_params, want_x, want_stats = run(plain, x)
    close((y, grad_x), (want, want_x))
    close(sliced(grad_params), want_params)
    close(sliced(stats), want_stats)
    # Weights outside the slice get exactly zero.
    for name, gradient in grad_params.items():
        for leaf in jax.tree.leaves(gradient):
            outside = np.array(leaf)
            outside[index[name]] = 0
            assert not outside.any()
    block.eval(), plain.eval()
    nnx.update(block, stats)
    nnx.update(plain, want_stats)
    close(evaluate(block, x, expand=expand, kernel=kernel), evaluate(plain, x))


def test_elastic_slices_are_taken_of_the_parameters_themselves():
    block = elastic(1)
    graph, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    def f(params, x):
        return nnx.merge(graph, params, stats, copy=True)(x, expand=2, kernel=3)

    jaxpr = jax.make_jaxpr(f)(params, normal(0, 2, 5, 5, 4)).jaxpr
    sliced = {e.invars[0] for e in jaxpr.eqns if e.primitive.name == "slice"}
    kernels = [v for v in jaxpr.invars[:-1] if v.aval.ndim > 1]
    assert len(kernels) == 3 and set(kernels) <= sliced


def transformer(heads, mlp, **options):
    return build(
        lambda: on.ElasticTransformerBlock(
            16, heads=heads, mlp=mlp, head_size=4, rngs=nnx.Rngs(0), **options
        )
    )


@textbook
def reference_transformer(block, x, heads, mlp):
    """The block's definition over its own weights, by plain operations."""

    def norm(x, scale, bias):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale + bias

    inner, hidden = heads * block.head_size, int(block.width * mlp)
    y = norm(x, block.attention_scale[...], block.attention_bias[...])
    q, k, v = (
        (y @ w[:, :inner]).reshape(*x.shape[:2], heads, block.head_size)
        for w in (block.query, block.key, block.value)
    )
    y = jax.nn.dot_product_attention(q, k, v, is_causal=block.causal)
    x = x + y.reshape(*x.shape[:2], inner) @ block.attention_out[:inner]
    y = norm(x, block.mlp_scale[...], block.mlp_bias[...])
    y = jax.nn.gelu(y @ block.up[:, :hidden] + block.up_bias[:hidden])
    return x + y @ block.down[:hidden] + block.down_bias[...]


@pytest.mark.slow
@pytest.mark.parametrize("heads, mlp, causal", [(4, 4.0, True), (2, 2.5, False)])
def test_transformer_block(heads, mlp, causal):
    block = transformer((2, 4), (2.5, 4.0), causal=causal)
    graph, params = nnx.split(block)
    x = normal(1, 2, 5, 16)

    def ours(params, x):
        return nnx.merge(graph, params)(x, heads=heads, mlp=mlp)

    def plain(params, x):
        return reference_transformer(nnx.merge(graph, params), x, heads, mlp)

    got, want = (value_and_vjp(f, params, x) for f in (ours, plain))
    close(nnx.to_pure_dict(got[1][0]), nnx.to_pure_dict(want[1][0]))
    close((got[0], got[1][1]), (want[0], want[1][1]))


def test_transformer_dropout_acts_in_training_only():
    block = transformer((4,), (4.0,), dropout=0.5)
    x = normal(1, 2, 5, 16)
    block.train()
    plain = transformer((4,), (4.0,))
    sizes = {"heads": 4, "mlp": 4.0}
    dropped, whole = (evaluate(m, x, **sizes) for m in (block, plain))
    assert not np.allclose(dropped, whole)
    block.eval()
    close(evaluate(block, x, **sizes), whole)


needs_4_devices = pytest.mark.skipif(
    jax.device_count() < 4,
    reason="needs 4 devices: XLA_FLAGS=--xla_force_host_platform_device_count=4",
)


def shardings():
    mesh = jax.make_mesh(
        (4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4]
    )
    return (
        NamedSharding(mesh, PartitionSpec("data")),
        NamedSharding(mesh, PartitionSpec()),
    )


@pytest.mark.slow
@needs_4_devices
@pytest.mark.parametrize("kernel", [3, 5])  # 5 goes by slabs
@pytest.mark.parametrize("stride", [1, 2])
def test_block_of_a_sharded_batch_gives_the_same(stride, kernel):
    block = inverted_residual(8, 8, 3, kernel, stride)
    x = normal(1, 16, 6, 6, 8)
    want = run(block, x)
    data, everywhere = shardings()
    graph, state = nnx.split(block)
    block = nnx.merge(graph, jax.device_put(state, everywhere))
    got = run(block, jax.device_put(x, data))
    close(got, want)
    assert got[0].sharding.spec[0] == got[2].sharding.spec[0] == "data"


@pytest.mark.slow
@needs_4_devices
@pytest.mark.parametrize("size, channels", [(32, 36), (4, 2200)])
def test_large_depthwise_conv_of_a_sharded_batch_moves_no_images(size, channels):
    x, w = normal(0, 32, size, size, channels), normal(1, 3, 3, channels)

    def f(x, w):
        y, vjp = jax.vjp(lambda x, w: on.depthwise_conv(x, w, 1, "shift"), x, w)
        return y, *vjp(y)

    want = jax.jit(f)(x, w)
    data, everywhere = shardings()
    args = jax.device_put((x, w), (data, everywhere))
    compiled = jax.jit(f).lower(*args).compile()
    close(compiled(*args), want)
    program = compiled.as_text()
    assert " while(" in program
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in program
    (reduced,) = [line for line in program.splitlines() if " all-reduce(" in line]
    assert f"f32[3,3,{channels}]" in reduced
