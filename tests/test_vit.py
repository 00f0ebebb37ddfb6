"""The Vision Transformers: published counts, and small supernets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneshot import Costs
from oneshot.spaces import vit
from oneshot.spaces.vit import FOUND

# Millions of parameters, as published, and how far off a count may be: tiny's figure
# agrees with a count without tables of relative position (see the module's docstring).
PUBLISHED = {
    "autoformer_tiny": (5.8, 0.012),
    "autoformer_small": (22.9, 0.001),
    "autoformer_base": (53.7, 0.001),
}
COUNTED = {
    "autoformer_tiny": 5_867_944,
    "autoformer_small": 22_891_432,
    "autoformer_base": 53_691_688,
}


def found_arch(net, size):
    width, heads, ratios = FOUND[size]
    options = {"width": width, "layers.depth": len(heads)}
    for i, (head, ratio) in enumerate(zip(heads, ratios, strict=True)):
        options[f"layers.{i}.attention.heads"] = head
        options[f"layers.{i}.mlp.ratio"] = ratio
    return net.space.arch(options)


@pytest.mark.slow
@pytest.mark.parametrize("size", PUBLISHED)
def test_the_networks_that_autoformer_found_have_their_published_size(size):
    net = vit(size, classes=1000)
    costs = Costs(net, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    params = costs.params(found_arch(net, size))
    millions, tolerance = PUBLISHED[size]
    assert params == COUNTED[size]
    assert abs(params / 1e6 / millions - 1) < tolerance
    tables = 2 * 2 * 30 * 64 * len(FOUND[size][1])
    if size == "autoformer_tiny":
        assert round((params - tables) / 1e6, 1) == millions


def test_tiny_is_a_space_of_32_pixels():
    net = vit("tiny")
    assert net.space.num_paths > 1e4
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    costs = Costs(net, x)
    small, large = (net.space.arch({}), net.space.arch({"layers.depth": 4}))
    assert costs.params(small) < costs.params(large)
    depths = {len(net.path(a)) for a in net.space.sample(np.random.default_rng(0), 50)}
    assert depths == {6, 8, 10}


def test_sizes_and_changes_are_checked():
    with pytest.raises(ValueError, match="autoformer_base"):
        vit("huge")
    with pytest.raises(ValueError, match="width, depth, heads"):
        vit("tiny", hidden=[3])
    with pytest.raises(ValueError, match="do not cover"):
        vit("digits", patch=3)
    for depth in ([1], 1):
        assert vit("digits", depth=depth).space.choices[1].options == (1,)
