"""Once-for-All's two image spaces against PyTorch definitions of their own.

The definitions are written from the papers' tables: MobileNetV3's (arXiv:1905.02244,
table 1) with Once-for-All's stages (arXiv:1908.09791), ResNet-D's (arXiv:1812.01187).
They live on PyTorch's meta device, which has shapes and no numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneshot.costs import Costs
from oneshot.spaces import mobilenet_v3, resnet50

torch = pytest.importorskip("torch")
nn = torch.nn


def eight(channels):
    """The nearest multiple of 8, the next one up where a tenth would be lost."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


class Layer(nn.Sequential):
    """Convolution, norm, and what follows."""

    def __init__(self, before, after, kernel=1, stride=1, groups=1, then=()):
        conv = nn.Conv2d(
            before, after, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        super().__init__(conv, nn.BatchNorm2d(after), *then)


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.reduce = nn.Conv2d(channels, eight(channels // 4), 1)
        self.expand = nn.Conv2d(eight(channels // 4), channels, 1)

    def forward(self, x):
        y = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu())
        return x * nn.functional.hardsigmoid(y)


class Sum(nn.Module):
    def __init__(self, *branches, then=None):
        super().__init__()
        self.branches, self.then = nn.ModuleList(branches), then

    def forward(self, x):
        y = sum(branch(x) for branch in self.branches)
        return y if self.then is None else self.then(y)


def mobile_block(before, after, hidden, kernel, stride, act, squeeze):
    parts = [Layer(before, hidden, then=[act()])] if hidden != before else []
    parts.append(Layer(hidden, hidden, kernel, stride, hidden, [act()]))
    parts += [Squeeze(hidden)] if squeeze else []
    parts.append(Layer(hidden, after))
    block = nn.Sequential(*parts)
    return Sum(block, nn.Identity()) if stride == 1 and before == after else block


def torch_mobilenet_v3(genes, width):
    relu, swish = nn.ReLU, nn.Hardswish
    stages = [
        (24, 2, relu, False),
        (40, 2, relu, True),
        (80, 2, swish, False),
        (112, 1, swish, True),
        (160, 2, swish, True),
    ]
    before = eight(16 * width)
    parts = [Layer(3, before, 3, 2, then=[swish()])]
    parts.append(mobile_block(before, before, before, 3, 1, relu, False))
    for s, (channels, stride, act, squeeze) in enumerate(stages, 1):
        after = eight(channels * width)
        for i in range(genes[f"stage{s}.depth"]):
            kernel = genes[f"stage{s}.{i}.kernel"]
            hidden = eight(before * genes[f"stage{s}.{i}.expand"])
            stride = 1 if i else stride
            form = hidden, kernel, stride, act, squeeze
            parts.append(mobile_block(before, after, *form))
            before = after
    last, mix = eight(960 * width), eight(1280 * width)
    parts += [Layer(before, last, then=[swish()]), nn.AdaptiveAvgPool2d(1)]
    parts += [nn.Conv2d(last, mix, 1, bias=False), swish(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(mix, 1000))


def torch_resnet50(genes):
    def bottleneck(before, after, hidden, stride, first):
        chain = nn.Sequential(
            Layer(before, hidden, then=[nn.ReLU()]),
            Layer(hidden, hidden, 3, stride, then=[nn.ReLU()]),
            Layer(hidden, after),
        )
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
        pooled = nn.Sequential(pool, Layer(before, after)) if first else nn.Identity()
        return Sum(chain, pooled, then=nn.ReLU())

    middle, before = genes["stem.width"], genes["end.width"]
    parts = [Layer(3, middle, 3, 2, then=[nn.ReLU()])]
    if genes["residual.depth"]:
        parts.append(Sum(Layer(middle, middle, 3, then=[nn.ReLU()]), nn.Identity()))
    parts += [Layer(middle, before, 3, then=[nn.ReLU()]), nn.MaxPool2d(3, 2, 1)]
    for s in range(1, 5):
        after = genes[f"stage{s}.width"]
        for i in range(genes[f"stage{s}.depth"]):
            hidden = eight(round(after * genes[f"stage{s}.{i}.expand"]))
            stride = 1 if i or s == 1 else 2
            parts.append(bottleneck(before, after, hidden, stride, i == 0))
            before = after
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000)]
    return nn.Sequential(*parts)


def count(make, size):
    """Parameters, and multiply-adds of convolutions and linear layers."""
    macs = []

    def hook(module, inputs, output):
        del inputs
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs.append(output.numel() * module.weight[0].numel())

    with torch.device("meta"):
        model = make().eval()
        for module in model.modules():
            module.register_forward_hook(hook)
        model(torch.zeros(1, 3, size, size))
    return {"params": sum(p.numel() for p in model.parameters()), "macs": sum(macs)}


@pytest.mark.slow
def test_resolutions_may_be_one_or_none():
    def options(resolutions):
        space = mobilenet_v3("tiny", resolutions=resolutions).space
        return [c.options for c in space.choices if "resolution" in c.name]

    assert options(None) == options(()) == []
    assert options(32) == options([32])


def of(net, size):
    costs = Costs(net, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))

    def cost(arch):
        found = costs(arch)
        return {"params": found["params"], "macs": found["macs"]}

    return cost


def end(net, pick):
    return net.space.arch({c.name: pick(c.options) for c in net.space.choices})


MOBILE = {  # (width, size, which): parameters and multiply-adds in the docstring
    (1.0, 224, max): (7_664_760, 566_170_656),
    (1.0, 224, min): (3_410_792, 121_278_672),
    (1.2, 224, max): (10_701_632, 843_101_040),
    (1.2, 224, min): (4_602_456, 193_078_200),
}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 1.2])
def test_mobilenet_v3_costs_what_its_definition_in_pytorch_does(width):
    net = mobilenet_v3(width=width)
    cost = of(net, 224)
    ends = {pick: end(net, pick) for pick in (max, min)}
    drawn = net.space.sample(np.random.default_rng(0), 3)
    for arch in (*ends.values(), *drawn):
        genes = net.space.describe(arch)
        definition = count(lambda g=genes: torch_mobilenet_v3(g, width), 224)
        assert cost(arch) == definition
    for pick, arch in ends.items():
        params, macs = MOBILE[width, 224, pick]
        assert cost(arch) == {"params": params, "macs": macs}


@pytest.mark.slow
def test_mobilenet_v3_spans_more_than_ten_to_the_nineteen():
    space = mobilenet_v3().space
    assert space.num_paths == (9**2 + 9**3 + 9**4) ** 5 > 10**19


@pytest.mark.slow
def test_the_smallest_mobilenet_v3_is_as_reported():
    net = mobilenet_v3()
    reported = 89_421_520  # at 192x192, see the module
    assert abs(of(net, 192)(end(net, min))["macs"] / reported - 1) < 0.01


@pytest.mark.slow
def test_resnet50_costs_what_its_definition_in_pytorch_does():
    net = resnet50()
    cost = of(net, 224)
    ends = {pick: end(net, pick) for pick in (max, min)}
    for arch in (*ends.values(), *net.space.sample(np.random.default_rng(0), 3)):
        genes = net.space.describe(arch)
        assert cost(arch) == count(lambda g=genes: torch_resnet50(g), 224)
    assert cost(ends[max]) == {"params": 48_105_992, "macs": 7_491_643_904}
    assert cost(ends[min]) == {"params": 6_539_280, "macs": 962_192_128}


@pytest.mark.slow
def test_resnet50_holds_the_published_resnet50d():
    net = resnet50()
    options = {c.name: max(c.options) for c in net.space.choices}
    options |= {name: 0.25 for name in options if name.endswith("expand")}
    options |= {f"stage{i}.depth": d for i, d in enumerate((3, 4, 6, 3), 1)}
    arch = net.space.arch(options)
    assert of(net, 224)(arch) == {"params": 25_576_264, "macs": 4_328_824_832}
    weights = 102_567_109  # bytes of the published file, four for each parameter
    assert abs(4 * 25_576_264 / weights - 1) < 0.01


def test_resolutions_are_an_option_of_the_stem():
    net = mobilenet_v3("tiny", resolutions=(24, 32))
    arch = net.space.arch({"stem.resolution": 24})
    resized, plain = of(net, 32)(arch), of(mobilenet_v3("tiny"), 24)(arch[1:])
    assert resized == plain


def test_unknown_sizes_are_refused():
    for space in (mobilenet_v3, resnet50):
        with pytest.raises(ValueError, match="There are sizes tiny, published"):
            space("huge")
