"""Elastic parts of Transformers against torch, and against plain definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle import close

import oneshot.nn as on
from oneshot.nn.attention import attention
from oneshot.nn.window_attention import window_attention

torch = pytest.importorskip("torch")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(make):
    """A module with weights from numpy, which need no compiled initialiser."""
    graph, state = nnx.split(nnx.eval_shape(make))
    leaves, treedef = jax.tree.flatten(state)
    new = [
        jnp.asarray(normal(i, *a.shape) / (a.shape[0] ** 0.5 if a.ndim > 1 else 1))
        for i, a in enumerate(leaves)
    ]
    return nnx.merge(graph, treedef.unflatten(new))


def value_and_gradients(f, *args, seed=9):
    """The value, and the gradients of its product with fixed noise."""
    noise = normal(seed, *jax.eval_shape(f, *args).shape)

    def total(*args):
        y = f(*args)
        return jnp.sum(y * noise), y

    both = jax.jit(jax.grad(total, tuple(range(len(args))), has_aux=True))
    gradients, y = both(*args)
    return y, *gradients


def run(module, x, **options):
    return np.asarray(jax.jit(lambda x: module(x, **options))(x))


def of_torch(f, *args, seed=9):
    args = [torch.tensor(a, requires_grad=True) for a in args]
    y = f(*args)
    (y * torch.tensor(normal(seed, *y.shape))).sum().backward()
    return tuple(a.detach().numpy() for a in (y, *(a.grad for a in args)))


def torch_attention(mask=None):
    """softmax(q k) v over [batch, tokens, heads, size], keys' heads repeated."""

    def run(q, k, v):
        group = q.shape[2] // k.shape[2]
        k, v = (a.repeat_interleave(group, 2) for a in (k, v))
        q, k, v = (a.transpose(1, 2) for a in (q, k, v))
        seen = None if mask is None else torch.tensor(mask)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen)
        return y.transpose(1, 2)

    return run


def seen(tokens, window=None):
    apart = np.arange(tokens)[:, None] - np.arange(tokens)[None]
    return (apart >= 0) & (apart < (window or tokens))


@pytest.mark.parametrize("shared, causal", [(4, True), (2, True), (1, False)])
def test_attention_of_grouped_queries(shared, causal):
    q, k, v = (
        normal(0, 2, 7, 4, 6),
        normal(1, 2, 7, shared, 6),
        normal(2, 2, 7, shared, 6),
    )
    got = value_and_gradients(lambda q, k, v: attention(q, k, v, causal), q, k, v)
    mask = seen(7) if causal else None
    close(got, of_torch(torch_attention(mask), q, k, v), 1e-5)


@pytest.mark.parametrize("tokens, window", [(12, 4), (10, 4), (3, 5), (6, 2)])
def test_window_attention(tokens, window):
    q, k, v = normal(0, 2, tokens, 4, 6), *(normal(i, 2, tokens, 2, 6) for i in (1, 2))
    got = value_and_gradients(lambda *a: window_attention(*a, window), q, k, v)
    close(got, of_torch(torch_attention(seen(tokens, window)), q, k, v), 1e-5)


@pytest.mark.parametrize("tokens, chunk", [(12, 4), (10, 4), (5, 64)])
def test_linear_attention(tokens, chunk):
    q, k, v = normal(0, 2, tokens, 4, 6), *(normal(i, 2, tokens, 2, 6) for i in (1, 2))

    def definition(q, k, v):
        k, v = (a.repeat_interleave(2, 2) for a in (k, v))
        q, k = (torch.nn.functional.elu(a) + 1 for a in (q, k))
        weights = torch.einsum("blhd,bmhd->bhlm", q, k) * torch.tensor(seen(tokens))
        weights = weights / weights.sum(-1, keepdim=True)
        return torch.einsum("bhlm,bmhd->blhd", weights, v)

    got = value_and_gradients(lambda *a: on.linear_attention(*a, chunk), q, k, v)
    close(got, of_torch(definition, q, k, v), 1e-4)


@pytest.mark.parametrize("kind", ["full", "window", "linear"])
def test_no_kind_of_attention_sees_the_future(kind):
    offer = on.AttentionOffer((2, 4), (4,), (2,), ("full", "window", "linear"), 3)
    layer = built(lambda: on.CausalAttention(8, offer, rngs=nnx.Rngs(0)))
    x, later = normal(0, 1, 9, 8), normal(0, 1, 9, 8)
    later[:, 5:] += 1
    one, two = (run(layer, a, heads=4, kind=kind) for a in (x, later))
    close(one[:, :5], two[:, :5], 1e-6)
    assert not np.allclose(one[:, 5:], two[:, 5:])


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rotary_scores_depend_on_distance_alone(base):
    # A complex number for each pair, turned by its position times the pair's rate.
    x = normal(0, 2, 9, 3, 8)
    pairs = x[..., :4] + 1j * x[..., 4:]
    rate = base ** (-np.arange(4) / 4)
    turned = pairs * np.exp(1j * np.arange(9)[:, None] * rate)[None, :, None]
    want = np.concatenate([turned.real, turned.imag], -1).astype(np.float32)
    close(run(on.rotary, x, base=base), want, 1e-5)
    with pytest.raises(ValueError, match="even"):
        on.rotary(jnp.ones((1, 2, 1, 3)))


@pytest.mark.parametrize("kind, width", [("layer", 6), ("rms", 6), ("rms", 10)])
def test_norms_of_a_narrow_input_are_those_of_a_narrow_norm(kind, width):
    x, scale, bias = 3 + normal(0, 2, 5, width), normal(1, 10), normal(2, 10)
    functional = torch.nn.functional
    if kind == "layer":
        module = on.LayerNorm(10, epsilon=1e-5)
        module.scale[...], module.bias[...] = scale, bias

        def want(x):
            narrow = (torch.tensor(a[:width]) for a in (scale, bias))
            return functional.layer_norm(x, (width,), *narrow, eps=1e-5)
    else:
        module = on.RMSNorm(10, epsilon=1e-5)
        module.scale[...] = scale

        def want(x):
            return functional.rms_norm(x, (width,), torch.tensor(scale[:width]), 1e-5)

    close(value_and_gradients(module, x), of_torch(want, x), 1e-5)


def test_rms_norm_gradient_of_the_scale():
    x, scale = normal(0, 7, 5), normal(1, 5)

    def want(x, scale):
        return torch.nn.functional.rms_norm(x, (5,), scale, 1e-5)

    got = value_and_gradients(on.rms_norm, x, scale)
    close(got, of_torch(want, x, scale), 1e-5)


def test_gated_product():
    gate, up, w = normal(0, 7, 5), normal(1, 7, 5), normal(2, 5, 3)
    got = value_and_gradients(on.silu_gate_dense, gate, up, w)

    def want(gate, up, w):
        return (torch.nn.functional.silu(gate) * up) @ w

    close(got, of_torch(want, gate, up, w), 1e-5)


def test_a_narrow_linear_layer_is_the_sliced_one():
    linear = built(lambda: on.ElasticLinear(8, 6, rngs=nnx.Rngs(0)))
    x = normal(0, 2, 3, 5)
    want = x @ linear.kernel[:5, :4] + linear.bias[:4][None, None]
    close(np.asarray(linear(x, 4)), np.asarray(want), 1e-6)
    with pytest.raises(ValueError, match="largest sizes"):
        linear(normal(0, 2, 9))


def test_an_mlp_of_any_width_is_the_sliced_one():
    gated = built(lambda: on.GatedMlp(8, (4, 6), rngs=nnx.Rngs(0)))
    x = normal(0, 2, 3, 5)
    gate, up, down = (
        torch.tensor(np.asarray(p.kernel[...]))
        for p in (gated.gate_proj, gated.up_proj, gated.down_proj)
    )
    y = torch.tensor(x)
    y = (torch.nn.functional.silu(y @ gate[:5, :4]) * (y @ up[:5, :4])) @ down[:4, :5]
    close(run(gated, x, hidden=4), y.numpy(), 1e-5)
    plain = built(lambda: on.ElasticMlp(8, (1.5, 2), rngs=nnx.Rngs(0)))
    up, down = plain.up, plain.down
    y = torch.tensor(np.asarray(x @ up.kernel[:5, :7] + up.bias[:7][None, None]))
    y = torch.nn.functional.gelu(y, approximate="tanh").numpy()
    want = y @ down.kernel[:7, :5] + down.bias[:5][None, None]
    close(run(plain, x, ratio=1.5), np.asarray(want), 1e-5)
    for call in (lambda: gated(x, hidden=5), lambda: plain(x, ratio=3)):
        with pytest.raises(ValueError, match="offers"):
            call()


OFFER = on.AttentionOffer((2, 4), (6, 4), (1, 2), ("full",), rotary_base=500.0)


@pytest.mark.parametrize("heads, size, group", [(4, 6, 1), (4, 4, 2), (2, 6, 2)])
def test_attention_of_fewer_and_smaller_heads_is_that_of_the_sliced_weights(
    heads, size, group
):
    layer = built(lambda: on.CausalAttention(8, OFFER, rngs=nnx.Rngs(0)))
    small = on.AttentionOffer((heads,), (size,), (group,), rotary_base=500.0)
    other = built(lambda: on.CausalAttention(5, small, rngs=nnx.Rngs(0)))
    for name, kept in (("q", heads), ("k", heads // group), ("v", heads // group)):
        own = getattr(layer, f"{name}_proj").kernel[:5, :kept, :size]
        getattr(other, f"{name}_proj").kernel[...] = own
    other.o_proj.kernel[...] = layer.o_proj.kernel[:heads, :size, :5]
    x = normal(0, 2, 7, 5)
    sizes = {"heads": heads, "head_size": size, "group": group}
    close(run(layer, x, **sizes), run(other, x, **sizes), 1e-6)


@pytest.mark.parametrize(
    "options", [{"heads": 3}, {"head_size": 5}, {"group": 4}, {"kind": "linear"}]
)
def test_attention_refuses_what_is_not_on_offer(options):
    layer = built(lambda: on.CausalAttention(8, OFFER, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=f"offers {[*options][0]}"):
        layer(normal(0, 1, 3, 8), **{"heads": 4, **options})


def test_groups_have_to_divide_the_heads():
    with pytest.raises(ValueError, match="multiples"):
        on.AttentionOffer((3, 4), group=(2,))
    with pytest.raises(ValueError, match="multiple of the keys' heads"):
        attention(jnp.ones((1, 2, 3, 4)), *[jnp.ones((1, 2, 2, 4))] * 2)


def by_loops(vertical, horizontal, grid, most):
    """Each pair's embedding, looked up one at a time."""
    places = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    n = len(places) + 1
    out = np.zeros((n, n, vertical.shape[1]), np.float32)
    for i in range(n):
        for j in range(n):
            rows = columns = 0
            if i and j:
                one, two = places[i - 1], places[j - 1]
                rows, columns = (
                    int(np.clip(b - a, -most, most)) + most + 1
                    for a, b in zip(one, two, strict=True)
                )
            out[i, j] = vertical[rows] + horizontal[columns]
    return out


@pytest.mark.parametrize("grid, most", [((3, 4), 2), ((2, 2), 14)])
def test_relative_positions_are_clipped_and_the_class_has_its_own(grid, most):
    tables = built(lambda: on.RelativePosition(6, most, rngs=nnx.Rngs(0)))
    want = by_loops(
        *(np.asarray(t)[:, :4] for t in (tables.vertical, tables.horizontal)),
        grid,
        most,
    )
    close(np.asarray(tables(grid, 4)), want, 1e-6)


def test_relative_attention():
    q, k, v = (normal(i, 2, 5, 3, 4) for i in range(3))
    on_keys, on_values = normal(3, 5, 5, 4), normal(4, 5, 5, 4)

    def want(q, k, v, on_keys, on_values):
        k = k[:, None] + on_keys[None, :, :, None]  # one key for each pair
        logits = torch.einsum("blhd,blmhd->bhlm", q, k) / 2
        v = v[:, None] + on_values[None, :, :, None]
        return torch.einsum("bhlm,blmhd->blhd", logits.softmax(-1), v)

    args = q, k, v, on_keys, on_values
    close(
        value_and_gradients(on.relative_attention, *args), of_torch(want, *args), 1e-5
    )


def test_patches_are_those_of_a_strided_convolution():
    embed = built(lambda: on.PatchEmbedding(2, 3, (2, 3), (5, 8), rngs=nnx.Rngs(0)))
    x = normal(0, 2, 4, 6, 3)
    w = np.asarray(embed.patches.kernel[...])[:, :5].reshape(2, 2, 3, 5)
    y = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(w.transpose(3, 2, 0, 1)),
        torch.tensor(np.asarray(embed.patches.bias[...])[:5]),
        stride=2,
    )
    y = y.flatten(2).transpose(1, 2).numpy() + np.asarray(embed.position)[1:, :5]
    got = run(embed, x, width=5)
    close(got[:, 1:], y, 1e-5)
    first = np.asarray(embed.class_token[...] + embed.position[:1])[:, :5]
    close(got[:, 0], np.repeat(first, 2, 0), 1e-6)
    with pytest.raises(ValueError, match="size of the images"):
        embed(normal(0, 2, 6, 6, 3), width=5)
