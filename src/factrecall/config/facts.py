"""The section of the configuration on synthetic individuals and their texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from factrecall.config.section import ConfigIssue, ConfigSection, Location, Natural, Positive


class PoolSizes(ConfigSection):
    """Numbers of values from which attributes are drawn (defaults: the paper's, appendix A.2.1)."""

    first_names: Annotated[int, Field(ge=1, le=600)] = 400
    """First names."""
    last_names: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Last names; a full name, a first and a last name, belongs to one individual."""
    cities: Annotated[int, Field(ge=2, le=2000)] = 200
    """Invented cities, each with one US state or territory."""
    universities: Annotated[int, Field(ge=2, le=300)] = 300
    """Real US institutions of higher education."""
    jobs: Annotated[int, Field(ge=2, le=600)] = 100
    """Jobs."""
    companies: Annotated[int, Field(ge=2, le=5000)] = 263
    """Invented companies."""
    first_year: Annotated[int, Field(ge=1000, le=9999)] = 1900
    """Earliest year of birth."""
    last_year: Annotated[int, Field(ge=1000, le=9999)] = 2099
    """Latest year of birth, itself included."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.first_year > self.last_year:
            yield ConfigIssue(
                ("last_year",),
                f"it is before first_year ({self.first_year})",
                "swap the two, or make them equal for a single year",
            )


class Facts(ConfigSection):
    """Synthetic individuals and their texts."""

    people: Annotated[int, Field(ge=2)]
    """Individuals of the study; with `individuals`, the number of rows of that file."""
    pretrain_people: Natural = 0
    """Other individuals, on whom models built from scratch are pre-trained."""
    pretrain_biographies: Positive = 1
    """Biographies of each of them, the same facts in other words."""
    in_distribution: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of the individuals whose questions are trained on; the others' only measure recall."""
    pools: PoolSizes = PoolSizes()
    individuals: Location | None = None
    """File of your own individuals (`.csv` or `.parquet`), in every replicate; null: synthetic."""
    templates: Location | None = None
    """File of your own sentences and questions (YAML); null takes those of the package."""

    @property
    def sides(self) -> tuple[int, int]:
        """Numbers of individuals in and out of distribution, at least one each."""
        inside = min(max(round(self.people * self.in_distribution), 1), self.people - 1)
        return inside, self.people - inside

    def _issues(self) -> Iterator[ConfigIssue]:
        pools = self.pools
        names = pools.first_names * pools.last_names
        invented = self.people if self.individuals is None else 0
        if invented + self.pretrain_people > names:
            key = "people" if invented else "pretrain_people"
            yield ConfigIssue(
                (key,),
                f"{invented} people and {self.pretrain_people} pretrain_people need unique names, "
                f"{pools.first_names} first and {pools.last_names} last names make {names}",
                "ask for fewer people, or raise facts.pools.first_names or facts.pools.last_names",
            )
        for key in ("individuals", "templates"):
            path = getattr(self, key)
            if path is not None and not path.is_file():
                yield ConfigIssue(
                    (key,),
                    "there is no such file",
                    f"mend the path (it starts at {Path.cwd()}), or remove the key",
                )
