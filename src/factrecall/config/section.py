"""What all sections of the configuration have in common: types of values, and how they fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

Name = Annotated[str, Field(pattern=NAME)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=10**9)]
# Text is the only form of a path in YAML, and a list that of a tuple; all else is taken strictly.
Location = Annotated[Path, Field(strict=False)]


def _unit(value: object) -> str:
    return "fraction" if isinstance(value, float) else "count"


Amount = Annotated[
    Annotated[int, Field(ge=1), Tag("count")]
    | Annotated[float, Field(gt=0.0, le=1.0), Tag("fraction")],
    Discriminator(_unit),
    # Without the discriminator JSON Schema needs "any of": for it, 1 is of both kinds.
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            ]
        }
    ),
]


class ConfigIssue(NamedTuple):
    """Values that are right by themselves and wrong together."""

    key: tuple[str, ...]
    why: str
    remedy: str


class ConfigSection(BaseModel):
    """Base of all sections: unknown keys are refused, values are immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def _issues(self) -> Iterator[ConfigIssue]:
        """Yield what is wrong with the section although each of its keys is right."""
        yield from ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Pydantic takes over the lines of a nested ValidationError, so that all are reported.
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("mistake", "{why}", {"why": why, "remedy": remedy}),
                loc=key,
                input=_value(self, key),
            )
            for key, why, remedy in self._issues()
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


def _value(section: ConfigSection, key: tuple[str, ...]) -> Any:
    value: Any = section
    for part in key:
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value
