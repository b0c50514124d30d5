"""One training on several processes, or with all of its state in main memory.

Weights, gradients and moments are split among the processes by PyTorch's `fully_shard`: each layer
is put together just before it computes. Every process takes its share of an update's examples, and
what the update computes is that of the whole batch. Process 0 alone writes files; tensors are
put together one by one, when it reads them. With `cpu_offload` the same is done by one
process whose shards lie in main memory.
"""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.runtime.signals import Interrupted
from factrecall.training.distributed import DistributedStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.runtime.checkpoint import Checkpoint, State
    from factrecall.training.batches import Example, MicroBatch
    from factrecall.training.execution import Execution

Result = TypeVar("Result")

PATIENCE = timedelta(days=1)
"""How long processes wait for each other, since a state of 100 GB takes minutes to write. One that
has died is noticed at once."""

_DONE, _FAILED, _LEFT = -1, -2, -1000
"""What process 0 tells the others in place of a tensor's number; an exit code is added to the last
of them."""


class Lost(FactRecallError):
    """Another process of the training has ended; its own message says why."""

    def __init__(self, why: str) -> None:
        where = f"process {os.environ.get('RANK', 0)} of the training"
        super().__init__(where, why, "see what the others say; run again to resume")


class FullySharded(DistributedStrategy):
    """Processes that torchrun started, each with a part of a model; or one, alone.

    Parameters
    ----------
    mode : Execution
        How many processes, and whether their parts lie in main memory.
    device : torch.device
        Of this process.

    """

    caches = False  # they would undo the sharding

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
        """Split a model's weights among the processes, in place."""
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

        def fill(weights: Mapping[str, torch.Tensor]) -> None:
            # One by one: names of tied weights stand for one tensor and become one again.
            plain.load_state_dict(dict(weights), strict=False, assign=True)
            plain.tie_weights()
            for name, buffer in model.named_buffers():
                owner, _, leaf = name.rpartition(".")
                setattr(plain.get_submodule(owner), leaf, buffer.cpu())

        self.on_rank0(dict(model.named_parameters()), fill)
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
        """Add up a float64 tensor in main memory; the same to the bit in all processes."""
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
        """Write this process's part of a whole tensor into one that may be split."""
        if isinstance(tensor, DTensor):
            parts = whole.chunk(self.count)  # as `fully_shard` splits: the last may be missing
            whole = parts[self.rank] if self.rank < len(parts) else whole[:0]
        with torch.no_grad():
            self.local(tensor).copy_(whole)

    def on_rank0(
        self,
        tensors: Mapping[str, torch.Tensor],
        use: Callable[[Mapping[str, torch.Tensor]], Result],
    ) -> Result | None:
        """Let process 0 use tensors whole, while the others give their parts.

        Parameters
        ----------
        tensors : mapping of str to tensor
            The same names in the same order in all processes; split or not.
        use : callable
            Called in process 0 with a mapping of the same names, whose tensors are put together
            in main memory each time they are read.

        Returns
        -------
        object
            What `use` returned; None in other processes, which return when it has.

        Raises
        ------
        Lost, Interrupted
            In the others, when `use` failed, or left.
        """
        if self.rank:
            strategy = list(tensors.values())
            while (wanted := _told(0)) >= 0:
                _whole(strategy[wanted])
            if wanted < _FAILED:
                raise signals.request_of(_LEFT - wanted)
            if wanted == _FAILED:
                raise Lost("process 0 could not go on")
            return None
        try:
            result = use(_Wholes(tensors))
        except BaseException as error:
            with suppress(RuntimeError):  # the others may be gone
                _told(_LEFT - error.code if isinstance(error, Interrupted) else _FAILED)
            raise
        _told(_DONE)
        return result

    def any_rank(self, wish: bool) -> bool:
        """Say whether any process wishes something; who was not asked to leave learns of it."""
        greatest = torch.tensor([int(wish), signals.exit_code()])
        distributed.all_reduce(greatest, distributed.ReduceOp.MAX)
        wished, code = greatest.tolist()
        if code:
            signals.note(signals.request_of(code))
        return bool(wished)

    def restore(self, checkpoint: Checkpoint) -> State | None:
        """Return the saved state in all processes, or None in all; process 0 says if it is good."""
        state = checkpoint.restore() if self.rank == 0 else None
        if not _told(int(state is not None)):
            return None
        return state or read_tensors(checkpoint.path)


class _Wholes(Mapping[str, torch.Tensor]):
    """Tensors that are put together in main memory when they are read."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._places = {name: place for place, name in enumerate(tensors)}

    def __getitem__(self, name: str) -> torch.Tensor:
        # An exchange that one process leaves in the middle would be one that others wait in.
        with signals.shield():
            _told(self._places[name])
            return _whole(self._tensors[name]).cpu()

    def forms(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Return dtypes and shapes, for which nothing is put together."""
        return {name: (t.dtype, tuple(t.shape)) for name, t in self._tensors.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


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
    # What is on the host (offloaded parts, numbers) is exchanged by gloo.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = distributed.HashStore() if count == 1 else None  # type: ignore[attr-defined]
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=count, timeout=PATIENCE
    )


def _told(number: int) -> int:
    """Return the number that process 0 tells."""
    told = torch.tensor(number)
    distributed.broadcast(told, 0)
    return int(told)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """Put a split tensor together on the device; all processes take part."""
    tensor = tensor.detach()
    if isinstance(tensor, DTensor):
        mesh, shape, stride = tensor.device_mesh, tensor.shape, tensor.stride()
        # Parts in main memory go by the device, where exchange is fast.
        part = tensor.to_local().to(mesh.device_type)
        tensor = DTensor.from_local(
            part, mesh, tensor.placements, run_check=False, shape=shape, stride=stride
        ).full_tensor()
    return tensor
