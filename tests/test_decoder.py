"""The decoder: published counts, and Llama's logits from Llama's weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import close

from oneshot import Costs, Data, Evaluator, cross_entropy
from oneshot.spaces import decoder
from oneshot.spaces.decoder import llama_names

LARGEST = {"tinyllama": 1_100_048_384, "llama2_7b": 6_738_415_616}
SMALL = {"width": [16], "depth": [1], "heads": [2, 4], "mlp": [20], "head_size": 8}
SMALL |= {"attention": ["window", "linear"], "window": 4}


def largest(net):
    return net.space.arch({c.name: c.options[-1] for c in net.space.choices})


@pytest.mark.slow
@pytest.mark.parametrize("size", LARGEST)
def test_the_largest_networks_have_the_published_size(size):
    net = decoder(size, vocabulary=32000, attention=["full"])
    costs = Costs(net, jax.ShapeDtypeStruct((1, 8), jnp.int32))
    assert costs.params(largest(net)) == LARGEST[size]


def llama(tied, **options):
    """A small random network of `transformers`, and its weights by name."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11,
        num_hidden_layers=2,
        hidden_act="silu",
        attn_implementation="eager",
        tie_word_embeddings=tied,
        **options,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def copied(net, model):
    """The decoder's weights, from those of `transformers`."""
    theirs = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    params, names = net.abstract().params, llama_names(net)
    out = {}
    for module, own in params.items():

        def fill(path, leaf, module=module):
            key = "/".join(entry.key for entry in path)
            value = theirs[names[module, key]]
            if not key.startswith("embed_tokens"):
                value = value.T
            return value.reshape(leaf.shape)

        out[module] = jax.tree_util.tree_map_with_path(fill, own)
    assert {*names.values()} <= {*theirs}
    return out


LLAMAS = {
    "plain": ({"heads": [4]}, {}, False),
    "grouped": ({"heads": [4], "group": 2}, {"num_key_value_heads": 2}, False),
    "base": ({"heads": [4], "rotary_base": 500.0}, {"rope_theta": 500.0}, False),
    "tied": ({"heads": [4], "tied": True}, {}, True),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other libraries
@pytest.mark.parametrize("ours, theirs, tied", LLAMAS.values(), ids=LLAMAS)
def test_logits_are_those_of_transformers(ours, theirs, tied):
    torch = pytest.importorskip("torch")
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4}
    sizes |= {"rms_norm_eps": 1e-5, **theirs}
    if "rope_theta" in sizes:
        base = sizes.pop("rope_theta")
        sizes["rope_parameters"] = {"rope_type": "default", "rope_theta": base}
    model = llama(tied, **sizes)
    ours = {
        "width": [32],
        "depth": [2],
        "mlp": [40],
        "head_size": 8,
        "group": 1,
        **ours,
    }
    net = decoder("tiny", vocabulary=11, attention=["full"], **ours)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 9)).astype(np.int32)
    arch = net.space.arch({})
    run = jax.jit(lambda p, x: net.apply(p, net.abstract().state, arch, x)[0])
    got = run(copied(net, model), tokens)
    with torch.no_grad():
        want = model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    assert np.abs(want).max() > 1
    np.testing.assert_allclose(got, want, atol=1e-4)
    count = Costs(net, tokens).params(arch)
    assert count == sum(p.numel() for p in model.parameters())


def test_attention_that_does_not_exist_is_refused_at_once():
    with pytest.raises(ValueError, match="full, window, linear, but got 'lineal'"):
        decoder("tiny", attention=["full", "lineal"])
    with pytest.raises(ValueError, match="1 or more query heads"):
        decoder("tiny", group=0)
    with pytest.raises(ValueError, match="Offer multiples of each group"):
        decoder("tiny", group=3)


def test_names_are_those_of_llama():
    names = llama_names(decoder("tiny"))
    layer = names["layers.1.attention", "self_attn/o_proj/kernel"]
    assert layer == "model.layers.1.self_attn.o_proj.weight"
    assert names["head", "lm_head/kernel"] == "lm_head.weight"
    assert names["head", "norm/scale"] == "model.norm.weight"
    assert names["stem", "embed_tokens/embedding"] == "model.embed_tokens.weight"


def per_sequence(logits, targets):
    return jnp.mean(cross_entropy(logits, targets), -1)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_sequences_are_scored_by_all_their_tokens(tied):
    net = decoder("tiny", vocabulary=11, tied=tied, **SMALL)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 11, (24, 8)).astype(np.int32) for _ in range(2))
    data = Data.from_arrays((x, y), validate=0.5, calibrate=4)
    weights = net.init(jax.random.key(0), x[:2])
    archs = net.space.sample(rng, 4)
    scores = Evaluator(net, data, loss=per_sequence)(weights, archs)
    assert scores.examples["loss"].shape == (4, 12)
    for arch, found in zip(archs, scores.examples["loss"], strict=True):
        run = jax.jit(lambda w, x, a=arch: net.apply(*w, a, x)[0])
        want = per_sequence(run(weights, data.validate.x), data.validate.y)
        close(found, np.asarray(want), 1e-5)
