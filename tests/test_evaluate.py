"""Scores: recalibration by hand, order, sharing of prefixes, standard errors."""

import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import close, same_bits
from supernets import BY_NAME

from oneshot.bound import bind
from oneshot.data import Data
from oneshot.evaluate import Evaluator, Scores
from oneshot.extraction import extract
from oneshot.layers import Identity, OneOf
from oneshot.losses import SmoothedCrossEntropy, cross_entropy
from oneshot.resources import Resources
from oneshot.strategies import Fixed, Uniform
from oneshot.supernet import Supernet, Weights
from oneshot.train import Trainer

UNCACHED = Resources(cache_bytes=0)


class Case:
    def __init__(self, name):
        self.reference = BY_NAME[name]
        self.net = self.reference.make()
        self.weights = self.reference.weights(self.net)
        self.data = self.reference.data(n=30)
        self.evaluator = Evaluator(self.net, self.data)
        self.archs = self.reference.archs(self.net, 4)

    def again(self, data=None, **options):
        """Another evaluator with the same programs."""
        engine = self.evaluator.engine
        return Evaluator(self.net, data or self.data, engine=engine, **options)


@pytest.fixture(scope="module", params=["mixed", "elastic_width", "carried"])
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def mixed():
    return Case("mixed")


@pytest.fixture(scope="module")
def nb_macro():
    case = Case("nb_macro")
    case.evaluator.warm_up()
    return case


@pytest.mark.slow
def test_recalibration_is_one_pass_in_batch_statistics_mode(case):
    for arch in case.archs[:2]:
        run = functools.partial(
            case.net.run, path=case.net.path(arch), mode="calibrate"
        )
        _, state = jax.jit(run)(case.weights, x=case.data.calibrate.x)
        got = case.evaluator.recalibrated(case.weights, arch)
        close(got.state, state, 1e-5)
        assert got.params is case.weights.params
        apply = jax.jit(lambda w, x, arch=arch: case.net.apply(*w, arch, x)[0])
        logits = apply(Weights(case.weights.params, state), case.data.validate.x)
        want = cross_entropy(logits, case.data.validate.y)
        got = case.evaluator(case.weights, [arch]).examples
        np.testing.assert_allclose(got["loss"][0], want, 1e-5, 1e-6)
        right = logits.argmax(-1) == case.data.validate.y
        np.testing.assert_array_equal(got["accuracy"][0], right)


def test_running_averages_of_training_are_not_used(mixed):
    moved = jax.tree.map(lambda a: a + 3, mixed.weights.state)
    other = mixed.evaluator(Weights(mixed.weights.params, moved), mixed.archs)
    assert same_bits(
        other.examples, mixed.evaluator(mixed.weights, mixed.archs).examples
    )


def test_statistics_are_kept_where_recalibration_is_off(mixed):
    kept = mixed.again(recalibrate=False)
    arch = mixed.archs[0]
    own = mixed.evaluator.recalibrated(mixed.weights, arch)
    a, b = kept(own, [arch]), mixed.evaluator(mixed.weights, [arch])
    np.testing.assert_allclose(a.examples["loss"], b.examples["loss"], 1e-5)
    assert kept.settings_digest != mixed.evaluator.settings_digest
    stale = kept(mixed.weights, [arch])
    assert not np.allclose(stale.examples["loss"], b.examples["loss"], 1e-3)


@pytest.mark.parametrize("chunk", [3, 4, 100])
def test_chunks_give_the_scores_of_the_whole(mixed, chunk):
    whole = mixed.evaluator(mixed.weights, mixed.archs)
    cut = mixed.again(resources=Resources(chunk=chunk))(mixed.weights, mixed.archs)
    assert cut.n == whole.n == 10
    for metric, values in whole.examples.items():
        np.testing.assert_allclose(cut.examples[metric], values, 1e-5, 1e-6)


def test_scores_come_in_the_order_of_the_archs(mixed):
    scores = mixed.evaluator(mixed.weights, mixed.archs)
    assert scores.archs == tuple(mixed.archs)
    back = mixed.evaluator(mixed.weights, mixed.archs[::-1])
    np.testing.assert_array_equal(back.loss, scores.loss[::-1])
    for arch, loss in zip(mixed.archs, scores.loss, strict=True):
        alone = mixed.evaluator(mixed.weights, [arch])
        np.testing.assert_allclose(alone.loss, [loss], rtol=1e-6)
    assert len(set(scores.loss)) == len(mixed.archs)


def test_archs_with_one_path_are_scored_once(mixed):
    space = mixed.net.space
    base = space.arch({"stage.depth": 1, "first.op": "skip"})
    op = space.index("stage.1.op")
    unread = [(*base[:op], value, *base[op + 1 :]) for value in (0, 1)]
    assert unread[0] != unread[1] and op not in space.read(base)
    evaluator, done = mixed.again(), []
    archs = [*unread, mixed.archs[0], *unread]
    scores = evaluator(mixed.weights, archs, lambda *n: done.append(n))
    assert evaluator.counts["score"] == 2 and done == [(1, 2), (2, 2)]
    assert (scores.seconds > 0).tolist() == [True, False, True, False, False]
    assert len({scores.loss[i] for i in (0, 1, 3, 4)}) == 1


@pytest.mark.slow
def test_shared_prefixes_give_the_scores_of_one_at_a_time(nb_macro):
    codes = nb_macro.net.space.sample(np.random.default_rng(0), 200)
    shared, apart = nb_macro.again(), nb_macro.again(resources=UNCACHED)
    scores = shared(nb_macro.weights, codes)
    alone = [apart(nb_macro.weights, [code]).examples["loss"] for code in codes]
    np.testing.assert_allclose(scores.examples["loss"], np.concatenate(alone), 1e-5)
    assert shared.counts["evaluate"] < 0.6 * apart.counts["evaluate"]


def test_each_prefix_is_computed_once(nb_macro):
    net, evaluator = nb_macro.net, nb_macro.again()
    codes = net.space.sample(np.random.default_rng(1), 40)
    evaluator(nb_macro.weights, codes)
    paths = {net.path(code) for code in codes}
    prefixes = {p[: i + 1] for p in paths for i in range(len(p) - 1)}
    heads = len(paths)
    assert evaluator.counts == {
        "calibrate": len(prefixes) + heads,
        "evaluate": len(prefixes),
        "score": heads,
    }


def test_chunks_calibrate_each_prefix_once(mixed):
    cut, whole = mixed.again(resources=Resources(chunk=3)), mixed.again()
    for evaluator in (cut, whole):
        evaluator(mixed.weights, mixed.archs)
    assert cut.counts["calibrate"] == whole.counts["calibrate"]


def test_standard_errors_and_rows_are_those_by_hand():
    examples = {
        "loss": np.array([[1, 2, 3, 6], [2, 2, 2, 2]], np.float32),
        "accuracy": np.array([[1, 0, 0, 1], [1, 1, 1, 1]], np.float32),
    }
    scores = Scores(((0,), (1,)), examples, np.zeros(2))
    assert scores.n == 4
    np.testing.assert_allclose(scores.loss, [3, 2])
    np.testing.assert_allclose(scores.accuracy, [0.5, 1])
    # Deviations -2, -1, 0, 3: variance 14 / 3, over 4 examples.
    np.testing.assert_allclose(scores.standard_error("loss"), [(14 / 12) ** 0.5, 0])
    # Deviations of 1/2 each: variance 1 / 3.
    np.testing.assert_allclose(scores.standard_error("accuracy"), [(1 / 12) ** 0.5, 0])
    first, second = scores.rows()
    assert first == {
        "loss": 3.0,
        "loss_se": pytest.approx((14 / 12) ** 0.5),
        "accuracy": 0.5,
        "accuracy_se": pytest.approx((1 / 12) ** 0.5),
        "n": 4,
    }
    assert second["loss_se"] == 0.0 and type(second["loss"]) is float
    one = Scores(((0,),), {"loss": np.ones((1, 1), np.float32)}, np.zeros(1))
    assert np.isnan(one.standard_error("loss"))


def test_too_little_memory_names_the_block_and_the_bytes(mixed):
    message = (
        r"Recalibrating block 'stem' on 8 images of float32\[8, 12\] takes [\d,]+ "
        r"bytes.*, more than the limit of 400\..*use about \d+ calibration images"
    )
    with pytest.raises(MemoryError, match=message):
        mixed.again(resources=Resources(memory_limit=400))
    enough = mixed.again(resources=Resources(memory_limit=10**9))
    enough(mixed.weights, mixed.archs[:1])


def test_bad_archs_splits_and_labels_are_refused(mixed):
    with pytest.raises(ValueError, match="one per choice, but got 1"):
        mixed.evaluator(mixed.weights, [mixed.archs[0], (0,)])
    with pytest.raises(ValueError, match="must not see the test split"):
        mixed.again(split="test")
    x, y = mixed.reference.batch(6)
    wrong = Data.from_arrays((x, y), validate=(x, y + 5))
    with pytest.raises(ValueError, match="Labels go from.*5 logits"):
        mixed.again(wrong)


def test_a_metric_is_one_number_for_each_example(mixed):
    metrics = {"loss": cross_entropy, "mean": lambda o, y: cross_entropy(o, y).mean()}
    with pytest.raises(ValueError, match=r"'mean' returns one number.*returned \[\]"):
        mixed.again(loss=metrics)


def test_what_is_no_weights_is_refused(mixed):
    trainer = Trainer(mixed.net, Uniform(mixed.net.space), optax.sgd, 0.1)
    x, y = mixed.reference.batch(4)
    state = trainer.init(0, x)
    whole = trainer.with_strategy(Fixed(mixed.archs[0]), 0.1)
    trained, _ = whole.step(whole.init(0, x), (x, y))
    given_up = state._replace(strategy=list(mixed.archs[0]))
    whole.step(given_up, (x, y))
    uses = {
        "evaluator": lambda w: mixed.evaluator(w, mixed.archs[:1]),
        "bind": lambda w: bind(mixed.evaluator, w),
        "extract": lambda w: extract(mixed.net, w, mixed.archs[0], x),
    }
    for use in uses.values():
        with pytest.raises(ValueError, match="got a TrainState. Pass state.weights"):
            use(trained)
        with pytest.raises(ValueError, match="got a dict"):
            use(trained.weights._asdict())
        with pytest.raises(ValueError, match="reused.*copy them before training on"):
            use(state.weights)


def test_a_model_may_be_extracted_while_tracing(mixed):
    x = mixed.reference.batch(4)[0]

    def arrays(weights):
        model = extract(mixed.net, weights, mixed.archs[0], x, recalibrate=False)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    assert jax.tree.leaves(jax.eval_shape(arrays, mixed.net.abstract()))


def test_training_data_may_be_scored_too(mixed):
    train = mixed.again(split="train")
    assert train(mixed.weights, mixed.archs[:1]).n == 20
    assert train.settings_digest != mixed.evaluator.settings_digest
    assert mixed.again().settings_digest == mixed.evaluator.settings_digest


def test_no_archs_give_no_scores(mixed):
    scores = mixed.evaluator(mixed.weights, [])
    assert scores.archs == () and scores.rows() == []


def test_several_metrics_are_scored_by_name(mixed):
    metrics = {"loss": cross_entropy, "twice": lambda o, y: 2 * cross_entropy(o, y)}
    scores = mixed.again(loss=metrics)(mixed.weights, mixed.archs[:2])
    assert set(scores.examples) == {"loss", "twice"}
    np.testing.assert_allclose(scores.mean("twice"), 2 * scores.loss, rtol=1e-6)


def test_what_search_calls_carries_the_digests_that_key_its_trials(mixed):
    bound = bind(mixed.evaluator, mixed.weights)
    assert bound(mixed.archs) == mixed.evaluator(mixed.weights, mixed.archs).rows()
    assert bound.split == "validate"
    assert bound.settings_digest == mixed.evaluator.settings_digest
    assert bind(mixed.evaluator, mixed.weights).weights_digest == bound.weights_digest
    other = mixed.reference.weights(mixed.net, seed=1)
    assert bind(mixed.evaluator, other).weights_digest != bound.weights_digest


class WithStatistics(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.linear(x))


def test_a_score_does_not_depend_on_the_other_archs_of_the_call():
    def linear(rngs):
        return nnx.Linear(4, 4, rngs=rngs)

    layers = [OneOf(a=linear, b=WithStatistics, skip=Identity) for _ in range(3)]
    net = Supernet(linear, layers, linear)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    data = Data.from_arrays((x, rng.integers(0, 4, 40)))
    weights = net.init(jax.random.key(0), x)
    evaluator = Evaluator(net, data)
    archs = list(net.space.enumerate())
    together = evaluator(weights, archs).loss
    backwards = evaluator(weights, archs[::-1]).loss[::-1]
    alone = [evaluator(weights, [arch]).loss[0] for arch in archs]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    np.testing.assert_allclose(backwards, alone, rtol=1e-6)


def test_settings_tell_losses_and_calibration_images_apart():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 4, 40)
    validate = arrays[0][:8], arrays[1][:8]

    def linear(rngs):
        return nnx.Linear(4, 4, rngs=rngs)

    net = Supernet(linear, [], linear)
    digests = set()
    for seed in (0, 1):
        data = Data.from_arrays(arrays, validate=validate, calibrate=8, seed=seed)
        for loss in (
            cross_entropy,
            SmoothedCrossEntropy(0.1),
            SmoothedCrossEntropy(0.2),
        ):
            digests.add(Evaluator(net, data, loss=loss).settings_digest)
    assert len(digests) == 6
