"""What a GGUF file says of itself; its weights stay where they are, and no torch is needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from factrecall.runtime.errors import FactRecallError

MAGIC = b"GGUF"
"""The first bytes of such a file."""

ORIGIN = "dequantised_from"
"""The key of `config.json` that says how the weights were stored."""

EMBEDDING = "token_embd.weight"
"""The embedding matrix."""

SETTINGS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
}
"""Settings of a file, by the key behind its architecture, and of the library's configuration."""

OTHER_SOURCES = "use the published weights instead (source: hub, or folder)"


class Header:
    """What a GGUF file says of itself, its weights aside.

    Attributes
    ----------
    path : Path
    values : dict of str to Any
        Settings by key, those that are lists aside.
    shapes : dict of str to tuple of int
        Shapes of tensors by name, as the library orders them.
    numbers : Counter of str
        How many numbers are stored in each format, as in ``{"Q4_1": 106168320}``.

    Raises
    ------
    FactRecallError
        When it is no such file, or is cut off or damaged.
    """

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader, GGUFValueType

        self.path = path
        try:
            with path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise self.refusal("it is no GGUF file", "name a file in llama.cpp's format")
            reader = GGUFReader(path)
            array = [GGUFValueType.ARRAY]
            self._lists = {k: f for k, f in reader.fields.items() if f.types[:1] == array}
            self.values: dict[str, Any] = {
                key: field.contents()
                for key, field in reader.fields.items()
                if key not in self._lists
            }
        except OSError as error:
            raise self.refusal(
                f"it cannot be read ({error})", "check the file and the disk"
            ) from error
        except (ValueError, LookupError, ArithmeticError, TypeError, RecursionError) as error:
            raise self._damaged(error) from error
        self.shapes = {t.name: tuple(map(int, reversed(t.shape))) for t in reader.tensors}
        self.numbers: Counter[str] = Counter()
        for tensor in reader.tensors:
            self.numbers[tensor.tensor_type.name] += int(tensor.n_elements)

    def _damaged(self, error: Exception) -> FactRecallError:
        told = (str(error) or type(error).__name__).splitlines()[0][:120]
        return self.refusal(
            f"it is cut off, damaged or of a version that is not read ({told})",
            "download it again, and compare its size",
        )

    @property
    def architecture(self) -> str:
        """The architecture's name in the file."""
        return str(self.values.get("general.architecture"))

    @property
    def formats(self) -> str:
        """The formats of the weights, that of most of them first: ``Q4_1, Q8_0``."""
        kinds = [kind for kind, _ in self.numbers.most_common()]
        return ", ".join([kind for kind in kinds if kind != "F32"] or kinds)

    @property
    def lists(self) -> list[str]:
        """The keys of all settings that are lists."""
        return list(self._lists)

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a setting of the model by its key behind the architecture."""
        return self.values.get(f"{self.architecture}.{key}", default)

    def config(self) -> dict[str, Any]:
        """Return the settings of the model by their names in a `config.json`."""
        found = {name: self.setting(key) for key, name in SETTINGS.items()}
        tied = "output.weight" not in self.shapes
        stated = {name: value for name, value in found.items() if value is not None}
        rows = (*self.shapes.get(EMBEDDING, ()), 0)[0]
        kind = {"model_type": self.architecture, "tie_word_embeddings": tied, "vocab_size": rows}
        return kind | stated

    def tokens(self) -> list[str]:
        """Return the tokens of its tokenizer, in the order of their numbers."""
        return self._list("tokenizer.ggml.tokens")

    def merges(self) -> list[str]:
        """Return the merges of its tokenizer."""
        return self._list("tokenizer.ggml.merges")

    def _list(self, key: str) -> list[str]:
        try:
            return self._lists[key].contents() if key in self._lists else []
        except (ValueError, LookupError) as error:
            raise self._damaged(error) from error

    def refusal(self, why: str, remedy: str = OTHER_SOURCES) -> FactRecallError:
        """Return the error that says why the file is not used."""
        return FactRecallError(str(self.path), why, remedy)
