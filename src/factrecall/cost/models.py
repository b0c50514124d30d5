"""Models of a study before they are there: their shapes, and how certain these are."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from factrecall.config.model import Fetched, Folder, Gguf, Scratch
from factrecall.cost.shapes import PUBLISHED, Shape
from factrecall.cost.texts import PIECES, TextLengths, texts_of
from factrecall.models.gguf_header import Header
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from factrecall.config.study import Study

UNKNOWN = 3_200_000_000  # parameters of a model whose name does not say: the paper's
ROUNDED = 7 / 6  # by how much names like ``pythia-2.8b`` round parameters off at most

# Where a shape comes from: the model's `config.json` or GGUF file, the package's copy of it, the
# study; or it is guessed from its size, by its name or by its weights.
Source = Literal["config", "file", "package", "settings", "name", "weights"]


@dataclass(frozen=True)
class ModelInfo:
    """A model of a study: its name there, its shape and where that is from, its texts' lengths."""

    name: str
    shape: Shape
    source: Source
    texts: TextLengths

    @property
    def guessed(self) -> bool:
        """Whether the shape is a guess."""
        return self.source in ("name", "weights")


def model_info(study: Study, name: str) -> ModelInfo:
    """Return what is known of a model of a study.

    Raises
    ------
    FactRecallError
        When the study's own people or sentences cannot be read.
    """
    model = study.models[name]
    texts = texts_of(study.facts, study.seed)
    if not isinstance(model, Scratch):
        shape, source = _found(model)
        return ModelInfo(name, shape, source, texts.scaled(PIECES))
    words = model.tokenizer == "words"
    shape = Shape.of_scratch(model, texts.words if words else model.vocabulary)
    return ModelInfo(name, shape, "settings", texts if words else texts.scaled(PIECES))


def _found(model: Fetched) -> tuple[Shape, Source]:
    if isinstance(model, Folder):
        return shape_of_folder(model.path)
    if isinstance(model, Gguf):
        return _shape_of_gguf(model.path)
    if shape := PUBLISHED.get(model.repository):
        return shape, "package"
    return Shape.guessed(parameters_of_name(model.repository)), "name"


@cache
def _shape_of_gguf(path: Path) -> tuple[Shape, Source]:
    """Return the shape of the model in a GGUF file, a likely one if its kind is not known."""
    count = 0
    try:
        header = Header(path)
        count = sum(header.numbers.values())
        return Shape.of_config(header.config()), "file"
    except FactRecallError:  # or damaged, which fetching the model reports
        return Shape.guessed(count or UNKNOWN), "weights"


def shape_of_folder(folder: Path) -> tuple[Shape, Source]:
    """Return the shape of the model in a folder, a likely one if its kind is not known."""
    try:
        return Shape.of_file(folder / "config.json"), "config"
    except FactRecallError:  # or damaged, which opening the folder reports
        count = sum(map(_stored, folder.glob("*.safetensors")))
        return Shape.guessed(count or UNKNOWN), "weights"


def parameters_of_name(repository: str) -> int:
    """Guess the parameters of a model from its name, with a sixth more for what names round off."""
    found = re.search(r"(\d+(?:\.\d+)?)([bm])(?![a-z])", repository.lower())
    if not found:
        return UNKNOWN
    number, unit = found.groups()
    return round(float(number) * {"b": 1e9, "m": 1e6}[unit] * ROUNDED)


def _stored(path: Path) -> int:
    """Count the scalars of a safetensors file by its header: its length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        entries = [entry for key, entry in header.items() if key != "__metadata__"]
        return sum(math.prod(entry["shape"]) for entry in entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0  # fetching the model reports what is wrong with it
