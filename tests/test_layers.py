"""What layers say: names of choices, ties, depth, and errors where they are wrong."""

import warnings

import pytest
from flax import nnx
from supernets import dense_layer, elastic_mlp, linear

from oneshot.functional import functional
from oneshot.layers import Elastic, Identity, OneOf, Stage
from oneshot.paths import Step
from oneshot.space import Choice
from oneshot.supernet import Supernet


def supernet(layers):
    return Supernet(dense_layer(12, 8), layers, linear())


def names(net):
    return {c.name: c.options for c in net.space.choices}


def test_choices_are_named_by_layer_and_keyword():
    net = supernet(
        [
            OneOf(skip=Identity, fc=dense_layer()),
            Elastic(elastic_mlp(8), hidden=(4, 8)),
            OneOf(mlp=Elastic(elastic_mlp(8), hidden=(2, 4)), skip=Identity),
            Stage(
                [Elastic(elastic_mlp(8), hidden=(4, 8)), dense_layer()], depth=(1, 2)
            ),
        ]
    )
    assert names(net) == {
        "layer0.op": ("skip", "fc"),
        "layer1.hidden": (4, 8),
        "layer2.op": ("mlp", "skip"),
        "layer2.mlp.hidden": (2, 4),
        "layer3.depth": (1, 2),
        "layer3.0.hidden": (4, 8),
    }


def test_layers_in_a_dict_keep_their_names_and_choices_may_be_named():
    stage = Stage({"a": OneOf(x=dense_layer(), y=dense_layer())}, depth=(0, 1))
    net = supernet({"body": stage, "last": OneOf("mine", p=dense_layer(), q=Identity)})
    assert [*names(net)] == ["body.depth", "body.a.op", "mine"]
    want = ["stem", "body.a.x", "body.a.y", "last.p", "head"]
    assert [*net.modules] == want


def test_stem_and_head_may_have_choices_too():
    either = OneOf(a=dense_layer(12), b=dense_layer(12))
    net = Supernet(either, [], OneOf(a=linear(), b=linear()))
    assert names(net) == {"stem.op": ("a", "b"), "head.op": ("a", "b")}
    assert net.path((1, 0)) == (Step(0, "stem.b"), Step(1, "head.a"))


def test_one_choice_given_to_several_layers_ties_them():
    hidden = Choice("hidden", (2, 4))
    layers = [Elastic(elastic_mlp(4), hidden=hidden) for _ in range(3)]
    net = supernet(layers)
    assert names(net) == {"hidden": (2, 4)}
    path = net.path((1,))
    assert [s.options for s in path[1:-1]] == [(("hidden", 4),)] * 3
    assert len({s.module for s in path}) == 5  # tied choices, weights of their own


def test_named_one_ofs_are_tied():
    both = [OneOf("op", skip=Identity, fc=dense_layer()) for _ in range(2)]
    net = supernet(both)
    assert net.space.size == 2
    assert len(net.path((0,))) == 2 and len(net.path((1,))) == 4


def test_tied_choices_with_unequal_options_are_refused():
    a, b = (Elastic(elastic_mlp(8), hidden=Choice("h", o)) for o in ((4, 8), (4, 6)))
    with pytest.raises(
        ValueError, match=r"choice 'h'.*\[4, 8\].*\[4, 6\].*equal options"
    ):
        supernet([a, b])


def test_a_tied_choice_is_read_where_any_of_its_layers_runs():
    tied = Elastic(elastic_mlp(8), hidden=Choice("h", (4, 8)))
    net = supernet([Stage([tied], depth=(0, 1)), OneOf(skip=Identity, mlp=tied)])
    depth, h, op = (net.space.index(n) for n in ("layer0.depth", "h", "layer1.op"))
    assert net.space.read((0, 0, 0)) == (depth, op)
    assert net.space.read((0, 0, 1)) == net.space.read((1, 0, 0)) == (depth, h, op)
    assert net.space.num_paths == 1 + 2 + 2 + 2


def test_depth_runs_the_first_layers_of_a_stage():
    net = supernet({"s": Stage([dense_layer()] * 3, depth=(0, 2, 3))})
    runs = [[s.module for s in net.path((i,))][1:-1] for i in range(3)]
    assert runs == [[], ["s.0", "s.1"], ["s.0", "s.1", "s.2"]]


def test_stages_nest_and_may_have_a_fixed_depth():
    inner = Stage([dense_layer(), dense_layer()], depth=(1, 2))
    net = supernet(
        [Stage([dense_layer(), inner], depth=(1, 2)), Stage([dense_layer()])]
    )
    assert names(net) == {"layer0.depth": (1, 2), "layer0.1.depth": (1, 2)}
    assert len(net.path((0, 1))) == 4 and net.path((0, 1)) == net.path((0, 0))
    assert [len(net.path((1, d))) for d in (0, 1)] == [5, 6]
    assert net.space.num_paths == 3


def test_options_of_a_step_are_sorted_by_keyword():
    def make(rngs):
        return TwoKnobs(rngs=rngs)

    net = supernet([Elastic(make, zoom=(1, 2), alpha=(3, 4))])
    assert net.path((1, 0))[1] == Step(1, "layer0", (("alpha", 3), ("zoom", 2)))


class TwoKnobs(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x, *, zoom, alpha):
        return self.linear(x) * (zoom * alpha)


def test_empty_and_impossible_layers_are_refused():
    with pytest.raises(ValueError, match="OneOf was given no options"):
        OneOf()
    with pytest.raises(ValueError, match="Elastic was given no choices"):
        Elastic(dense_layer())
    with pytest.raises(ValueError, match=r"2 layers runs 0 to 2.*\[3\]"):
        Stage([dense_layer()] * 2, depth=(1, 3))
    with pytest.raises(ValueError, match=r"holds \[5\]"):
        Stage([dense_layer()], depth=Choice("d", (1, 5)))


def test_a_built_module_is_no_layer():
    built = nnx.Linear(8, 8, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="'layer0'.*already built|'layer0' failed"):
        supernet([built])
    with pytest.raises(TypeError, match="'layer0' is 3. A layer is OneOf"):
        supernet([3])


def test_a_constructor_that_fails_or_returns_no_module_is_named():
    def needs_more(width, rngs):
        return nnx.Linear(width, 8, rngs=rngs)

    with pytest.raises(TypeError, match="'layer0' failed.*make\\(rngs=...\\)"):
        supernet([needs_more])
    with pytest.raises(TypeError, match="'layer0.fn' returned function.*nnx.Module"):
        supernet([OneOf(fn=lambda rngs: lambda x: x)])


class Activated(nnx.Module):
    def __init__(self, activation, *, rngs):
        self.linear, self.activation = nnx.Linear(8, 8, rngs=rngs), activation

    def __call__(self, x):
        return self.activation(self.linear(x))


def test_modules_built_alike_have_one_structure():
    def make(rngs):
        return Activated(nnx.relu, rngs=rngs)

    a, b = (functional(name, make) for name in "ab")
    assert a.graphdefs == b.graphdefs
    assert hash(a.graphdefs["train"]) == hash(b.graphdefs["train"])


def test_a_lambda_kept_as_attribute_is_warned_about():
    def make(rngs):
        return Activated(lambda x: nnx.relu(x), rngs=rngs)

    with pytest.warns(UserWarning, match="'layer0' twice.*lambda.*named function"):
        supernet([make])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        supernet([dense_layer()])
