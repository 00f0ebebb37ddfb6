"""Channels sorted by importance: the law, and the order."""

import jax
import numpy as np
import pytest
from supernets import BY_NAME

from oneshot import sort_channels
from oneshot.importance import importance


def largest(net):
    return net.space.arch({c.name: max(c.options) for c in net.space.choices})


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenet_v3", "resnet50")]


@pytest.mark.parametrize("name", ["tiny", *SLOW])
def test_sorting_channels_changes_no_largest_network(name):
    reference = BY_NAME[name]
    net = reference.make()
    weights, x = reference.weights(net), reference.batch(4)[0]
    after = sort_channels(net, weights)
    run = jax.jit(lambda w: net.apply(*w, largest(net), x)[0])
    want = run(weights)
    np.testing.assert_allclose(run(after), want, rtol=2e-4, atol=2e-4)
    moved = [
        module
        for module in net.modules
        if any(
            not np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves(weights.params[module]),
                jax.tree.leaves(after.params[module]),
                strict=True,
            )
        )
    ]
    assert moved and {m.split(".")[0][:5] for m in moved} == {"stage"}


@pytest.mark.slow
def test_channels_stand_in_the_order_of_what_reads_them():
    reference = BY_NAME["mobilenet_v3"]
    net = reference.make()
    after = sort_channels(net, reference.weights(net), ["stage1.0"])
    params = after.params["stage1.0"]
    for reader in (("project_kernel", 0), ("squeeze.expand_kernel", 0)):
        scores = importance(reader, params)
        assert (np.diff(scores) <= 1e-6).all()
    by_width = {len(v["scale"]): v["scale"] for v in params["expand_norm"].values()}
    assert len(by_width) > 1
    for width, scale in by_width.items():
        np.testing.assert_array_equal(scale, by_width[max(by_width)][:width])


def test_modules_that_cannot_be_sorted_are_refused():
    net = BY_NAME["tiny"].make()
    with pytest.raises(ValueError, match=r"\['stem'\] do not exist or do not say"):
        sort_channels(net, BY_NAME["tiny"].weights(net), ["stem"])
