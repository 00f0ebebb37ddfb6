"""Importance sampling of examples: those of large gradients more often, at less weight.

Reference:
  Katharopoulos, Fleuret. Not all samples are created equal: deep learning with
  importance sampling. ICML 2018. https://arxiv.org/abs/1803.00942
  Lu, Hu, Yang, Sun, Mei, Tan, Song. PA&DA: jointly sampling path and data for
  consistent NAS. CVPR 2023. https://arxiv.org/abs/2302.14772
"""

from __future__ import annotations

import dataclasses

import numpy as np

from oneshot.randomness import ORDER
from oneshot.strategies.importance import mixed

_UNSEEN = -1.0


@dataclasses.dataclass(frozen=True)
class DataImportance:
    """Draws the examples of a batch by the norms of their gradients.

    The probability of an example is (1 - tau) / examples + tau * norm / sum of norms.
    The mean of weight * gradient over a batch has the mean gradient of all examples for
    its expectation, whatever the norms: weights are 1 / (examples * probability). The
    loss has to be multiplied by them, example by example.

    Args:
      examples: How many there are, at least 1.
      steps: Steps over which tau rises from 0 to its end, linearly; at least 1.
      tau: Its end, in 0 to 1.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> data = DataImportance(examples=4, steps=100)
      >>> state = data.update(data.init(), [0, 1, 2, 3], [3.0, 1.0, 2.0, 2.0])
      >>> data.probabilities(state, step=100).tolist()
      [0.375, 0.125, 0.25, 0.25]
      >>> indices, weights = data.sample(state, seed=0, step=100, n=3)
      >>> indices, weights.round(2)
      (array([3, 2, 0]), array([1.  , 1.  , 0.67], dtype=float32))
    """

    examples: int
    steps: int
    tau: float = 1.0

    def __post_init__(self):
        if self.examples < 1 or self.steps < 1 or not 0 <= self.tau <= 1:
            raise ValueError(
                "DataImportance needs one example or more, one step or more and `tau` "
                f"in 0 to 1, but got examples={self.examples}, steps={self.steps} and "
                f"tau={self.tau}."
            )

    def init(self) -> np.ndarray:
        """Return the first state, float32 [examples]: no norm is known."""
        return np.full(self.examples, _UNSEEN, np.float32)

    def update(self, state: np.ndarray, indices, norms) -> np.ndarray:
        """Return the state with new norms of some examples; the last one counts.

        Args:
          state: From `init` or `update`; a list of numbers does as well.
          indices: Which examples, int [n].
          norms: Of their gradients, [n], such as `last_layer_norms`; those that are
            not finite are passed over.

        Raises:
          ValueError: If a norm is negative.
        """
        norms, indices = np.asarray(norms, np.float32), np.asarray(indices, int)
        fine = np.isfinite(norms)
        if (norms[fine] < 0).any():
            raise ValueError(
                f"Norms are 0 or more, but the least of them is {norms[fine].min()}."
            )
        out = np.array(state, np.float32)
        out[indices[fine]] = norms[fine]
        return out

    def probabilities(self, state: np.ndarray, step: int) -> np.ndarray:
        """Return the probability of each example, float64 [examples].

        An example not seen yet counts as one of the mean norm of the others.
        """
        norms = np.asarray(state, np.float64)
        tau = self.tau * min(1.0, step / self.steps)
        return mixed(norms, norms != _UNSEEN, tau)

    def sample(
        self, state: np.ndarray, seed: int, step: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the examples of a step with replacement: a function of its arguments.

        Returns:
          (indices int64 [n], weights float32 [n]).
        """
        rng = np.random.default_rng([seed, ORDER, step])
        probabilities = self.probabilities(state, step)
        below = np.cumsum(probabilities)
        indices = np.searchsorted(below, rng.random(n) * below[-1], side="right")
        weights = 1 / (self.examples * probabilities[indices])
        return indices, weights.astype(np.float32)


def last_layer_norms(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the norm of each example's gradient with respect to its logits.

    That is the norm of softmax minus the one-hot label. Times a factor that hardly
    depends on the example it bounds the norm of the gradient of all weights, and it
    needs no backward pass.

    Args:
      logits: [n, classes].
      labels: Class indices, int [n].

    Returns:
      [n], from 0 to the root of 2.

    Example:
      >>> logits = np.array([[0.0, 0.0], [9.0, -9.0]])
      >>> last_layer_norms(logits, np.array([0, 0])).round(4)
      array([0.7071, 0.    ])
    """
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    residual = powers / powers.sum(-1, keepdims=True)
    residual[np.arange(len(labels)), labels] -= 1
    return np.linalg.norm(residual, axis=-1)
