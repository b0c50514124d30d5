"""Mappings whose values are read or computed when they are asked for, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LazyMapping(Mapping[K, V]):
    """A mapping with known keys and a function that returns the value of one.

    A subclass that reads from itself overrides `_read` and gives no function: a bound method would
    be a cycle, which keeps files open until it is collected.
    """

    def __init__(self, keys: Iterable[K], get: Callable[[K], V] | None = None) -> None:
        self._keys, self._get = dict.fromkeys(keys), get

    def __getitem__(self, key: K) -> V:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def _read(self, key: K) -> V:
        assert self._get is not None
        return self._get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
