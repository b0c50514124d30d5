"""`factrecall plan`: its numbers, what it prints and writes, and what it says of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from factrecall.cli import _usual, main
from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.cost.devices import CPU, DEVICES, SOME_CPU
from factrecall.cost.evaluation import JobContext
from factrecall.cost.job_cost import Passes
from factrecall.cost.jobs import StageJob, jobs_of
from factrecall.cost.models import model_info
from factrecall.cost.plan import costs, plan_study
from factrecall.cost.shapes import PUBLISHED
from factrecall.cost.texts import texts_of
from factrecall.cost.training import grouped, plan_training
from factrecall.evaluation.batching import Answers
from factrecall.experiments.circuits.cost import evaluated_steps
from factrecall.models.forward import encode
from factrecall.workflow.stages import STAGES
from tests.conftest import SMALL_POOLS, FactTables, tokenizer_for

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "workflow/presets/paper.yaml"
CI = ROOT / "workflow/presets/ci.yaml"

NUMBER = {"type": "number", "minimum": 0}
BYTES = {"type": "object", "additionalProperties": NUMBER}
SCHEMA = {
    "type": "object",
    "required": ["study", "models", "devices"],
    "properties": {
        "models": {
            "type": "array",
            "items": {"required": ["model", "architecture", "parameters", "source", "guessed"]},
        },
        "devices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    *("device", "efficiency", "memory_bytes", "jobs", "hours", "gpu_hours"),
                    *("operations", "tokens", "disk_bytes", "stages", "trainings"),
                ],
                "properties": {
                    "hours": NUMBER,
                    "disk_bytes": NUMBER,
                    "stages": {
                        "type": "array",
                        "items": {
                            "required": [
                                *("stage", "model", "jobs", "parameters", "tokens", "operations"),
                                *("device_memory_bytes", "host_memory_bytes", "written_bytes"),
                                *("state_bytes", "hours", "longest_hours", "fits"),
                            ]
                        },
                    },
                    "trainings": {
                        "type": "array",
                        "items": {
                            "required": ["model", "tuning", "mode", "precision", "fits"],
                            "properties": {"device_bytes": BYTES, "host_bytes": BYTES},
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def paper() -> Study:
    return read_study(PAPER)


def context(study: Study, job: StageJob) -> JobContext:
    return JobContext(study, model_info(study, job.model), job, DEVICES["H200"])


def test_every_stage_has_a_cost(paper: Study) -> None:
    """That a plan has the jobs of a dry run is tested in tests/workflow/test_plan.py."""
    stages = set()
    for study in (paper, read_study(ROOT / "config.yaml")):
        jobs = list(jobs_of(study))
        assert len(jobs) == len(set(jobs))
        stages |= {job.stage for job in jobs}
    assert stages == set(STAGES) == set(costs())


def test_words_are_counted_as_the_tokenizer_does(facts: FactTables) -> None:
    from factrecall.config.facts import Facts

    settings = Facts(people=16, pretrain_people=4, pools=SMALL_POOLS)
    texts = texts_of(settings, 3)
    tokenizer = tokenizer_for(facts)
    # The short sentences, which this tokenizer was shown as well, hold no other words.
    assert texts.words == len(tokenizer)
    spans = list(zip(facts.qa["attribute_start"], facts.qa["terminator_end"], strict=True))
    encoded = encode(tokenizer, list(facts.qa["text"]), [[span] for span in spans])
    assert texts.question.mean() == np.mean([len(one.tokens) for one in encoded])
    answers = np.mean([one.answers[0][1] - one.answers[0][0] for one in encoded])
    assert texts.answer == pytest.approx(answers, rel=0.01)


def test_tokens_of_questions_that_share_rows_are_about_as_planned() -> None:
    from factrecall.config.facts import Facts
    from factrecall.data.tables import make_facts

    settings = Facts(people=120)
    facts, texts = make_facts(settings, 5), texts_of(settings, 5)
    tokenizer = tokenizer_for(facts)
    spans = zip(facts.qa["attribute_start"], facts.qa["terminator_end"], strict=True)
    asked = Answers.of(encode(tokenizer, list(facts.qa["text"]), [[s] for s in spans]), 2048)
    assert texts.per_question == pytest.approx(asked.tokens / len(facts.qa), rel=0.25)


@pytest.mark.parametrize("batch", [1, 16, 32, 64])
def test_passes_of_an_update_are_about_as_many_as_are_made(batch: int) -> None:
    from factrecall.models.passes import cut

    rng = np.random.default_rng(batch)
    lengths = np.concatenate([rng.integers(58, 80, 100), rng.integers(8, 18, 900)]).astype(float)
    passes, tokens = grouped(lengths, batch, 16384)
    made = [
        [len(g) * max(drawn[g]) for g in cut(drawn, 16384)]
        for drawn in (rng.choice(lengths, batch).astype(int) for _ in range(200))
    ]
    assert passes * tokens == pytest.approx(np.mean([sum(m) for m in made]), rel=0.35)
    assert passes == pytest.approx(np.mean([len(m) for m in made]), abs=1.1)


def test_operations_are_two_a_parameter_and_token_and_thrice_in_training() -> None:
    shape = PUBLISHED["meta-llama/Llama-3.2-3B"]
    forward = Passes(1, 1000, 1000, 1).operations(shape)
    assert forward == pytest.approx(2 * shape.parameters * 1000, rel=0.01)
    assert Passes(1, 1000, 1000, 1, "train").operations(shape) == 3 * forward
    assert Passes(1, 1000, 1000, 1, "checkpointed").operations(shape) == 4 * forward
    without = Passes(1, 1000, 0, 1).operations(shape)
    assert forward - without == 2 * shape.embedding * 1000


def test_examples_and_traced_ones_are_counted(paper: Study) -> None:
    found = {
        tuning: plan_training(context(paper, StageJob("fine-tune", "llama-3.2-3b", tuning, 0)))
        for tuning in ("bio", "stage", "mix")
    }
    assert {t: p.examples for t, p in found.items()} == {
        "bio": 10_000,
        "stage": 5000,
        "mix": 15_000,
    }
    assert {t: p.traced for t, p in found.items()} == {"bio": 20, "stage": 10, "mix": 30}
    assert all(p.tokens <= p.recipe.micro_batch_tokens for p in found.values())
    assert all(p.execution.packing and p.precision == "bfloat16" for p in found.values())


def test_sweeps_evaluate_all_steps_or_where_the_curve_bends(paper: Study) -> None:
    column = StageJob("intervene", "llama-3.2-3b", "mix", 0, kind="column", ranking="baseline")
    steps, share, orders = evaluated_steps(context(paper, column))
    forward = -(-401_408 // 8192) + 1  # fewer than adaptive steps would be
    assert orders == 4 and 4 * 2 * forward < steps < 4 * (forward + 200) and share > 0.9
    laptop = read_study(ROOT / "config.yaml")
    job = StageJob("intervene", "small", "mix", 0, kind="attention", ranking="shared")
    steps, share, orders = evaluated_steps(context(laptop, job))
    assert (steps, orders) == (2 * (2 * (2 * 8 + 2 * 4) + 1), 1) and share < 0.6


def test_what_costs_more_takes_longer(paper: Study) -> None:
    hours = {name: plan_study(paper, device).hours for name, device in DEVICES.items()}
    assert hours["H200"] < hours["H100"] < hours["A100-80"] < hours["A100-40"]
    better = plan_study(paper, DEVICES["H200"], 0.6).hours
    assert better < hours["H200"] < 90  # the goal of the project
    assert plan_study(paper, DEVICES["H200"]).gpu_hours < 4635 / 50


def test_ci_is_planned_on_a_cpu() -> None:
    plan = plan_study(read_study(CI), SOME_CPU)
    assert plan.hours < 1 and not plan.too_large()
    assert all(p.cost.memory.device == 0 and p.cost.memory.host > 1e8 for p in plan.jobs)


def test_the_command_prints_and_writes_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    assert main(["plan", "--configfile", str(PAPER), "--json", str(out)]) == 0
    said = capsys.readouterr().out
    jobs = len(list(jobs_of(read_study(PAPER))))
    for word in (f"{jobs} jobs", "3,212,749,824", "A100-40", "moments", "predicted"):
        assert word in said
    written = json.loads(out.read_text())
    jsonschema.validate(written, SCHEMA)
    assert [one["device"] for one in written["devices"]] == list(DEVICES)
    one = written["devices"][0]
    assert sum(row["jobs"] for row in one["stages"]) == one["jobs"] == jobs
    assert sum(row["hours"] for row in one["stages"]) == pytest.approx(one["hours"])
    assert {t["tuning"] for t in one["trainings"]} == {"bio", "stage", "mix"}
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_what_does_not_fit_is_said_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("recall: {max_eval_tokens: 16384}\n", encoding="utf-8")
    files = [str(PAPER), str(large)]
    assert main(["plan", "--configfile", *files, "--device", "a100-40"]) == 0
    said = capsys.readouterr().out
    assert "graft of llama-3.2-3b does NOT FIT A100-40" in said
    assert "lower recall.max_eval_tokens" in said
    assert "weights and moments in main memory" in said


def test_the_paper_fits_every_gpu() -> None:
    study = read_study(PAPER)
    for device in DEVICES.values():
        assert not plan_study(study, device).too_large()


def test_a_guessed_model_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("models: {pythia-2.8b: {repository: EleutherAI/pythia-1.4b}}\n")
    assert main(["plan", "--configfile", str(PAPER), str(own), "--device", "H200"]) == 0
    assert "GUESSED from its name" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "TPU"], "--device TPU"),
        (["--efficiency", "0"], "--efficiency 0"),
        (["--efficiency", "1.5"], "--efficiency 1.5"),
        (["--json", f"{__file__}/plan.json"], __file__),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--configfile", str(CI), *options]) == 2
    told = capsys.readouterr().err
    assert said in told and "remedy" in told


def test_a_mistake_in_the_study_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--configfile", str(tmp_path / "none.yaml")]) == 2
    own = tmp_path / "own.yaml"
    own.write_text("facts: {people: 0}\n")
    assert main(["plan", "--configfile", str(CI), str(own)]) == 2
    (tmp_path / "people.csv").write_text("name\nEve\n")
    own.write_text(f"facts: {{individuals: {tmp_path / 'people.csv'}}}\n")
    assert main(["plan", "--configfile", str(CI), str(own)]) == 2
    assert "missing columns" in capsys.readouterr().err


def test_no_network_no_weights_and_no_pytorch_are_needed() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from factrecall.cli import main\n"
        f"assert main(['plan', '--configfile', {str(PAPER)!r}]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, timeout=600
    )
    assert b" jobs" in done.stdout


def test_a_study_for_a_cpu_is_planned_on_one() -> None:
    study = read_study(PAPER)
    compute = study.compute.model_copy(update={"device": "cpu"})
    assert _usual(study.model_copy(update={"compute": compute})) == [CPU]
    assert _usual(study) == list(DEVICES)
