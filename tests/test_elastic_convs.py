"""Elastic convolutions, norms and blocks against PyTorch and their narrow selves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from oneshot import nn as on
from oneshot.nn.bottleneck import average_pool

torch = pytest.importorskip("torch")
F = torch.nn.functional


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def planes(x):
    """[n, height, width, channels] as PyTorch has it."""
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def close(got, want, tolerance=1e-5):
    if isinstance(want, torch.Tensor):
        want = want.detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def filled(module, seed=0):
    """Give every array of a module random values."""
    rng = np.random.default_rng(seed)
    graphdef, state = nnx.split(module)

    def draw(leaf):
        return (0.5 * rng.normal(size=leaf.shape)).astype(np.float32)

    return nnx.merge(graphdef, jax.tree.map(draw, state))


@pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 2), (7, 2)])
def test_small_kernels_are_centres_of_the_largest(kernel, stride):
    x, cut = normal(0, 2, 9, 9, 6), slice((7 - kernel) // 2, (7 + kernel) // 2)
    conv = on.ElasticDepthwise(8, (3, 5, 7), stride, rngs=nnx.Rngs(0))
    w = torch.tensor(np.asarray(conv.kernel.largest[...]))[cut, cut, :6]
    w = w.permute(2, 0, 1)[:, None]
    want = F.conv2d(planes(x), w, None, stride, kernel // 2, groups=6)
    close(conv(x, kernel=kernel), want)


@pytest.mark.parametrize("kernel, width", [(1, 4), (3, 4), (5, 7)])
def test_elastic_convolution(kernel, width):
    x, cut = normal(0, 2, 6, 6, 5), slice((5 - kernel) // 2, (5 + kernel) // 2)
    conv = on.ElasticConv(6, (4, 7), (1, 3, 5), rngs=nnx.Rngs(0))
    w = torch.tensor(np.asarray(conv.kernel.largest[...]))[cut, cut, :5, :width]
    want = F.conv2d(planes(x), w.permute(3, 2, 0, 1), None, 1, kernel // 2)
    close(conv(x, kernel=kernel, width=width), want)


def test_kernel_transforms_begin_as_the_identity():
    plain, learned = (
        on.ElasticKernel(
            (3, 5, 7), (4,), transforms=transforms, fan_out=49, rngs=nnx.Rngs(0)
        )
        for transforms in (False, True)
    )
    for kernel in (3, 5, 7):
        np.testing.assert_array_equal(learned(kernel, (3,)), plain(kernel, (3,)))


def test_kernel_transforms_follow_one_another():
    weights = filled(
        on.ElasticKernel((3, 5, 7), (4,), transforms=True, fan_out=49, rngs=nnx.Rngs(0))
    )
    w = torch.tensor(np.asarray(weights.largest[...])).permute(2, 0, 1)
    np.testing.assert_array_equal(weights(7, (4,)), weights.largest[...])
    for size in (5, 3):  # a linear map of the centre's rows, for each channel
        matrix = torch.tensor(np.asarray(getattr(weights, f"to{size}")[...]))
        flat = F.linear(w[:, 1:-1, 1:-1].reshape(4, -1), matrix)
        w = flat.reshape(4, size, size)
        got = jnp.moveaxis(weights(size, (4,)), -1, 0)
        np.testing.assert_allclose(got, w.numpy(), rtol=1e-4, atol=1e-5)


def test_hard_swish_and_its_gradient():
    x = np.concatenate([normal(0, 200) * 4, [-4, 4, 0]]).astype(np.float32)
    ours, slope = jax.vmap(jax.value_and_grad(on.hard_swish))(x)
    theirs = torch.tensor(x, requires_grad=True)
    y = F.hardswish(theirs)
    y.sum().backward()
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(slope, theirs.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [72, 120])
def test_squeeze_excite(channels):
    x = normal(1, 2, 4, 5, channels)
    squeeze = filled(on.SqueezeExcite(120, rngs=nnx.Rngs(0)))
    hidden = {72: 24, 120: 32}[channels]  # a quarter, 18 and 30, to multiples of 8

    def tensor(param, *cut):
        return torch.tensor(np.asarray(param[...])[tuple(slice(c) for c in cut)])

    pooled = planes(x).mean((2, 3))
    reduce = tensor(squeeze.reduce_kernel, channels, hidden).T
    y = F.relu(F.linear(pooled, reduce, tensor(squeeze.reduce_bias, hidden)))
    expand = tensor(squeeze.expand_kernel, hidden, channels).T
    y = F.hardsigmoid(F.linear(y, expand, tensor(squeeze.expand_bias, channels)))
    close(squeeze(x), planes(x) * y[:, :, None, None])


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_average_pool(size):
    x = normal(0, 2, *size, 3)
    close(average_pool(x, 2), F.avg_pool2d(planes(x), 2, 2, ceil_mode=True))


@pytest.mark.parametrize("size", [5, 8, 20])
def test_resize(size):
    x = normal(0, 2, 8, 8, 3)
    want = F.interpolate(planes(x), (size, size), mode="bilinear", align_corners=False)
    close(on.resize_bilinear(x, size), want)


def batch_norm(x, norm, width):
    """A norm's first channels in PyTorch, by the statistics of the batch."""
    scale, bias = (
        torch.tensor(np.asarray(p[...])[:width]) for p in (norm.scale, norm.bias)
    )
    return F.batch_norm(x, None, None, scale, bias, True, eps=norm.epsilon)


FORMS = {
    "relu": on.MBConvForm((3, 5), (2, 3), divisor=4),
    "squeezed": on.MBConvForm((3, 5), (2, 3), squeeze=True, divisor=4),
    "hard_swish": on.MBConvForm(
        (3, 5), (2, 3), 2, activation="hard_swish", squeeze=True, divisor=4
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_mobile_block(form):
    x, act = normal(0, 3, 6, 6, 6), {"relu": F.relu, "hard_swish": F.hardswish}
    act = act[form.activation]
    block = filled(on.ElasticMBConv(6, (6, 8), form, rngs=nnx.Rngs(0)))
    if form.stride == 1:  # with a shortcut: the widths at both ends are one
        block = filled(on.ElasticMBConv((6, 8), (6, 8), form, rngs=nnx.Rngs(0)))
    hidden, width = 12, 6

    def array(param):
        return torch.tensor(np.asarray(param[...]))

    y = planes(x)
    y = F.conv2d(y, array(block.expand_kernel)[:6, :hidden].T[..., None, None])
    y = act(batch_norm(y, block.expand_norm.shared, hidden))
    w = array(block.depthwise_kernel.largest)[1:4, 1:4, :hidden].permute(2, 0, 1)
    y = F.conv2d(y, w[:, None], None, form.stride, 1, groups=hidden)
    y = act(batch_norm(y, block.depthwise_norm.shared, hidden))
    if block.squeeze is not None:
        narrow = block.squeeze(jnp.asarray(y.permute(0, 2, 3, 1).numpy()))
        y = planes(narrow)
    y = F.conv2d(y, array(block.project_kernel)[:hidden, :width].T[..., None, None])
    y = batch_norm(y, block.project_norm.shared, width)
    y = y + planes(x) if form.stride == 1 else y
    run = nnx.jit(lambda block, x: block(x, kernel=3, expand=2, width=width))
    close(run(block, x), y, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck(stride):
    x = normal(0, 3, 7, 7, 6)
    form = on.BottleneckForm((0.5, 0.7), stride, divisor=4)
    block = filled(on.ElasticBottleneck((6, 8), (12, 16), form, rngs=nnx.Rngs(0)))
    hidden, width = 8, 12  # 0.7 * 12 = 8.4, to a multiple of 4

    def array(param):
        return torch.tensor(np.asarray(param[...]))

    def pointwise(x, w):
        return F.conv2d(x, w.T[..., None, None])

    y = pointwise(planes(x), array(block.reduce_kernel)[:6, :hidden])
    y = F.relu(batch_norm(y, block.reduce_norm.shared, hidden))
    w = array(block.middle_kernel)[..., :hidden, :hidden].permute(3, 2, 0, 1)
    y = F.conv2d(y, w, None, stride, 1)
    y = F.relu(batch_norm(y, block.middle_norm.shared, hidden))
    y = pointwise(y, array(block.expand_kernel)[:hidden, :width])
    y = batch_norm(y, block.expand_norm.shared, width)
    shortcut = F.avg_pool2d(planes(x), stride, stride, ceil_mode=True)
    w = array(block.shortcut.conv.kernel.largest)[:6, :width]
    shortcut = batch_norm(pointwise(shortcut, w), block.shortcut.norm.shared, width)
    got = nnx.jit(lambda block, x: block(x, expand=0.7, width=width))(block, x)
    close(got, F.relu(y + shortcut), 1e-4)


def test_a_norm_per_width_keeps_each_width_apart():
    norm = on.ElasticNorm((2, 4), norms="per_width")
    x = 3 + normal(0, 8, 4)
    norm(x[:, :2])
    assert (norm.at(4).mean[...] == 0).all() and (norm.at(2).mean[...] != 0).all()
    shared = on.ElasticNorm((2, 4))
    shared(x[:, :2])
    mean = shared.at(4).mean[...]
    assert (mean[:2] != 0).all() and (mean[2:] == 0).all()
    with pytest.raises(ValueError, match="input has 3 channels"):
        norm(x[:, :3])


@pytest.mark.parametrize("kernels, activation", [(1, "hard_swish"), ((1, 3), "relu")])
def test_a_mobile_block_may_have_a_kernel_of_one(kernels, activation):
    form = on.MBConvForm(kernels, (2,), activation=activation, divisor=4)
    block = filled(on.ElasticMBConv(4, 4, form, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 4, 4, 4)
    y = block(x, kernel=1, expand=2)
    assert y.shape == x.shape
    # Nothing is mixed between pixels but by the norms: turned images stay turned.
    close(block(x[:, ::-1], kernel=1, expand=2), y[:, ::-1])


@pytest.mark.slow
def test_what_is_not_on_offer_is_refused():
    block = on.ElasticMBConv((4, 8), (4, 8), on.MBConvForm(divisor=4), rngs=nnx.Rngs(0))
    x = normal(0, 1, 4, 4, 4)
    with pytest.raises(ValueError, match="offers kernel in"):
        block(x, kernel=9, expand=3, width=4)
    with pytest.raises(ValueError, match="offers expand in"):
        block(x, kernel=3, expand=5, width=4)
    with pytest.raises(ValueError, match="offers width in"):
        block(x, kernel=3, expand=3)
    with pytest.raises(ValueError, match="Tie the two widths"):
        block(x, kernel=3, expand=3, width=8)
    bottleneck = on.ElasticBottleneck(
        (4, 8), (4, 8), on.BottleneckForm(), rngs=nnx.Rngs(0)
    )
    with pytest.raises(ValueError, match="Tie the two widths"):
        bottleneck(x, expand=0.25, width=8)
    with pytest.raises(ValueError, match="odd sizes"):
        on.ElasticDepthwise(4, (3, 4), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`norms` is one of"):
        on.ElasticNorm((4, 8), norms="none")
    with pytest.raises(ValueError, match="at most 8 channels"):
        on.SqueezeExcite(8, rngs=nnx.Rngs(0))(normal(0, 1, 2, 2, 9))
    with pytest.raises(ValueError, match="activation is one of"):
        on.activate("tanh", x)


def test_channels_round_as_in_mobilenet():
    published = {16: 16, 24: 24, 28.8: 32, 48: 48, 134.4: 136, 11: 16, 3: 8, 8.4: 8}
    assert {c: on.make_divisible(c) for c in published} == published
