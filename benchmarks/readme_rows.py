"""The rows of the README's table of measurements."""

from __future__ import annotations

# By benchmark: (key of its results, what it says, format)
ROWS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "path_cost": (
        (
            "median_ratio",
            "training step, chain of blocks over the faster single jit: median",
            "{:.2f}",
        ),
        ("worst_ratio", "the same, worst case", "{:.2f}"),
        ("memory_ratio", "the same, memory of the step", "{:.2f}"),
        (
            "programs_nb_macro",
            "programs compiled for all of NAS-Bench-Macro's 6,561 archs",
            "{:.0f}",
        ),
        ("warmup_seconds_nb_macro", "seconds to compile them", "{:.0f}"),
        ("compiled_after_warmup", "programs compiled after that", "{:.0f}"),
    ),
    "versus_pytorch": (
        (
            "train_ratio",
            "training step of 20 random paths, eager PyTorch's time over ours",
            "{:.2f}",
        ),
        (
            "rank_ratio",
            "scoring NAS-Bench-Macro's 3,969 networks, PyTorch's time over ours",
            "{:.1f}",
        ),
        (
            "rank_ratio_batch64",
            "the same, PyTorch scoring 64 images at a time",
            "{:.1f}",
        ),
        (
            "generation_ratio",
            "scoring a generation of 50, PyTorch's time over ours",
            "{:.1f}",
        ),
        (
            "generation_ratio_batch64",
            "the same, PyTorch scoring 64 images at a time",
            "{:.1f}",
        ),
        (
            "decoder_train_ratio",
            "training step of a decoder Transformer, PyTorch's time over ours",
            "{:.2f}",
        ),
        (
            "decoder_rank_ratio",
            "scoring a generation of 50 decoders, PyTorch's time over ours",
            "{:.1f}",
        ),
        ("max_score_difference", "largest difference of losses between both", "{:.0e}"),
        (
            "train_peak_fraction",
            "training step, fraction of the device's peak",
            "{:.1%}",
        ),
    ),
    "rank_population": (
        (
            "speedup_all",
            "scoring all 6,561 archs, one at a time over shared prefixes",
            "{:.2f}",
        ),
        ("speedup_distinct", "the same, equal networks scored once", "{:.2f}"),
        ("speedup_generation", "the same, a generation of 50", "{:.2f}"),
        ("speedup_random", "the same, 50 random archs", "{:.2f}"),
        ("max_difference", "largest relative difference of losses", "{:.0e}"),
        (
            "recalibration_share",
            "share of recalibration in scoring's time (a third of the images)",
            "{:.2f}",
        ),
        ("peak_fraction", "scoring, fraction of the device's peak", "{:.1%}"),
    ),
    "scaling": (
        (
            "flat_layers",
            "time of a block in 8, 16 or 32 layers, slowest over fastest less one",
            "{:.1%}",
        ),
        ("flat_options", "the same, with 3, 6 or 12 options a layer", "{:.1%}"),
        (
            "programs_by_layers",
            "programs more for 32 layers than for 8",
            "{:.0%}",
        ),
        (
            "imbalance",
            "work of the dearest of 4 devices over the mean, less one",
            "{:.1%}",
        ),
    ),
}
