"""Architectures: the modules of their layers, and how heads lie in these.

Everything else follows from the shapes of the tensors. To add an architecture, add a line to
`ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

PROJECTIONS = ("Q", "K", "V", "O")


@dataclass(frozen=True)
class ArchitectureSpec:
    """The names of an architecture's modules.

    Attributes
    ----------
    layers, norm : str
        The list of layers; the norm between the last of them and the output head.
    attention : mapping of str to str
        The module, in a layer, of each of ``PROJECTIONS``.
    mlp : mapping of str to str
        The modules of the MLP's matrices: those into it, and ``down`` out of it.
    fused : {"no", "heads", "blocks"}
        How queries, keys and values share a module, if they do: [head, 3, head size] as in
        GPT-NeoX, or all queries, all keys, all values as in GPT-2.
    transposed : bool
        Whether weights are stored as (inputs, outputs).
    scales : mapping of str to str
        Modules that scale each coordinate of a projection by a weight of its own.
    capped : bool
        Whether logits are changed behind the output head.
    """

    layers: str
    norm: str
    attention: Mapping[str, str]
    mlp: Mapping[str, str]
    fused: Literal["no", "heads", "blocks"] = "no"
    transposed: bool = False
    scales: Mapping[str, str] = field(default_factory=dict)
    capped: bool = False

    def layers_of(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return a model's layers."""
        return list(attrgetter(self.layers)(model))

    def norm_of(self, model: PreTrainedModel) -> nn.Module:
        """Return a model's last norm."""
        norm: nn.Module = attrgetter(self.norm)(model)
        return norm

    def output_of(self, layer: nn.Module) -> nn.Module:
        """Return the module of a layer that takes all heads' outputs to the residual stream."""
        module: nn.Module = attrgetter(self.attention["O"])(layer)
        return module

    def mlp_of(self, layer: nn.Module) -> nn.Module:
        """Return the whole MLP of a layer."""
        module: nn.Module = attrgetter(self.mlp["down"].rpartition(".")[0])(layer)
        return module

    def last_of(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the modules of the last layer that matter only where logits are wanted.

        These are the MLP, the output projection and, where it is a module of its own, the query
        projection: no token attends to another's query.
        """
        layer = self.layers_of(model)[-1]
        queries = [attrgetter(self.attention["Q"])(layer)] if self.fused == "no" else []
        return [*queries, self.output_of(layer), self.mlp_of(layer)]


_LLAMA = ArchitectureSpec(
    layers="model.layers",
    norm="model.norm",
    attention={p: f"self_attn.{p.lower()}_proj" for p in PROJECTIONS},
    mlp={"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
)
ARCHITECTURES: dict[str, ArchitectureSpec] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
    "gemma2": replace(_LLAMA, capped=True),
    "olmo2": replace(_LLAMA, scales={"Q": "self_attn.q_norm", "K": "self_attn.k_norm"}),
    "gpt_neox": ArchitectureSpec(
        layers="gpt_neox.layers",
        norm="gpt_neox.final_layer_norm",
        attention={
            **dict.fromkeys("QKV", "attention.query_key_value"),
            "O": "attention.dense",
        },
        mlp={"up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"},
        fused="heads",
    ),
    "gpt2": ArchitectureSpec(
        layers="transformer.h",
        norm="transformer.ln_f",
        attention={**dict.fromkeys("QKV", "attn.c_attn"), "O": "attn.c_proj"},
        mlp={"up": "mlp.c_fc", "down": "mlp.c_proj"},
        fused="blocks",
        transposed=True,
    ),
}
"""By `model_type` of the configuration."""


def architecture_of(config: PreTrainedConfig) -> ArchitectureSpec:
    """Return the description of a model's architecture.

    Raises
    ------
    FactRecallError
        When there is none.
    """
    if (found := ARCHITECTURES.get(config.model_type)) is not None:
        return found
    raise FactRecallError(
        f"architecture {config.model_type!r}",
        f"where its heads and neurons are is not known (known: {', '.join(sorted(ARCHITECTURES))})",
        "describe it in ARCHITECTURES in src/factrecall/models/architectures.py, which takes a few "
        "names of modules, or use a model of a known architecture",
    )


def heads_of(config: PreTrainedConfig) -> dict[str, int]:
    """Return how many heads each projection has; keys and values may have fewer (grouped)."""
    known: Any = config
    queries = int(known.num_attention_heads)
    shared = int(getattr(known, "num_key_value_heads", None) or queries)
    return {"Q": queries, "K": shared, "V": shared, "O": queries}
