"""Fully sharded training: several processes, or one with all state in main memory.

PyTorch's `fully_shard` shards weights, gradients and moments: each layer is gathered just before
it computes. Every process takes its share of an update's examples. Process 0 alone writes files;
tensors are gathered one by one, when it reads them. With `cpu_offload` one process does the same
with shards in main memory.
"""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from factrecall.models.architectures import architecture_of
from factrecall.runtime import signals
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.lazy_mapping import LazyMapping
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.runtime.signals import Interrupted
from factrecall.training.distributed import DistributedStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.runtime.checkpoint import Checkpoint, State
    from factrecall.training.batches import Example, MicroBatch
    from factrecall.training.execution import Execution

Result = TypeVar("Result")

TIMEOUT = timedelta(days=1)
"""How long processes wait for each other: a state of 100 GB takes minutes to write, and one that
has died is noticed at once."""

_DONE, _FAILED, _EXITED = -1, -2, -1000
"""What process 0 broadcasts in place of a tensor's number; the last has an exit code subtracted."""


class Lost(FactRecallError):
    """Another process of the training has ended; its own message says why."""

    def __init__(self, why: str) -> None:
        where = f"process {os.environ.get('RANK', 0)} of the training"
        super().__init__(where, why, "see the messages of the others; run again to resume")


class FullySharded(DistributedStrategy):
    """Processes that torchrun started, each with a shard of a model; or one, alone."""

    caches = False  # copies would undo the sharding

    def __init__(self, mode: Execution, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if not distributed.is_initialized():
            _join(self.rank, self.count, device)
        self._mesh = init_device_mesh(device.type, (self.count,))
        pinned = device.type == "cuda"
        offloaded = mode.optimiser == "cpu_offload"
        self._policy = CPUOffloadPolicy(pin_memory=pinned) if offloaded else OffloadPolicy()

    def shard(self, model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
        """Shard a model's weights among the processes, in place."""
        # What `gather` needs, without numbers.
        with torch.device("meta"):
            self._empty = type(model)(copy.deepcopy(model.config))
        self._empty.generation_config = model.generation_config
        for layer in architecture_of(model.config).layers_of(model):
            fully_shard(layer, mesh=self._mesh, offload_policy=self._policy)
        fully_shard(model, mesh=self._mesh, offload_policy=self._policy)
        return model

    def gather(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a plain model with the trained weights in main memory, in process 0."""
        plain = self._empty

        def load(weights: Mapping[str, torch.Tensor]) -> None:
            # One by one: names of tied weights stand for one tensor and become one again.
            plain.load_state_dict(dict(weights), strict=False, assign=True)
            plain.tie_weights()
            for name, buffer in model.named_buffers():
                owner, _, leaf = name.rpartition(".")
                setattr(plain.get_submodule(owner), leaf, buffer.cpu())

        self.on_rank0(dict(model.named_parameters()), load)
        plain.eval()
        return plain

    def local_batches(
        self, batch: Sequence[Example], cut: Callable[[Sequence[Example]], list[MicroBatch]]
    ) -> list[MicroBatch]:
        """Return the micro-batches of this process's share of a batch (see `deal`)."""
        made = [cut(share) if share else [] for share in deal(batch, self.count)]
        most = max(map(len, made))
        smallest = min((b for share in made for b in share), key=lambda b: b.tokens.numel())
        mine = made[self.rank]
        return mine + [smallest.idle()] * (most - len(mine))

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a float64 tensor in main memory; the same to the bit in all processes."""
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    def clip(self, parameters: Iterable[torch.Tensor], most: float) -> torch.Tensor:
        """Scale gradients down to a norm over all processes; return what it was, as a scalar."""
        norm = torch.nn.utils.clip_grad_norm_(parameters, most)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a parameter, gradient or moment; it shares its memory."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def put(self, whole: torch.Tensor, tensor: torch.Tensor) -> None:
        """Write this process's part of a whole tensor into one that may be sharded."""
        if isinstance(tensor, DTensor):
            parts = whole.chunk(self.count)  # as `fully_shard` does: the last may be missing
            whole = parts[self.rank] if self.rank < len(parts) else whole[:0]
        with torch.no_grad():
            self.local(tensor).copy_(whole)

    def on_rank0(
        self,
        tensors: Mapping[str, torch.Tensor],
        use: Callable[[Mapping[str, torch.Tensor]], Result],
    ) -> Result | None:
        """Let process 0 use whole tensors, while the others contribute their shards.

        Parameters
        ----------
        tensors : mapping of str to tensor
            The same names in the same order in all processes; sharded or not.
        use : callable
            Called in process 0 with a mapping of the same names, whose tensors are gathered in
            main memory each time they are read. The others return when it has.

        Raises
        ------
        Lost, Interrupted
            In the others, when `use` failed or was interrupted.
        """
        if self.rank:
            shards = list(tensors.values())
            while (wanted := _broadcast(0)) >= 0:
                _whole(shards[wanted])
            if wanted < _FAILED:
                raise signals.request_of(_EXITED - wanted)
            if wanted == _FAILED:
                raise Lost("process 0 could not continue")
            return None
        try:
            result = use(_Wholes(tensors))
        except BaseException as error:
            with suppress(RuntimeError):  # the others may be gone
                _broadcast(_EXITED - error.code if isinstance(error, Interrupted) else _FAILED)
            raise
        _broadcast(_DONE)
        return result

    def any_rank(self, flag: bool) -> bool:
        """Say whether a flag is set in any process; shutdown requests are shared with it."""
        greatest = torch.tensor([int(flag), signals.exit_code()])
        distributed.all_reduce(greatest, distributed.ReduceOp.MAX)
        found, code = greatest.tolist()
        if code:
            signals.note(signals.request_of(code))
        return bool(found)

    def restore(self, checkpoint: Checkpoint) -> State | None:
        """Return the saved state in all processes, or None in all, as process 0 finds it."""
        state = checkpoint.restore() if self.rank == 0 else None
        if not _broadcast(int(state is not None)):
            return None
        return state or read_tensors(checkpoint.path)


class _Wholes(LazyMapping[str, torch.Tensor]):
    """Tensors that are gathered in main memory when they are read."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        self._tensors = tensors
        self._places = {name: place for place, name in enumerate(tensors)}

    def _read(self, name: str) -> torch.Tensor:
        # Others would wait in a communication that one process leaves.
        with signals.shield():
            _broadcast(self._places[name])
            return _whole(self._tensors[name]).cpu()

    def forms(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Return dtypes and shapes, without gathering."""
        return {name: (t.dtype, tuple(t.shape)) for name, t in self._tensors.items()}


def deal(batch: Sequence[Example], count: int) -> list[list[Example]]:
    """Deal examples out, so that all shares have about as many tokens; some may be empty.

    All processes deal alike, so that each knows how many passes the others have to make.
    """
    shares: list[list[Example]] = [[] for _ in range(count)]
    loads = [0] * count
    for example in sorted(batch, key=lambda e: -len(e.tokens)):  # equal ones in their order
        least = loads.index(min(loads))
        shares[least].append(example)
        loads[least] += len(example.tokens)
    return shares


def _join(rank: int, count: int, device: torch.device) -> None:
    # They are on one machine, whose name may lead nowhere.
    if "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Host tensors (offloaded parts, numbers) go by gloo.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = distributed.HashStore() if count == 1 else None  # type: ignore[attr-defined]
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT
    )


def _broadcast(number: int) -> int:
    """Return process 0's number in all processes."""
    common = torch.tensor(number)
    distributed.broadcast(common, 0)
    return int(common)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a sharded tensor on the device; all processes take part."""
    tensor = tensor.detach()
    if isinstance(tensor, DTensor):
        mesh, shape, stride = tensor.device_mesh, tensor.shape, tensor.stride()
        # Parts in main memory go by the device, whose communication is fast.
        part = tensor.to_local().to(mesh.device_type)
        tensor = DTensor.from_local(
            part, mesh, tensor.placements, run_check=False, shape=shape, stride=stride
        ).full_tensor()
    return tensor
