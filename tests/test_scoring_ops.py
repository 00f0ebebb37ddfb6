"""Blocks in scoring's two modes: against plain operations, in shape, on devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import oneshot.nn as on
from oneshot.functional import functional
from oneshot.nn import tiles
from oneshot.nn.calibrate import calibrates
from oneshot.nn.frozen import folds
from oneshot.spaces.nb_macro import Head


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Residual(nnx.Module):
    """An elastic block called with one of its options."""

    def __init__(self, rngs, impl):
        self.block = on.ElasticInvertedResidual(
            8, 8, expand=(2, 3, 6), kernel=(3, 5), rngs=rngs, impl=impl
        )

    def __call__(self, x):
        return self.block(x, expand=3, kernel=3)


def inverted(out, expand, kernel, stride):
    def make(impl):
        return lambda rngs: on.InvertedResidual(
            8, out, expand=expand, kernel=kernel, stride=stride, rngs=rngs, impl=impl
        )

    return make


BLOCKS = {
    "k3": inverted(8, 3, 3, 1),
    "k5": inverted(8, 6, 5, 1),
    "k7_wide": inverted(12, 30, 7, 1),  # 240 channels: four tiles of 60
    "stride": inverted(12, 3, 5, 2),
    "elastic": lambda impl: lambda rngs: Residual(rngs, impl),
    "stem": lambda impl: lambda rngs: on.ConvBN(8, 6, 3, rngs=rngs, impl=impl),
    "few": lambda impl: lambda rngs: on.ConvBN(3, 6, 3, 2, rngs=rngs, impl=impl),
    "skip": lambda impl: (
        lambda rngs: on.ConvBN(8, 6, 1, 2, relu=False, rngs=rngs, impl=impl)
    ),
    "head": lambda impl: lambda rngs: Head(8, 24, 5, rngs=rngs, impl=impl),
}


def block(name, impl="shift"):
    """The block's function, parameters and state, from numpy and the same for all."""
    module = functional(name, BLOCKS[name](impl))

    def fill(leaf):
        noise = normal(leaf.size, *leaf.shape)
        return 0.4 * noise if len(leaf.shape) > 1 else 1 + 0.3 * jnp.abs(noise)

    params, state = jax.tree.map(fill, (module.params, module.state))
    return module, params, state


def run(name, x, mode, impl="shift"):
    module, params, state = block(name, impl)
    return jax.jit(lambda p, s, x: module.apply(p, s, x, mode=mode))(params, state, x)


def images(name, n, seed=1):
    return normal(seed, n, 9, 9, 3 if name == "few" else 8)


def close(got, want, tolerance):
    def check(a, b):
        scale = max(1e-3, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)

    jax.tree.map(check, got, want)


@pytest.mark.parametrize("mode", ["eval", "calibrate"])
@pytest.mark.parametrize("name", BLOCKS)
def test_scoring_is_the_plain_block(name, mode):
    x = images(name, 7)
    got, want = (run(name, x, mode, impl) for impl in ("shift", "lax"))
    close(got, want, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 7, 30, 256])
def test_any_number_of_images(n):
    x = images("k7_wide", n)
    for mode in ("eval", "calibrate"):
        got, want = (run("k7_wide", x, mode, impl) for impl in ("shift", "lax"))
        close(got, want, 2e-5)


def exact_statistics(params, x, stride, epsilon=1e-5):
    """Statistics of an inverted residual's norms, in float64 by the definition."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def norm(y, name, relu):
        mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
        y = (y - mean) / np.sqrt(var + epsilon) * p[name]["scale"] + p[name]["bias"]
        return (np.maximum(y, 0) if relu else y), {"mean": mean, "var": var}

    y = np.asarray(x, np.float64) @ p["expand_kernel"]
    y, first = norm(y, "expand_norm", True)
    w = p["depthwise_kernel"]
    pad = w.shape[0] // 2
    padded = np.pad(y, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = y.shape[1:3]
    y = sum(
        padded[:, i : i + height : stride, j : j + width : stride] * w[i, j]
        for i in range(w.shape[0])
        for j in range(w.shape[0])
    )
    y, second = norm(y, "depthwise_norm", True)
    _, third = norm(y @ p["project_kernel"], "project_norm", False)
    return {"expand_norm": first, "depthwise_norm": second, "project_norm": third}


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("centre, spread", [(0, 1), (30, 1), (0, 1e3), (1, 1e-2)])
@pytest.mark.parametrize("name, stride", [("k5", 1), ("stride", 2)])
def test_statistics_are_exact(name, stride, centre, spread):
    # Channels of scales from 1 to 1000 beside each other, too.
    scales = np.geomspace(1, 1000 if centre == 0 else 1, 8, dtype=np.float32)
    x = centre + spread * scales[None, None, None] * images(name, 64)
    _, params, _ = block(name)
    _, got = run(name, x, "calibrate")
    want = exact_statistics(params, x, stride)
    for norm, statistics in want.items():
        std = np.sqrt(statistics["var"])
        np.testing.assert_allclose(got[norm]["var"], statistics["var"], 2e-5)
        off = np.abs(got[norm]["mean"] - statistics["mean"])
        assert (off <= 1e-5 * (std + np.abs(statistics["mean"]))).all(), norm


def test_elastic_statistics_outside_the_slice_stay():
    _, _, state = block("elastic")
    _, new = run("elastic", images("elastic", 6), "calibrate")
    before, after = state["block"]["expand_norm"], new["block"]["expand_norm"]
    for name in ("mean", "var"):
        np.testing.assert_array_equal(after[name][24:], before[name][24:])
        assert not np.allclose(after[name][:24], before[name][:24])


def gradients(name, x, impl, mode):
    module, params, state = block(name, impl)

    def loss(params, x):
        y, new = module.apply(params, state, x, mode=mode)
        return jnp.vdot(y, normal(9, *y.shape)), new

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)


@pytest.mark.parametrize("mode", ["eval", "calibrate"])
@pytest.mark.parametrize("name", ["k5", "stride", "elastic", "stem"])
def test_gradients_with_frozen_statistics_and_without_momentum(name, mode):
    x = images(name, 6)
    got, want = (gradients(name, x, impl, mode) for impl in ("shift", "lax"))
    close(got, want, 2e-4)


def test_the_fast_way_is_taken_where_it_should_be():
    module, params, state = block("k5")
    x = images("k5", 2)
    for mode, way in (("eval", folds), ("calibrate", calibrates), ("train", None)):
        norm = module.merge(params, state, mode).expand_norm
        for one in (folds, calibrates):
            assert one("shift", (norm,), x) == (one is way)
            assert not one("lax", (norm,), x)
            assert not one("shift", (norm,), x.astype(jnp.bfloat16))


def test_tiles_divide_the_channels():
    assert tiles.window_tile(384, 5) == 192 and tiles.window_tile(384, 3) == 384
    assert tiles.window_tile(2 * 499, 5) == 2 * 499  # a prime is not cut to pieces
    assert tiles.whole_set_tile(384, 5, 1 << 16) == 32
    assert tiles.whole_set_tile(384, 3, 1 << 12) == 384
    for channels in range(1, 400, 7):
        for kernel in (3, 5, 7):
            assert channels % tiles.whole_set_tile(channels, kernel, 1 << 14) == 0


@pytest.mark.slow
@pytest.mark.skipif(
    jax.device_count() < 4,
    reason="needs 4 devices: XLA_FLAGS=--xla_force_host_platform_device_count=4",
)
@pytest.mark.parametrize("name", ["k7_wide", "stride", "stem"])
def test_four_devices_share_the_statistics_of_all_images(name):
    module, params, state = block(name)
    x = images(name, 16)
    mesh = jax.make_mesh(
        (4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4]
    )
    data = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    for mode in ("eval", "calibrate"):
        want = run(name, x, mode)
        args = (*jax.device_put((params, state), whole), jax.device_put(x, data))

        def apply(p, s, x, mode=mode):
            return module.apply(p, s, x, mode=mode)

        compiled = jax.jit(apply, out_shardings=(data, whole)).lower(*args).compile()
        close(compiled(*args), want, 1e-5)
        for moved in ("all-gather", "all-to-all", "collective-permute"):
            assert moved not in compiled.as_text()
