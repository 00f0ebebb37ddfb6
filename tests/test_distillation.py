"""Losses of students and of pairs: values, gradients, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import LR, Cycle, sgd
from scipy.special import log_softmax
from supernets import BY_NAME

from oneshot import Trainer
from oneshot.distillation import AdaptiveAlphaDivergence, SoftCrossEntropy
from oneshot.losses import SmoothedCrossEntropy, cross_entropy, next_token
from oneshot.paths import Step, num_nodes, together
from oneshot.strategies import Planned
from oneshot.teaching import PairwiseRank, Teaching, check_plan, order_of

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 6, 5)).astype(np.float32)
LABELS = RNG.integers(5, size=6)


@pytest.mark.parametrize("temperature, soft, labels", [(1, 1, 0), (3, 0.5, 1)])
def test_soft_cross_entropy_is_the_sum_written_out(temperature, soft, labels):
    loss = SoftCrossEntropy(temperature, soft, labels)
    log_q = log_softmax(STUDENT / temperature, axis=-1)
    p = np.exp(log_softmax(TEACHER / temperature, axis=-1))
    want = -soft * temperature**2 * (p * log_q).sum(-1)
    want -= labels * log_softmax(STUDENT, axis=-1)[range(6), LABELS]
    np.testing.assert_allclose(loss(STUDENT, LABELS, TEACHER), want, rtol=1e-5)


def divergence(alpha, student, teacher):
    """The definition, written out for one alpha that is neither 0 nor 1."""
    q, p = (jnp.exp(jax.nn.log_softmax(x)) for x in (student, teacher))
    return jnp.sum(q * ((p / q) ** alpha - 1), -1) / (alpha * (alpha - 1))


def kullback_leibler(student, teacher):
    log_q, log_p = (jax.nn.log_softmax(x) for x in (student, teacher))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (-0.5, 2.0), (-2.0, 0.5)])
def test_alpha_divergence_and_its_gradient_are_the_definitions(low, high):
    loss = AdaptiveAlphaDivergence(low, high, clip=1e6)

    def want(student, teacher):
        above = kullback_leibler if high == 1 else lambda *x: divergence(high, *x)
        return jnp.maximum(divergence(low, student, teacher), above(student, teacher))

    np.testing.assert_allclose(
        loss(STUDENT, None, TEACHER), want(STUDENT, TEACHER), rtol=1e-4, atol=1e-6
    )
    got = jax.grad(lambda s: loss(s, None, TEACHER).sum())(STUDENT)
    expected = jax.grad(lambda s: want(s, TEACHER).sum())(STUDENT)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_at_the_defaults_a_student_that_misses_a_class_gets_the_whole_gradient():
    student, teacher = jnp.array([[-4.0, 0.0]]), jnp.array([[2.2, 0.0]])
    loss = AdaptiveAlphaDivergence()
    got = jax.grad(lambda s: loss(s, None, teacher).sum())(student)
    want = jax.grad(lambda s: kullback_leibler(s, teacher).sum())(student)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("make", [SoftCrossEntropy, AdaptiveAlphaDivergence])
def test_a_sequence_counts_by_its_tokens_without_padding(make):
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    targets = np.array([[1, 2, 3, 0], [1, -1, 2, -1], [0, 0, -1, -1]])
    each = make()(student.reshape(12, 5), None, teacher.reshape(12, 5)).reshape(3, 4)
    want = [row[t >= 0].mean() for row, t in zip(each, targets, strict=True)]
    np.testing.assert_allclose(make()(student, targets, teacher), want, rtol=1e-5)


def test_tokens_are_distilled_and_labelled_at_once():
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    targets = np.array([[1, 2, 3, 0], [1, -1, 2, -1], [0, 0, -1, -1]])
    both = SoftCrossEntropy(labels=1.0, hard=next_token)(student, targets, teacher)
    soft = SoftCrossEntropy()(student, targets, teacher)
    np.testing.assert_allclose(both, soft + next_token(student, targets), rtol=1e-5)


@pytest.mark.parametrize("make", [SoftCrossEntropy, AdaptiveAlphaDivergence])
def test_frames_count_alike_where_targets_are_shorter_sequences(make):
    """Of CTC, whose padded targets may happen to be as long as its frames."""
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    targets = np.array([[1, 2, -1, -1], [1, -1, -1, -1], [3, 2, 1, -1]])
    loss = make(aligned=False)
    want = loss(student, targets[:, :3], teacher)
    np.testing.assert_array_equal(loss(student, targets, teacher), want)
    assert not np.allclose(make()(student, targets, teacher), want)


@pytest.mark.parametrize("named", [None, cross_entropy])
def test_labels_of_students_have_the_trainers_loss_unless_another_is_named(named):
    reference = BY_NAME["mixed"]
    net, smooth = reference.make(), SmoothedCrossEntropy(0.3)
    archs = reference.archs(net, 2)
    plan = (Planned(archs[0], "teacher"), Planned(archs[1], "student"))
    losses = []
    for hard in (named, smooth if named is None else named):
        teaching = Teaching(SoftCrossEntropy(labels=1.0, hard=hard))
        strategy = Cycle((plan,))
        trainer = Trainer(net, strategy, sgd, LR, loss=smooth, teaching=teaching)
        state = trainer.init(0, reference.batch()[0])
        losses.append(
            float(trainer.step(state, reference.batch())[1].logged[1]["distillation"])
        )
    assert losses[0] == losses[1]


def test_a_cut_ratio_bounds_the_gradient_of_what_a_student_misses():
    student, teacher = jnp.array([[0.0, -30.0]]), jnp.array([[-30.0, 0.0]])
    loss = AdaptiveAlphaDivergence(-1.0, 2.0)
    gradient = jax.grad(lambda s: loss(s, None, teacher).sum())(student)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() <= 5.0
    assert np.isfinite(loss(student, None, teacher)).all()


@pytest.mark.parametrize("loss", [SoftCrossEntropy(), AdaptiveAlphaDivergence()])
def test_nothing_flows_into_the_teacher_and_it_is_the_optimum(loss):
    to_teacher = jax.grad(lambda t: loss(STUDENT, None, t).sum())(TEACHER)
    np.testing.assert_array_equal(to_teacher, 0)
    at_optimum = jax.grad(lambda s: loss(s, None, TEACHER).sum())(TEACHER)
    np.testing.assert_allclose(at_optimum, 0, atol=1e-5)


def test_a_pair_in_the_right_order_costs_nothing():
    rank = PairwiseRank(weight=2.0)
    assert rank(jnp.float32(1.0), jnp.float32(1.5)) == 0
    slopes = jax.grad(rank, (0, 1))(jnp.float32(1.5), jnp.float32(1.0))
    assert [float(s) for s in slopes] == [2.0, -2.0]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: SoftCrossEntropy(0.0), "temperature=0.0"),
        (lambda: AdaptiveAlphaDivergence(low=0.5), "low=0.5"),
        (lambda: AdaptiveAlphaDivergence(clip=1.0), "clip=1.0"),
        (lambda: PairwiseRank(-1.0), "got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def plan(*roles):
    return tuple(Planned((0,), role) for role in roles)


@pytest.mark.parametrize(
    "roles, words",
    [
        ((), "got none"),
        (("student",), "needs a teacher"),
        (("teacher", "teacher"), "one teacher at most"),
        (("worse", "better"), "one pair after another"),
        (("better",), "one pair after another"),
        (("label",), "but got 'label'"),
    ],
)
def test_plans_whose_roles_do_not_fit_are_refused(roles, words):
    with pytest.raises(ValueError, match=words):
        check_plan(plan(*roles), Teaching())


def test_an_external_teacher_will_do():
    check_plan(plan("student", "labels"), Teaching(teacher=lambda x: x))


def random_paths(n, rng):
    return [
        tuple(Step(i, f"m{i}.{rng.integers(2)}") for i in range(4)) for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_paths_that_stand_together_run_each_node_once(seed):
    paths = random_paths(12, np.random.default_rng(seed))
    order, shared = together(paths)
    assert sorted(order) == list(range(12)) and order[0] == 0
    new = [len(paths[i]) - n for i, n in zip(order, shared, strict=True)]
    assert sum(new) == num_nodes(paths)


@pytest.mark.parametrize("seed", range(5))
def test_a_teacher_runs_first_and_pairs_last(seed):
    rng = np.random.default_rng(seed)
    roles = ["student", "better", "worse", "labels", "teacher", "student"]
    order, shared = order_of(roles, random_paths(6, rng))
    assert order[0] == 4 and order[-2:] == [1, 2] and shared[-2:] == [0, 0]
