"""The parts of the speech and table spaces, against independent implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle import close

from oneshot.costs import Costs
from oneshot.nn.conformer import ElasticConformerBlock
from oneshot.nn.separable import ElasticSeparable
from oneshot.nn.temporal import depthwise_conv1d
from oneshot.spaces import speech, tabular
from oneshot.spaces.speech import SIZES
from oneshot.spaces.tabular import ElasticColumns, ElasticTableBlock


def random_numbers(module, seed=0):
    """Fill all parameters and statistics, so that none is at a value without effect."""
    rng = np.random.default_rng(seed)
    for path, variable in nnx.iter_graph(module):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            noise = 0.3 * rng.normal(size=variable.shape).astype(np.float32)
            scale = path and path[-1] in ("scale", "var")
            variable[...] = jnp.asarray(1 + np.abs(noise) if scale else noise)
    return module


def run(module, x, **options):
    """Call a module as one program; op by op would compile each."""
    return jax.jit(lambda x: module(x, **options))(x)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [1, 7])
def test_convolution_over_time_is_the_grouped_one(kernel):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 5, 4)).astype(np.float32))
    w = jnp.asarray(rng.normal(size=(kernel, 4)).astype(np.float32))
    g = jnp.asarray(rng.normal(size=x.shape).astype(np.float32))
    results = [
        jax.vjp(lambda x, w, impl=impl: depthwise_conv1d(x, w, impl), x, w)
        for impl in ("shift", "lax")
    ]
    close(results[0][0], results[1][0], 1e-5)
    close(results[0][1](g), results[1][1](g), 1e-5)
    want = [np.convolve(x[1, :, 2], w[::-1, 2], "full")[kernel // 2 :][:5]]
    np.testing.assert_allclose(results[0][0][1, :, 2], want[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="odd kernel"):
        depthwise_conv1d(x, w[:0])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_separable_block_is_torch_s(stride):
    torch = pytest.importorskip("torch")
    block = ElasticSeparable(
        width=(4, 6), kernel=(3, 5), stride=stride, rngs=nnx.Rngs(0)
    )
    random_numbers(block).eval()
    rng = np.random.default_rng(1)
    for before, width, kernel in ((6, 6, 5), (4, 4, 3), (4, 6, 3), (6, 4, 5)):
        x = rng.normal(size=(2, 7, 8, before)).astype(np.float32)
        t = [torch.tensor(np.asarray(v[...])) for v in (
            block.depthwise_kernel, block.pointwise_kernel,
        )]  # fmt: skip
        edge = (5 - kernel) // 2
        w = t[0][edge : 5 - edge, edge : 5 - edge, :before].permute(2, 0, 1)[:, None]
        image = torch.tensor(x).permute(0, 3, 1, 2)
        y = torch.nn.functional.conv2d(image, w, None, stride, kernel // 2, 1, before)
        y = normed(torch, y, block.depthwise_norm).relu()
        y = torch.einsum("nchw,cd->ndhw", y, t[1][:before, :width])
        y = normed(torch, y, block.pointwise_norm).relu()
        y = y + image if y.shape == image.shape else y
        found = run(block, x, width=width, kernel=kernel)
        np.testing.assert_allclose(found, y.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="offers kernel in"):
        block(jnp.asarray(x), width=4, kernel=7)


def normed(torch, x, norm):
    count = x.shape[1]
    mean, var, scale, bias = (
        torch.tensor(np.asarray(v[...]))[:count]
        for v in (norm.mean, norm.var, norm.scale, norm.bias)
    )
    return torch.nn.functional.batch_norm(x, mean, var, scale, bias, eps=norm.epsilon)


@pytest.mark.slow
@pytest.mark.parametrize("expand, heads, kernel", [(2, 2, 5), (1, 1, 3)])
def test_a_conformer_block_is_torch_s(expand, heads, kernel):
    torch = pytest.importorskip("torch")
    block = ElasticConformerBlock(
        6, expand=(1, 2), heads=(1, 2), kernel=(3, 5), head_size=4, reach=3,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    random_numbers(block).eval()
    x = np.random.default_rng(1).normal(size=(2, 7, 6)).astype(np.float32)
    found = run(block, x, expand=expand, heads=heads, kernel=kernel)
    want = torch_conformer(torch, block, torch.tensor(x), expand, heads, kernel)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="offers heads in"):
        block(jnp.asarray(x), expand=1, heads=3, kernel=3)


def torch_conformer(torch, block, x, expand, heads, kernel):
    f = torch.nn.functional

    def t(variable):
        return torch.tensor(np.asarray(variable[...]))

    def layer_norm(x, norm):
        return f.layer_norm(x, x.shape[-1:], t(norm.scale), t(norm.bias), eps=1e-6)

    def feed_forward(x, part):
        hidden = x.shape[-1] * expand
        y = layer_norm(x, part.norm) @ t(part.up)[:, :hidden]
        y = f.silu(y + t(part.up_bias)[:hidden])
        return y @ t(part.down)[:hidden] + t(part.down_bias)

    def attention(x, part):
        n, time, _ = x.shape
        y, inner = layer_norm(x, part.norm), heads * part.head_size
        q, k, v = (
            (y @ t(w)[:, :inner]).reshape(n, time, heads, -1).transpose(1, 2)
            for w in (part.query, part.key, part.value)
        )
        bias = torch.zeros(heads, time, time)
        for i in range(time):
            for j in range(time):
                distance = max(-part.reach, min(part.reach, j - i))
                bias[:, i, j] = t(part.distance_bias)[:heads, distance + part.reach]
        y = f.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return y.transpose(1, 2).reshape(n, time, inner) @ t(part.out)[:inner]

    def convolution(x, part):
        y = f.glu(layer_norm(x, part.norm) @ t(part.gated)).transpose(1, 2)
        edge = (part.depthwise.shape[0] - kernel) // 2
        taps = t(part.depthwise)[edge : edge + kernel].T[:, None]
        y = f.conv1d(y, taps, padding=kernel // 2, groups=y.shape[1])
        y = f.silu(normed(torch, y, part.batch_norm)).transpose(1, 2)
        return y @ t(part.out)

    x = x + feed_forward(x, block.before) / 2
    x = x + attention(x, block.attention)
    x = x + convolution(x, block.conv)
    x = x + feed_forward(x, block.after) / 2
    return layer_norm(x, block.norm)


@pytest.mark.parametrize("model", ["dscnn", "conformer"])
def test_networks_return_classes_or_a_row_of_logits_for_four_frames(model):
    shape = (2, 30, 32)
    for output, want in (("classes", (2, 7)), ("ctc", (2, 8, 8))):
        net = speech(model=model, classes=7, output=output)
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        weights = net.abstract()
        for arch in net.space.sample(np.random.default_rng(0), 2):
            found = jax.eval_shape(
                lambda w, x, net=net, arch=arch: net.apply(*w, arch, x)[0], weights, x
            )
            assert found.shape == want


def test_costs_are_those_of_the_options():
    net = speech(size={"width": [4, 8], "depth": [1, 2]}, classes=3, mels=16)
    costs = Costs(net, jnp.zeros((1, 16, 16)))
    narrow = {"width": 4, "stage1.depth": 1, "stage2.depth": 1}
    arch = net.space.arch({**narrow, "stage1.0.kernel": 3, "stage2.0.kernel": 3})
    stem, block, head = 9 * 4 + 8, 9 * 4 + 8 + 16 + 8, 4 * 4 * 3 + 3
    assert costs.params(arch) == stem + 2 * block + head
    assert costs.macs(arch) == 64 * 36 + 64 * 52 + 16 * 52 + 48


def test_published_sizes_are_the_largest_options():
    cnn, conformer = SIZES["dscnn"], SIZES["conformer"]
    assert [max(cnn[s].width) for s in ("small", "medium", "large")] == [64, 172, 276]
    named = [conformer[s] for s in ("small", "medium", "large")]
    assert [s.width for s in named] == [144, 256, 512]
    assert [max(s.depth) for s in named] == [16, 16, 17]
    assert [max(s.heads) * s.head_size for s in named] == [144, 256, 512]
    assert speech(size="small").space.choices[0].options == cnn["small"].width


def test_a_single_value_is_one_option():
    net = speech(size={"width": 8, "depth": 1, "kernel": 3})
    assert net.space.num_paths == 1


@pytest.mark.parametrize("model", ["dscnn", "conformer"])
def test_features_of_another_number_of_mels_are_refused(model):
    net = speech(model=model, mels=32)
    x, arch = jax.ShapeDtypeStruct((2, 30, 40), jnp.float32), net.space.arch({})
    with pytest.raises(ValueError, match=r"8 bands .* but got 10.*own `mels`"):
        jax.eval_shape(lambda w, x: net.apply(*w, arch, x), net.abstract(), x)


def test_sizes_that_do_not_exist_are_refused():
    wrong = [
        ({"model": "rnn"}, "'conformer', 'dscnn'"),
        ({"size": "huge"}, "'tiny'"),
        ({"size": {"heads": [2]}}, "'depth', 'kernel', 'width'"),
        ({"output": "words"}, "'classes' or 'ctc'"),
    ]
    for options, words in wrong:
        with pytest.raises(ValueError, match=words):
            speech(**options)


def test_columns_are_embeddings_beside_numbers():
    layer = ElasticColumns(2, (3, 4), 5, embed=(1, 3), rngs=nnx.Rngs(0))
    random_numbers(layer)
    rows = np.array([[0.5, -1, 2, 0], [1.5, 2, 0, 3]], np.float32)
    table = np.asarray(layer.table[...])
    tables = table[:3], table[3:]
    for embed in (1, 3):
        want = rows[:, :2] @ np.asarray(layer.numbers[...]) + np.asarray(
            layer.bias[...]
        )
        for column in range(2):
            codes = rows[:, 2 + column].astype(int)
            linear = np.asarray(layer.linear[...])[column, :embed]
            want = want + tables[column][codes][:, :embed] @ linear
        found = run(layer, rows, embed=embed)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    unknown = run(layer, np.float32([[0, 0, 3, 0], [0, 0, 2, 0]]), embed=1)
    assert np.isnan(unknown[0]).all() and np.isfinite(unknown[1]).all()
    with pytest.raises(ValueError, match="2 numbers and 2 codes"):
        layer(jnp.zeros((1, 5)), embed=1)


def test_a_table_block_is_its_formula():
    block = ElasticTableBlock(
        4, hidden=(3, 6), residual=(True, False), rngs=nnx.Rngs(0)
    )
    random_numbers(block).eval()
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    mean, var, scale, bias = (
        np.asarray(v[...])
        for v in (block.norm.mean, block.norm.var, block.norm.scale, block.norm.bias)
    )
    normal = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    for hidden in (3, 6):
        up, down = np.asarray(block.up[...]), np.asarray(block.down[...])
        y = normal @ up[:, :hidden] + np.asarray(block.up_bias[...])[:hidden]
        y = np.maximum(y, 0) @ down[:hidden] + np.asarray(block.down_bias[...])
        for residual in (True, False):
            found = run(block, x, hidden=hidden, residual=residual)
            np.testing.assert_allclose(found, y + residual * x, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="offers hidden in"):
        block(jnp.asarray(x), hidden=5, residual=True)


def test_tables_without_categories_are_numbers_alone():
    net = tabular(columns=(4, ()), classes=3, embed=(1,), depth=(0, 1))
    costs = Costs(net, jnp.zeros((1, 4)))
    arch = net.space.arch({"blocks.depth": 0})
    assert costs.params(arch) == 4 * 64 + 64 + 2 * 64 + 64 * 3 + 3
