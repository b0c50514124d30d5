"""Keys and values of the configuration that were renamed in version 0.2.0."""

from __future__ import annotations

from collections.abc import Sequence

from factrecall.vocabulary import TUNINGS

_KEYS: dict[tuple[object, ...], str] = {
    ("trace", "keep"): "top_fraction",
    ("trace", "snapshots"): "checkpoints",
    ("grafting", "recovery"): "target_recovery",
    ("grafting", "individuals"): "fit_individuals",
    ("circuits", "draws"): "random_orders",
    ("representations", "signature"): "attribution",
    ("representations", "gradients"): "gradient_similarity",
    ("gradient_similarity", "coordinates"): "sampled_parameters",
    ("compute", "save_seconds"): "checkpoint_interval_s",
    ("recall", "batch_tokens"): "max_eval_tokens",
    **dict.fromkeys(
        ((recipe, "questions") for recipe in (*TUNINGS, "pretrain")),
        "questions_per_example",
    ),
}
_VALUES: dict[tuple[object, ...], str] = {
    ("steps", "method", "each"): "all",
    ("mode", "optimiser", "plain"): "adamw",
    ("mode", "optimiser", "eight_bit"): "adamw_8bit",
    ("mode", "optimiser", "offloaded"): "cpu_offload",
}


def new_key(path: Sequence[object]) -> str | None:
    """Return the present name of the key at a path, None if it never had another."""
    return _KEYS.get(tuple(path[-2:]))


def new_value(path: Sequence[object], value: object) -> str | None:
    """Return the present word for the value of the key at a path, None if it never had another."""
    return _VALUES.get((*path[-2:], value)) if isinstance(value, str) else None
