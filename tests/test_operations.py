"""Operations and norms against plain lax, `nnx` and JAX's own derivatives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from layer_references import (
    build,
    close,
    elastic,
    normal,
    reference_conv,
    textbook,
    value_and_vjp,
)

import oneshot.nn as on
from oneshot.nn import groups
from oneshot.nn.norm import batch_norm_train


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
