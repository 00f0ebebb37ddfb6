"""Operations and blocks against plain lax, `nnx` and JAX's own derivatives."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import oneshot.nn as on
from oneshot.nn import groups
from oneshot.nn.norm import batch_norm_train
from oneshot.nn.slab_weights import slab_width, slabs_pay

# The references below are written as in a textbook; the library is held to strict
# ranks wherever it runs outside them.
textbook = jax.numpy_rank_promotion("allow")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def reference_conv(x, w, stride):
    """Any of the kernels `[k, k, c]`, `[in, out]`, `[k, k, in, out]`, by plain lax."""
    groups = 1
    if w.ndim == 2:
        w = w[None, None]
    elif w.ndim == 3:
        w, groups = w[:, :, None], x.shape[-1]
    pad = w.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        [(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def build(make):
    """A module with weights from numpy: initialisers would compile for each shape."""
    graph, state = nnx.split(nnx.eval_shape(make))

    def fill(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.random.key(0) if leaf.dtype != jnp.uint32 else jnp.uint32(0)
        noise = normal(leaf.size, *leaf.shape)
        if len(leaf.shape) > 1:
            return noise * (2 / leaf.shape[0]) ** 0.5
        return 1 + 0.1 * noise

    return nnx.merge(graph, jax.tree.map(fill, state))


def evaluate(module, x, **options):
    """The compiled output of `module` as it is."""
    graph, state = nnx.split(module)
    return jax.jit(lambda s, x: nnx.merge(graph, s, copy=True)(x, **options))(state, x)


def value_and_vjp(f, *args):
    """`f(*args)` and the gradients for a fixed random cotangent, compiled."""

    def both(*args):
        y, vjp = jax.vjp(f, *args)
        ct = [normal(9 + i, *leaf.shape) for i, leaf in enumerate(jax.tree.leaves(y))]
        return y, vjp(jax.tree.unflatten(jax.tree.structure(y), ct))

    return jax.jit(both)(*args)


def close(got, want, tolerance=2e-4):
    def check(a, b):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)

    jax.tree.map(check, got, want)


@pytest.mark.parametrize(
    "kernel, stride, size, impl",
    [
        *((k, s, (7, 7), "shift") for k in (3, 5, 7) for s in (1, 2)),
        (3, 2, (5, 8), "shift"),
        (5, 1, (1, 2), "shift"),
        (5, 2, (6, 6), "shift"),
        (3, 3, (8, 7), "shift"),
        (3, 1, (6, 6), "lax"),
        (5, 2, (7, 7), "lax"),
    ],
)
def test_depthwise_conv(kernel, stride, size, impl):
    x, w = normal(0, 4, *size, 6), normal(1, kernel, kernel, 6)
    got = value_and_vjp(lambda x, w: on.depthwise_conv(x, w, stride, impl), x, w)
    close(got, value_and_vjp(lambda x, w: reference_conv(x, w, stride), x, w))
    assert got[0].shape[1:3] == tuple(-(-s // stride) for s in size)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size, channels", [(32, 36), (9, 500), (4, 2200)])
def test_depthwise_conv_of_arrays_larger_than_the_caches(size, channels, stride):
    # By groups of images; the first and second with the weight gradient by rows.
    x, w = normal(0, 32, size, size, channels), normal(1, 3, 3, channels)
    assert x.nbytes > groups._SMALL_BYTES
    got = value_and_vjp(lambda x, w: on.depthwise_conv(x, w, stride, "shift"), x, w)

    def plain(x, w):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        end = stride * (got[0].shape[1] - 1) + 1
        return sum(
            padded[:, i : i + end : stride, j : j + end : stride]
            * w[None, i, j][None, None]
            for i, j in itertools.product(range(3), repeat=2)
        )

    close(got, value_and_vjp(plain, x, w))


@pytest.mark.parametrize(
    "stride, size, impl",
    [(1, 4, "shift"), (2, 4, "shift"), (2, 7, "shift"), (3, 5, "shift"), (2, 7, "lax")],
)
def test_pointwise_conv(stride, size, impl):
    x, w = normal(0, 3, size, size, 5), normal(1, 5, 8)
    got = value_and_vjp(lambda x, w: on.pointwise_conv(x, w, stride, impl), x, w)
    close(got, value_and_vjp(lambda x, w: reference_conv(x, w, stride), x, w))


def test_operations_under_vmap():
    x, w = normal(0, 2, 3, 6, 6, 4), normal(1, 2, 3, 3, 4)
    v = normal(2, 2, 4, 5)

    def gradients(conv, pointwise):
        def f(x, w, v):
            return (pointwise(conv(x, w, 2), v, 1) ** 2).sum()

        return jax.jit(jax.vmap(jax.grad(f, (0, 1, 2))))(x, w, v)

    close(
        gradients(on.depthwise_conv, on.pointwise_conv),
        gradients(reference_conv, reference_conv),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel, stride, channels", [(1, 2, 3), (3, 1, 3), (3, 2, 3), (5, 2, 1), (3, 2, 8)]
)
def test_conv(kernel, stride, channels):
    conv = build(lambda: on.Conv(channels, 16, kernel, stride, rngs=nnx.Rngs(0)))
    graph, params = nnx.split(conv)

    def f(params, x):
        return nnx.merge(graph, params)(x)

    x = normal(1, 2, 9, 9, channels)
    got_y, (got_w, got_x) = value_and_vjp(f, params, x)
    want_y, (want_w, want_x) = value_and_vjp(
        lambda w, x: reference_conv(x, w, stride), conv.kernel[...], x
    )
    close((got_y, got_w["kernel"][...], got_x), (want_y, want_w, want_x))


def test_unfit_arguments_are_refused():
    with pytest.raises(ValueError, match="impl must be one of"):
        on.resolve("fast")
    with pytest.raises(ValueError, match="odd size"):
        on.depthwise_conv(normal(0, 1, 4, 4, 2), normal(0, 2, 2, 2))
    with pytest.raises(ValueError, match="x has shape"):
        on.pointwise_conv(normal(0, 1, 4, 4, 2), normal(0, 3, 2))
    with pytest.raises(ValueError, match="at most 4 channels"):
        on.BatchNorm(4)(normal(0, 2, 5))
    with pytest.raises(ValueError, match="offers expand in"):
        elastic(1)(normal(0, 1, 4, 4, 4), expand=5, kernel=3)


def norms(momentum=0.9, relu=False):
    ours = on.BatchNorm(6, momentum=momentum, relu=relu)
    theirs = nnx.BatchNorm(6, momentum=momentum, epsilon=1e-5, rngs=nnx.Rngs(0))
    for norm in (ours, theirs):
        norm.scale[...] = 1 + 0.3 * normal(1, 6)
        norm.bias[...] = normal(2, 6)
        norm.mean[...] = normal(3, 6)
        norm.var[...] = jnp.exp(normal(4, 6))
    return ours, theirs


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("shape", [(5, 6), (4, 3, 3, 6)])
def test_batch_norm_is_nnx_batch_norm(momentum, shape):
    ours, theirs = norms(momentum)
    x = 2 + normal(0, *shape)
    for mode in ("train", "eval", "train"):
        getattr(ours, mode)()
        getattr(theirs, mode)()
        close(ours(x), theirs(x))
        for name in ("mean", "var", "scale", "bias"):
            close(getattr(ours, name)[...], getattr(theirs, name)[...])
    if momentum == 0:
        axes = tuple(range(x.ndim - 1))
        close((ours.mean[...], ours.var[...]), (x.mean(axes), x.var(axes)))


@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_gradients(relu):
    @textbook
    def plain(x, scale, bias):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias
        return (jax.nn.relu(y) if relu else y), mean, var

    args = (3 + normal(0, 4, 5, 5, 6), 1 + 0.5 * normal(1, 6), normal(2, 6))
    got = value_and_vjp(lambda *a: batch_norm_train(*a, 1e-5, relu), *args)
    close(got, value_and_vjp(plain, *args))


def test_batch_norm_does_not_cancel():
    x = 1000 + 0.1 * normal(0, 64, 8, 8, 4)
    _, mean, var = jax.jit(batch_norm_train)(x, jnp.ones(4), jnp.zeros(4))
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-3)


def test_batch_norm_of_fewer_channels_touches_only_those():
    wide, _ = norms()
    narrow = on.BatchNorm(4)
    for name in ("mean", "var", "scale", "bias"):
        getattr(narrow, name)[...] = getattr(wide, name)[:4]
    rest = (wide.mean[4:], wide.var[4:])
    x = normal(0, 8, 4)
    close(wide(x), narrow(x))
    close((wide.mean[:4], wide.var[:4]), (narrow.mean[...], narrow.var[...]))
    close((wide.mean[4:], wide.var[4:]), rest, 0)
    wide.eval(), narrow.eval()
    close(wide(x), narrow(x))


def run(module, x, **options):
    """Output, gradients and new statistics of one training step of `module`."""
    graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)

    def f(params, x):
        merged = nnx.merge(graph, params, stats, copy=True)
        y = merged(x, **options)
        return y, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

    def both(params, x):
        y, vjp, new = jax.vjp(f, params, x, has_aux=True)
        grad_params, grad_x = vjp(normal(8, *y.shape))
        return y, nnx.to_pure_dict(grad_params), grad_x, new

    return jax.jit(both)(params, x)


def inverted_residual(width, out, expand, kernel, stride=1, impl="auto"):
    return build(
        lambda: on.InvertedResidual(
            width,
            out,
            expand=expand,
            kernel=kernel,
            stride=stride,
            rngs=nnx.Rngs(0),
            impl=impl,
        )
    )


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


def elastic(stride):
    return build(
        lambda: on.ElasticInvertedResidual(
            4, 4, expand=(2, 3, 4), kernel=(3, 5, 7), stride=stride, rngs=nnx.Rngs(0)
        )
    )


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
