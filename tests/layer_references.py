"""What operations and blocks are compared with, and how."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

import oneshot.nn as on

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


def elastic(stride):
    return build(
        lambda: on.ElasticInvertedResidual(
            4, 4, expand=(2, 3, 4), kernel=(3, 5, 7), stride=stride, rngs=nnx.Rngs(0)
        )
    )
