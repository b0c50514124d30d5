"""The command that says what a study costs before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.cli.common import Command
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device


def add(commands: Any) -> None:
    """Add the command of this module."""
    plan = Command(
        commands,
        "plan",
        _plan,
        "say what a study costs: jobs, memory, disk and hours, from its settings alone",
        study=False,
    )
    plan.parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[Path("config.yaml")],
        metavar="FILE",
        help="study files, as for snakemake; none: config.yaml",
    )
    plan.parser.add_argument(
        "--device",
        nargs="+",
        metavar="DEVICE",
        help="H200, H100, A100-80, A100-40 or cpu, which is this machine's and measured; of "
        "several the first is told in full, and all are compared",
    )
    plan.parser.add_argument(
        "--efficiency",
        type=float,
        default=None,
        metavar="SHARE",
        help="of a GPU's matrix rate that passes reach (default 0.45)",
    )
    plan.parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="write everything there, too"
    )


def _plan(options: argparse.Namespace) -> None:
    import json
    import sys

    from factrecall.config.reading import read_study
    from factrecall.cost.job_cost import EFFICIENCY
    from factrecall.cost.plan import as_json, plan_study
    from factrecall.cost.render import render
    from factrecall.runtime.storage import write_text

    efficiency = EFFICIENCY if options.efficiency is None else options.efficiency
    if not 0 < efficiency <= 1:
        raise FactRecallError(
            f"--efficiency {efficiency}", "it is a share above 0 and up to 1", "give 0.45, say"
        )
    study = read_study(*options.configfile)
    devices = [_device(name) for name in options.device or _usual(study)]
    plans = [plan_study(study, device, efficiency) for device in devices]
    print(render(plans))
    if options.json is not None:
        write_text(options.json, json.dumps(as_json(plans), indent=2) + "\n")
        print(f"written to {options.json}", file=sys.stderr)


def _usual(study: Study) -> list[str]:
    """Return all GPUs; before them this machine, if it is likely to run the study."""
    from factrecall.cost.devices import CPU, DEVICES
    from factrecall.cost.models import model_info
    from factrecall.cost.resources import LARGE

    small = all(model_info(study, name).shape.parameters < LARGE for name in study.models)
    return [CPU, *DEVICES] if small and study.compute.device != "cuda" else list(DEVICES)


def _device(name: str) -> Device:
    from factrecall.cost.devices import CPU, DEVICES, this_cpu

    names = {one.casefold(): one for one in (*DEVICES, CPU)}
    found = names.get(name.casefold())
    if found is None:
        raise FactRecallError(
            f"--device {name}",
            "no such device is known",
            f"name some of {', '.join((*DEVICES, CPU))}; of others one like them",
        )
    return this_cpu() if found == CPU else DEVICES[found]
