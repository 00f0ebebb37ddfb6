"""Single Path One-Shot's space: its published network, its blocks in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from oneshot.cost_tables import CostTables
from oneshot.nn import ShuffleBlock
from oneshot.nn.shuffle import every_other
from oneshot.spaces import shufflenet
from oneshot.spaces.shufflenet import PUBLISHED

torch = pytest.importorskip("torch")
F = torch.nn.functional


@pytest.mark.slow
def test_the_published_network_has_323_million_multiply_adds():
    net = shufflenet()
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    tables = CostTables(net, image)
    assert net.space.size == 4**20
    assert tables.value("macs", PUBLISHED) == pytest.approx(323e6, rel=0.01)
    params = tables.value("params", PUBLISHED)
    norms = sum(
        leaf.size
        for step in net.path(PUBLISHED)
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            net.modules[step.module].params
        )
        if path[-1].key in ("scale", "bias")
    )
    assert (params, params - norms) == (3_558_464, 3_529_312)
    assert params - norms == pytest.approx(3.5e6, rel=0.01)
    assert tables.ends("macs").least <= 290e6 <= tables.ends("macs").greatest


def test_every_other_channel_is_the_papers_shuffle_and_split():
    x = np.arange(2 * 3 * 3 * 8, dtype=np.float32).reshape(2, 3, 3, 8)
    groups = torch.tensor(x).permute(0, 3, 1, 2).reshape(2, 4, 2, 3, 3)
    shuffled = groups.transpose(1, 2).reshape(2, 8, 3, 3)  # ShuffleNet's
    for got, want in zip(
        every_other(jnp.asarray(x)), shuffled.chunk(2, 1), strict=True
    ):
        np.testing.assert_array_equal(got, want.permute(0, 2, 3, 1))


def chain_in_torch(x, chain, stride):
    for i in range(len(chain["weights"])):
        w = torch.tensor(np.asarray(chain["weights"][i]))
        norm = {k: torch.tensor(np.asarray(v)) for k, v in chain["norms"][i].items()}
        if w.ndim == 2:
            x = F.conv2d(x, w.T[:, :, None, None])
        else:
            options = {"stride": stride, "padding": w.shape[0] // 2}
            x = F.conv2d(x, w.permute(2, 0, 1)[:, None], groups=w.shape[2], **options)
            stride = 1
        x = F.batch_norm(x, None, None, norm["scale"], norm["bias"], training=True)
        x = F.relu(x) if w.ndim == 2 else x
    return x


BLOCKS = [
    ((5,), 2),
    ((3, 3, 3), 1),
    pytest.param((7,), 1, marks=pytest.mark.slow),
    pytest.param((3, 3, 3), 2, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("kernels, stride", BLOCKS)
def test_blocks_are_those_of_the_paper(kernels, stride):
    before, after = (8, 8) if stride == 1 else (6, 16)
    block = ShuffleBlock(
        before, after, kernels=kernels, stride=stride, rngs=nnx.Rngs(0), impl="lax"
    )
    x = np.random.default_rng(0).normal(size=(2, 6, 6, before)).astype(np.float32)
    params = nnx.to_pure_dict(nnx.state(block, nnx.Param))
    image = torch.tensor(x).permute(0, 3, 1, 2)
    if stride == 1:
        kept, rest = image[:, ::2], image[:, 1::2]
    else:
        kept, rest = chain_in_torch(image, params["other"], 2), image
    want = torch.cat([kept, chain_in_torch(rest, params["main"], stride)], 1)
    graphdef, state = nnx.split(block)
    got = jax.jit(lambda s, x: nnx.merge(graphdef, s, copy=True)(x))(state, x)
    assert got.shape[-1] == after
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kernels, stride", [((3,), 2), ((3, 3, 3), 1)])
def test_tuned_operations_and_frozen_norms_give_what_xlas_give(kernels, stride, mode):
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 8)).astype(np.float32)
    after = 8 * stride
    results = []
    for impl in ("lax", "shift"):
        options = {"kernels": kernels, "stride": stride, "impl": impl}
        block = ShuffleBlock(8, after, rngs=nnx.Rngs(0), **options)
        getattr(block, mode)()
        graphdef, params, rest = nnx.split(block, nnx.Param, ...)

        def loss(params, x, graphdef=graphdef, rest=rest):
            y = nnx.merge(graphdef, params, rest, copy=True)(x)
            return jnp.sum(jnp.sin(y)), y

        found = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
        results.append([*map(np.asarray, jax.tree.leaves(found))])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        shufflenet(size="tiny", stages=(10, 20, 40))
    with pytest.raises(ValueError, match="as many `depths`"):
        shufflenet(size="tiny", depths=(1, 1))
    with pytest.raises(ValueError, match=r"stages=\(\)"):
        shufflenet(size="tiny", stages=(), depths=())
    with pytest.raises(ValueError, match="'tiny', 'published'"):
        shufflenet(size="small")
    with pytest.raises(ValueError, match="equal, even numbers"):
        ShuffleBlock(4, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="more than it has inputs"):
        ShuffleBlock(8, 8, stride=2, rngs=nnx.Rngs(0))
