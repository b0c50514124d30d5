"""The figures of a model by name: what the workflow asks for and `figures` draws."""

FIGURES = (
    "recall",
    "recall_by_relation",
    "loss",
    "shared",
    "shared_places",
    "ablation",
    "grafting",
    "grafting_size",
    "grafting_overlap",
    "circuits_attention",
    "circuits_mlp",
    "heads",
    "continuity",
    "case",
    "looks",
    "probes",
    "consistency",
    "gradients",
    "attribution",
    "patching",
)
SUFFIXES = (".png", ".svg", ".parquet")
