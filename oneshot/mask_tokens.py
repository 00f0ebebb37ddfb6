"""Masked language modelling: tokens are hidden, and the hidden ones are the targets."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from oneshot.augment import Augment

Masked = tuple[jax.Array, jax.Array]


def mask_tokens(
    vocabulary: int,
    mask: int,
    *,
    share: float = 0.15,
    kept: float = 0.1,
    replaced: float = 0.1,
) -> Augment:
    """Hide some tokens of each sequence, and let the loss see only those.

    Of the chosen tokens most become `mask`, some a random token and some stay. The
    targets are the tokens at the chosen places and -1 elsewhere, which `next_token`,
    `bits` and `token_accuracy` pass over: with these targets `next_token` is the masked
    loss. The network has to see in both directions.

    Validation is not augmented: hide its tokens once, as in the example. That is why
    settings, which name augmentations of training only, have no name for this one.

    Args:
      vocabulary: Random tokens are below this.
      mask: The token that stands for a hidden one.
      share: Probability of a token's being chosen, 0 to 1.
      kept: Share of the chosen tokens that stay as they are.
      replaced: Share of the chosen tokens that become random ones.

    Returns:
      An augmentation of integers [n, tokens]; targets that were there are dropped.

    Raises:
      ValueError: If shares are outside 0 to 1, `kept` and `replaced` above 1
        together, or, when called, the tokens' type cannot hold the mask.

    Example:
      >>> hide = mask_tokens(vocabulary=64, mask=64)
      >>> held = hide(jax.random.key(1), jnp.asarray(validation), None)
      >>> data = Data.from_arrays((text, text), validate=held, augment=hide)
      >>> trainer = Trainer(net, strategy, adamw(), 1e-3, loss=next_token)

    Source: Devlin et al., BERT, arXiv:1810.04805, section 3.1.
    """
    shares = {"share": share, "kept": kept, "replaced": replaced}
    if any(not 0 <= value <= 1 for value in shares.values()) or kept + replaced > 1:
        raise ValueError(
            "Shares are 0 to 1, and `kept` and `replaced` are 1 at most together, but "
            f"got {', '.join(f'{k}={v}' for k, v in shares.items())}."
        )

    def hidden(key: jax.Array, x: jax.Array, y: jax.Array) -> Masked:
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                "`mask_tokens` takes integers [n, tokens], but got "
                f"{x.dtype}{list(x.shape)}."
            )
        if max(mask, vocabulary - 1) > jnp.iinfo(x.dtype).max:
            raise ValueError(
                f"Tokens of type {x.dtype} cannot hold the mask {mask} or a vocabulary "
                f"of {vocabulary}. Convert them: tokens.astype(np.int32)."
            )
        choosing, how, which = jax.random.split(key, 3)
        chosen = jax.random.uniform(choosing, x.shape) < share
        part = jax.random.uniform(how, x.shape)
        random = jax.random.randint(which, x.shape, 0, vocabulary).astype(x.dtype)
        shown = jnp.where(part < kept + replaced, random, jnp.asarray(mask, x.dtype))
        shown = jnp.where(part < kept, x, shown)
        return jnp.where(chosen, shown, x), jnp.where(chosen, x.astype(int), -1)

    return hidden
