"""Peak memory of trainings and evaluations, by part, counted from what the code keeps.

Every number is bytes for each parameter or token, with what it is made of beside it. Trainings
are those of `training.loop`: weights in float32, products in bfloat16 by autocast on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from factrecall.models.passes import LOGITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from factrecall.cost.shapes import Shape
    from factrecall.training.execution import Execution

CONTEXT = 1.0e9  # of a GPU: CUDA, its libraries' workspaces and loaded kernels
CUDA = 2.0e9  # of main memory, in a process that uses a GPU
PROCESS = 5.2e8  # of a process with PyTorch, transformers, a tokenizer and pyarrow
BARE = 3.1e8  # of one that opens no model
TABLES = 3.8e8  # of one that summarises tables: pyarrow and pandas work on several at a time
FIGURES = 4.3e8  # of one that draws, with matplotlib and seaborn
LIGHT = 1.4e8  # of one that has no PyTorch
TOKEN_BYTES = 480.0  # of a token of the texts, with its offsets, in Python's lists
TEXT_BYTES = 1.5e3  # of a text's rows in the tables of facts, in Python's strings

# Two float32; two bytes with a float32 scale for each 256 of them; two float32 on the host.
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 + 8 / 256, "cpu_offload": 8.0}
SUMS = 12.0  # bytes a parameter and traced task: sums of lr·g, |lr·g| and updates, in float32


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes, by part: of the device (each, if several share a training), the host.

    On a CPU everything is on the host.
    """

    parts: Mapping[str, float] = field(default_factory=dict)
    host_parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def device(self) -> float:
        """All parts on the device."""
        return sum(self.parts.values())

    @property
    def host(self) -> float:
        """All parts in main memory; not those of the device."""
        return sum(self.host_parts.values())

    @property
    def main_parts(self) -> Mapping[str, float]:
        """The device's parts; those of the host where the device is a CPU."""
        return self.parts or self.host_parts


def text_bytes(texts: float, tokens: float) -> float:
    """Return the main memory of so many texts of so many tokens in all, while prepared."""
    return TEXT_BYTES * texts + TOKEN_BYTES * tokens


def activation_bytes(shape: Shape, precision: str) -> float:
    """Return the bytes that a layer keeps of a token for its backward pass.

    In float32 each is what autograd saves of transformers' modules. Under autocast matrix inputs
    and outputs are bfloat16 and the residual stream stays float32; each matrix casts its input
    anew.
    """
    d, q, k, f = shape.width, shape.queries, shape.keys, shape.mlp_size
    llama, half = shape.architecture == "llama", precision == "bfloat16"
    if llama and half:
        # Of both norms: input and normalised, float32 (16 d). Casts: three for Q, K and V, two
        # for gate and up (10 d). Attention's q, k, v, output. Gate, its SiLU, up, product.
        return 26 * d + 2 * (2 * q + 2 * k) + 8 * f
    if llama:
        # Of both norms: input, normalised, scaled (24 d). Attention's four. The MLP's four.
        return 24 * d + 4 * (2 * q + 2 * k) + 16 * f
    # Both norms share their input (4 d), with a cast each (4 d). Q, K and V in one tensor,
    # rotated q and k anew, the output and its copy in rows. Hidden units before, after GELU.
    return 8 * d + 2 * 7 * q + 4 * f if half else 12 * d + 4 * 7 * q + 8 * f


def training_memory(
    shape: Shape, execution: Execution, tokens: int, tasks: int, precision: str, *, gpu: bool = True
) -> Memory:
    """Return the peak memory of a training by passes of so many tokens, padding included.

    `tasks` are traced, `precision` is that of matrix products; on a `gpu` there is CUDA to keep.
    """
    n = shape.parameters
    offloaded, split = execution.optimiser == "cpu_offload", execution.gpus
    # Sharded layers are gathered one after the other, the next while one computes; the ends are a
    # shard of their own.
    gathered = 4.0 * (2 * shape.layer + shape.ends) if offloaded or split > 1 else 0.0
    kept = 0.0 if offloaded else 4.0 * n / split
    parts = {"context": CONTEXT} if gpu else {}
    parts["weights"] = kept + gathered
    if precision == "bfloat16":
        # Autocast keeps the casts of all matrices until the update ends; the embedding is looked
        # up in float32, the head, a cast of it or a matrix of its own, is one of them.
        layers = 2 if offloaded or split > 1 else shape.layers
        parts["bfloat16 casts"] = 2.0 * (layers * shape.matrices + shape.embedding)
    # A traced example's own gradients are all there at once as well, before the batch's.
    parts["gradients"] = kept + (4.0 * (shape.layer + shape.ends) if gathered else 0.0)
    parts["moments"] = 0.0 if offloaded else MOMENTS[execution.optimiser] * n / split
    if execution.optimiser == "adamw_8bit":  # the embedding's stay in float32
        parts["moments"] += (MOMENTS["adamw"] - MOMENTS["adamw_8bit"]) * shape.embedding
    sums = SUMS * tasks * n / split
    on_host = gpu and (offloaded or execution.trace == "host")  # where offloaded gradients go
    traced = sums + 4.0 * shape.largest if tasks else 0.0  # |g| of one tensor at a time
    update = 8.0 * shape.largest if tasks else 0.0  # its part of AdamW's update, and √v
    parts["trace"] = (0.0 if on_host else traced) + (0.0 if gpu and offloaded else update)
    layer = activation_bytes(shape, precision) * tokens
    # Checkpointed, each layer's input is kept and one layer is computed anew. The backward pass
    # holds gradients beside what one layer kept: of its widest tensors, so as much again at most.
    inputs = 4.0 * shape.width * tokens * shape.layers
    layers_kept = inputs + layer if execution.checkpointing else layer * shape.layers
    parts["activations"] = layers_kept + layer / 2
    # In float32: logits, their log-softmax, a gradient. By autocast: bfloat16 logits and their
    # gradient, float32 ones and theirs. In chunks, the head's gradient is added up beside.
    logits = tokens * shape.vocabulary
    chunked = 4.0 * shape.embedding if logits > LOGITS else 0.0
    parts["logits"] = 12.0 * min(logits, LOGITS) + chunked
    host: dict[str, float] = {}
    if gpu:
        host |= {"CUDA": CUDA, "reading": 4.0 * n}  # weights come by way of the host
        if offloaded:
            host["weights, gradients and moments"] = 16.0 * n / split
        if on_host:  # with two tensors on their way, in page-locked memory, or made there
            host["trace"] = traced + 8.0 * shape.largest * bool(tasks)
    return Memory(parts, host)
