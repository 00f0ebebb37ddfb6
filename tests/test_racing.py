"""Racing: its confidence by simulation, and what it does to real scores."""

import jax
import numpy as np
import pytest
from supernets import BY_NAME

from oneshot.algorithms import RandomSearch
from oneshot.bound import bind
from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.racing import Race, random_order
from oneshot.resources import Resources
from oneshot.scores import Scores
from oneshot.searching import Objective, search
from oneshot.trials import Trials

NAN, INF = float("nan"), float("inf")


def race_to_the_end(race, values):
    """Return how many images each row of [m, n] was scored on, as an evaluator does."""
    m, n = values.shape
    part, images, alive = -(-n // race.parts), np.zeros(m, int), np.arange(m)
    for seen in range(part, n + part, part):
        images[alive] = min(seen, n)
        if seen < n:
            alive = alive[~race.losers(values[alive, :seen], n, m)]
    return images


# --- its confidence ---------------------------------------------------------------


def normal(rng, m, n):
    return rng.normal(size=(m, n)) + rng.normal(size=n)  # images are hard for all


def cross_entropies(rng, m, n):
    logits = 3 - 2 * rng.normal(size=n) + 1.5 * rng.normal(size=(m, n))
    return np.log1p(np.exp(-2 * logits))


def failures(rng, m, n):
    return 0.1 * rng.random((m, n)) + 5 * (rng.random((m, n)) < 0.01)


def some_that_fail(rng, m, n):
    # Of equal means: half are steady, half better but for one image in a hundred.
    values, half = 0.05 * rng.normal(size=(m, n)), m // 2
    values[:half] += 5 * (rng.random((half, n)) < 0.01)
    values[half:] += 0.05
    return values


def errors(rng, m, n):
    return (rng.random((m, n)) < 0.1).astype(float)


@pytest.mark.parametrize("gap", [0.0, 0.02])
@pytest.mark.parametrize(
    "draw", [normal, cross_entropies, failures, some_that_fail, errors]
)
def test_the_best_on_all_images_are_still_in_at_the_stated_confidence(draw, gap):
    rng, m, repeats = np.random.default_rng(0), 24, 200
    for top, n in ((1, 40), (1, 200), (6, 200)):
        race, lost = Race(top=top, confidence=0.9), 0
        for _ in range(repeats):
            values = draw(rng, m, n) + gap * np.arange(m)[:, None]
            best = np.argsort(values.mean(1), kind="stable")[:top]
            lost += (race_to_the_end(race, values)[best] < n).any()
        # Bonferroni promises more than it says, so no allowance for chance.
        assert lost <= 0.1 * repeats, (top, n)


def test_a_pair_on_many_images_has_the_level_of_a_t_test():
    # One test in the race, of two that are equal but for chance: what is lost with
    # probability 1/2 * (1 - confidence) is the better one, and the bound is tight.
    rng, race, lost, n = np.random.default_rng(0), Race(1, 0.6, parts=2), 0, 4000
    for _ in range(400):
        values = rng.normal(size=(2, n))
        images = race_to_the_end(race, values)
        lost += images[values.mean(1).argmin()] < n
    assert 0.08 < lost / 400 < 0.4


def test_most_of_the_far_off_get_one_part():
    rng, n = np.random.default_rng(0), 400
    values = cross_entropies(rng, 30, n)
    values[10:] += 1 + rng.random((20, 1))
    images = race_to_the_end(Race(top=10), values)
    assert (images[:10] == n).all() and (images[10:] == n // 4).sum() >= 18


def test_hopeless_candidates_do_not_keep_bad_ones_in():
    rng, n = np.random.default_rng(0), 2000
    values = normal(rng, 12, n)
    values[4:] += 0.5
    alone = race_to_the_end(Race(top=4), values)
    values[-1] += 100 * rng.random(n)
    assert (alone[4:] == n // 4).all()
    assert (race_to_the_end(Race(top=4), values) == alone).all()


# --- ties, failures, directions ---------------------------------------------------


def test_equal_candidates_stay_in_together():
    values = np.tile(np.random.default_rng(0).random((1, 400)), (20, 1))
    assert (race_to_the_end(Race(top=1), values) == 400).all()
    assert (race_to_the_end(Race(top=1), np.zeros((20, 400))) == 400).all()


def test_rounding_tells_nobody_apart():
    rng = np.random.default_rng(0)
    values = np.tile(rng.random((1, 4000)) + 1, (8, 1)).astype(np.float32)
    values[1:] = np.nextafter(values[1:], np.float32(INF))  # all in one direction
    assert (race_to_the_end(Race(top=1), values) == 4000).all()


def test_a_tie_for_the_last_place_is_no_loss():
    values = normal(np.random.default_rng(0), 6, 400)
    values[3:5] = values[2]  # three for the third place
    values[5] += 9
    assert race_to_the_end(Race(top=3), values).tolist() == [400] * 5 + [100]


def test_few_images_without_variance_prove_nothing():
    values = np.zeros((2, 12))
    values[1] = 1
    assert not Race(top=1).losers(values[:, :3], 12, 2).any()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_is_out_first_and_never_best(bad):
    rng = np.random.default_rng(0)
    for maximise in (False, True):
        values = rng.normal(size=(6, 80))
        values[2, 3] = bad
        out = Race(top=3, maximise=maximise).losers(values[:, :20], 80, 6)
        assert out.tolist() == [False, False, True, False, False, False]
        # Without enough rivals to hold a test, too; and all may fail.
        few = Race(top=10, maximise=maximise)
        assert few.losers(values[1:3, :5], 80, 6).tolist() == [False, True]
        assert few.losers(np.full((4, 20), bad), 80, 4).all()


def test_a_failure_does_not_take_a_place_among_the_best():
    values = normal(np.random.default_rng(0), 4, 400)
    values[0, 1], values[3] = NAN, values[1] + 9
    assert race_to_the_end(Race(top=2), values).tolist() == [100, 400, 400, 100]


def test_more_may_be_better():
    values = 1 - errors(np.random.default_rng(0), 8, 800)
    values[4:] *= 0.5
    race = Race(top=4, metric="accuracy", maximise=True)
    assert race_to_the_end(race, values).tolist() == [800] * 4 + [200] * 4
    assert (
        Race(top=4).losers(values[:, :200], 800, 8) == [True] * 4 + [False] * 4
    ).all()


def test_no_more_candidates_than_places_is_no_race():
    values = normal(np.random.default_rng(0), 5, 400) + np.arange(5)[:, None]
    for top in (5, 6, 100):
        assert (race_to_the_end(Race(top=top), values) == 400).all()
    assert not Race(top=3).losers(np.zeros((0, 100)), 400, 5).size


def test_more_confidence_drops_fewer():
    values = normal(np.random.default_rng(0), 30, 400)
    values += 0.03 * np.arange(30)[:, None]
    spent = [
        race_to_the_end(Race(top=5, confidence=c), values).sum()
        for c in (0.5, 0.9, 0.999)
    ]
    assert spent == sorted(spent) and spent[0] < spent[-1]


def test_only_whole_parts_are_tested():
    values = normal(np.random.default_rng(0), 12, 400)
    values += 0.3 * np.arange(12)[:, None]
    race = Race(top=2)
    whole = race.losers(values[:, :200], 400, 12)
    assert whole.any() and not race.losers(values[:, :99], 400, 12).any()
    np.testing.assert_array_equal(race.losers(values[:, :299], 400, 12), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 0}, "`top` is at least 1, but got 0"),
        ({"confidence": 1.0}, "`confidence` is between 0 and 1, both excluded"),
        ({"confidence": NAN}, "`confidence` is between 0 and 1"),
        ({"parts": 1}, "`parts` is at least 2, but got 1"),
    ],
)
def test_bad_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Race(**{"top": 3, **change})


def test_the_order_is_a_permutation_and_always_the_same():
    order = random_order(50)
    assert sorted(order) == list(range(50)) and order.tolist() != list(range(50))
    np.testing.assert_array_equal(order, random_order(50))


# --- with an evaluator ------------------------------------------------------------

RACE = Race(top=3, confidence=0.9)


class Field:
    """A small supernet, 240 images to score, 24 archs; one evaluator of each kind."""

    def __init__(self):
        reference = BY_NAME["mixed"]
        self.net = reference.make()
        self.weights = reference.weights(self.net)
        self.data = reference.data(n=720)
        self.archs = reference.archs(self.net, 24)
        self.plain = Evaluator(self.net, self.data)
        self.racing = self.again(race=RACE)
        self.full = self.plain(self.weights, self.archs)
        self.progress = []
        self.raced = self.racing(
            self.weights,
            self.archs,
            on_progress=lambda done, total: self.progress.append((done, total)),
        )

    def again(self, **options):
        return Evaluator(self.net, self.data, engine=self.plain.engine, **options)


@pytest.fixture(scope="module")
def field():
    return Field()


def test_evaluators_race_only_if_told_to(field):
    assert field.plain.race is None and "race" not in field.plain.settings
    assert field.full.scored is None
    assert (field.full.images == 240).all()
    assert field.racing.settings_digest != field.plain.settings_digest
    other = field.again(race=Race(top=4, confidence=0.9))
    assert other.settings_digest != field.racing.settings_digest


def test_progress_ends_at_all_of_them(field):
    done = [d for d, total in field.progress if total == 24]
    assert len(done) == len(field.progress) and done == sorted(done) and done[-1] == 24


def test_those_still_in_have_their_full_scores_and_the_rest_fewer_images(field):
    full, raced, images = field.full, field.raced, field.raced.images
    whole = images == 240
    assert set(images) <= {60, 120, 180, 240} and 3 <= whole.sum() < 24
    best = np.argsort(full.loss)[:3]
    assert whole[best].all()
    for metric, values in full.examples.items():
        np.testing.assert_allclose(
            raced.examples[metric][whole], values[whole], 1e-5, 1e-6
        )
        # The others' are those of the images that they were scored on, in place.
        np.testing.assert_allclose(
            raced.examples[metric][raced.scored], values[raced.scored], 1e-5, 1e-6
        )
    np.testing.assert_allclose(raced.loss[whole], full.loss[whole], 1e-5)
    errors = raced.standard_error("loss"), full.standard_error("loss")
    assert (errors[0][~whole] > errors[1][~whole]).all()
    assert [row["n"] for row in raced.rows()] == images.tolist()
    assert np.isfinite([row["loss"] for row in raced.rows()]).all()


def test_a_race_computes_less(field):
    plain, racing = (
        field.again(resources=Resources(cache_bytes=0, chunk=60), race=race)
        for race in (None, RACE)
    )
    for evaluator in (plain, racing):
        evaluator(field.weights, field.archs)
    for kind in ("evaluate", "score"):
        assert racing.counts[kind] < 0.9 * plain.counts[kind]
    assert racing.counts["calibrate"] == plain.counts["calibrate"]


def test_the_memory_for_a_part_does_not_change_who_is_out(field):
    small = field.again(race=RACE, resources=Resources(chunk=25))
    images = small(field.weights, field.archs).images
    np.testing.assert_array_equal(images == 240, field.raced.images == 240)


@pytest.mark.slow
def test_devices_drop_the_same_candidates(field):
    spread = Evaluator(
        field.net,
        field.data,
        race=RACE,
        resources=Resources(devices=jax.devices()),
    )
    raced = spread(field.weights, field.archs)
    np.testing.assert_array_equal(raced.images, field.raced.images)
    np.testing.assert_allclose(raced.loss, field.raced.loss, 1e-5)


def test_a_call_without_archs_is_no_race(field):
    assert field.racing(field.weights, []).rows() == []


def test_networks_that_fail_are_out_after_one_part(field):
    bad = jax.tree.map(lambda a: np.full_like(a, NAN), field.weights)
    raced = field.racing(bad, field.archs)
    assert (raced.images == 60).all() and np.isnan(raced.loss).all()


def test_a_race_over_what_is_not_measured_is_refused(field):
    with pytest.raises(ValueError, match="compares 'f1', which is not measured"):
        field.again(race=Race(top=3, metric="f1"))


def test_trials_hold_the_number_of_images(field, tmp_path):
    with Trials(tmp_path / "trials.sqlite") as trials:
        result = search(
            RandomSearch(field.net.space, seed=0, over="paths"),
            bind(field.racing, field.weights),
            [Objective("loss")],
            budget=24,
            batch=24,
            trials=trials,
        )
        stored = trials.all()
    assert all(t.status == "done" for t in stored)
    assert [t.scores["n"] for t in stored] == [t.scores["n"] for t in result.trials]
    fewer = [t for t in stored if t.scores["n"] < 240]
    assert fewer and min(stored, key=lambda t: t.scores["loss"]) not in fewer


def test_a_group_that_an_arch_never_saw_has_no_score_and_is_no_failure():
    examples = {"loss": np.array([[1, 2, NAN, NAN], [1, 2, 3, 4]], np.float32)}
    scored = np.array([[True, True, False, False], [True] * 4])
    scores = Scores(((0,), (1,)), examples, np.zeros(2), scored)
    first, second = scores.rows(["a", "b", "b", "c"])
    assert first == {
        "loss": 1.5, "loss_se": 0.5, "n": 2, "loss[a]": 1.0, "loss[b]": 2.0,
        "loss_lowest": 1.0, "loss_highest": 2.0,
    }  # fmt: skip
    assert second["loss[b]"] == 2.5 and second["loss_highest"] == second["loss[c]"] == 4


@pytest.mark.slow
def test_a_race_over_sorted_images_sees_all_classes_in_its_first_part():
    reference = BY_NAME["mixed"]
    x, y = reference.batch(240)
    place = np.argsort(y, kind="stable")
    data = Data.from_arrays(reference.batch(40, 1), validate=(x[place], y[place]))
    net = reference.make()
    evaluator = Evaluator(net, data, race=RACE)
    scores = evaluator(reference.weights(net), reference.archs(net, 24))
    first = random_order(240)[:60]
    assert scores.scored[:, first].all() and set(y[place][first]) == set(y)
