"""GGUF files become the models they were written from; what is not read as it is, is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format

from factrecall.config.model import Gguf
from factrecall.config.reading import read_study
from factrecall.cost.models import model_info
from factrecall.cost.resources import needs
from factrecall.experiments.report import _format
from factrecall.models.gguf import KINDS, PROBE, splitter
from factrecall.models.gguf_header import ORIGIN, Header
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.models.sources import fetch
from factrecall.report.tables import shape
from factrecall.runtime.errors import FactRecallError
from tests.conftest import scratch
from tests.gguf_files import TEXTS, Source

PRESETS = Path(__file__).parents[2] / "workflow/presets"


def settings_of(path: Path) -> Gguf:
    return Gguf(source="gguf", path=path, training=scratch("llama").training)


def fetched(path: Path) -> Path:
    out = path.parent / "out"
    fetch(settings_of(path), path.parent / "locks", out)
    return out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("architecture", "split"),
    [*(("llama", split) for split in KINDS), ("qwen2", "qwen2"), ("qwen3", "qwen2")],
)
def test_a_file_becomes_the_model_it_was_written_from(
    tmp_path: Path, architecture: str, tied: bool, split: str
) -> None:
    source = Source(architecture, split, tied)
    model = source.write(tmp_path / "odd 'name'.gguf")
    out = fetched(tmp_path / "odd 'name'.gguf")
    found = load_model(out)
    assert type(found) is type(model) and found.config.tie_word_embeddings is tied
    wanted = model.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.state_dict().items())
    tokenizer, core = load_tokenizer(out), source.tokenizer()
    for text in TEXTS:
        tokens = core.encode(text).ids
        assert tokenizer(text)["input_ids"] == tokens
        with torch.no_grad():  # eps and the base of rotary embeddings are no weights
            batch = torch.tensor([tokens])
            assert torch.equal(found(batch).logits, model(batch).logits)
    assert getattr(found.config, ORIGIN) == "F32"


def test_texts_begin_as_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    flags: dict[str, object] = {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 0,
    }
    Source(values=flags).write(path)
    assert load_tokenizer(fetched(path))(TEXTS[0])["input_ids"][0] == 0


@pytest.mark.parametrize("kind", [Format.Q4_1, Format.Q8_0, Format.F16])
def test_quantised_weights_are_those_of_the_format_s_own_library(
    tmp_path: Path, kind: Format
) -> None:
    source = Source(format=kind)
    model = source.write(tmp_path / "a.gguf")
    out = fetched(tmp_path / "a.gguf")
    found = source.stored(load_model(out))
    for name, array in source.stored(model).items():
        stored = gguf.quantize(array, kind) if array.ndim == 2 else array
        assert np.array_equal(
            found[name], gguf.dequantize(stored, kind) if array.ndim == 2 else array
        )
    told = json.loads((out / "config.json").read_text())[ORIGIN]
    assert told == kind.name
    said = shape({"source": "gguf", "path": "x/a.gguf"}, told)
    quantised = kind is not Format.F16
    assert said == "GGUF file a.gguf, " + (
        f"dequantised from {told}: not the published weights" if quantised else "stored as F16"
    )


REFUSED: dict[str, tuple[Source, str]] = {
    "architecture": (Source(values={"general.architecture": "gptneox"}), "architecture is gptneox"),
    "scaled positions": (
        Source(settings={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        "scaled (linear)",
    ),
    "scaled positions without a kind": (
        Source(settings={"rope.scaling.factor": 4.0}),
        "scaled (linear)",
    ),
    "scaled positions of Llama 3": (
        Source(tensors={"rope_freqs.weight": np.ones(8, np.float32)}),
        "scaled (rope_freqs.weight)",
    ),
    "fewer tokens": (
        Source(tokens=lambda all: all[:-1]),
        "319 tokens, but its embedding matrix 320",
    ),
    "a token twice": (Source(tokens=lambda all: [*all[:-1], all[5]]), "twice"),
    "a part": (Source(values={"split.count": 3}), "one of 3 parts"),
    "no eps": (
        Source(settings={"attention.layer_norm_rms_epsilon": None}),
        "does not state llama.attention.layer_norm_rms_epsilon",
    ),
    "a setting by layer": (
        Source(settings={"attention.head_count_kv": [2, 2]}),
        "head_count_kv = a list",
    ),
    "an unread setting": (Source(settings={"logit_scale": 0.5}), "llama.logit_scale = 0.5"),
    "a sliding window": (Source(settings={"attention.sliding_window": 64}), "sliding_window = 64"),
    "another head size": (Source(settings={"attention.key_length": 32}), "key_length = 32"),
    "another vocabulary size": (Source(settings={"vocab_size": 400}), "(400, 64)"),
    "an unread tensor": (
        Source(tensors={"blk.0.attn_q.bias": np.ones(64, np.float32)}),
        "the tensor blk.0.attn_q.bias, which the library does not read",
    ),
    "a missing tensor": (Source(tensors={"blk.1.ffn_up.weight": None}), "lacks the tensor blk.1"),
    "a tensor of another shape": (
        Source(tensors={"blk.1.ffn_up.weight": np.ones((64, 64), np.float32)}),
        "of shape (64, 64)",
    ),
    "a SentencePiece tokenizer": (
        Source(values={"tokenizer.ggml.model": "llama"}),
        "of kind llama",
    ),
    "a split that the library replaces": (Source("qwen2", "gpt-2"), "split text otherwise"),
    "another split that it replaces": (Source("qwen2", "smollm"), "split text otherwise"),
    "an unknown split": (Source(values={"tokenizer.ggml.pre": "tekken"}), "gpt2, tekken"),
    "no merges": (Source(values={"tokenizer.ggml.merges": None}), "no merges"),
    "texts begin otherwise": (
        Source(values={"tokenizer.ggml.add_bos_token": True}),
        "add_bos_token",
    ),
    "texts end otherwise": (
        Source(values={"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eos_token_id": None}),
        "add_eos_token",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_as_it_is_is_refused_and_not_locked(tmp_path: Path, what: str) -> None:
    source, told = REFUSED[what]
    path = tmp_path / "a.gguf"
    source.write(path)
    with pytest.raises(FactRecallError) as caught:
        fetched(path)
    assert caught.value.where == str(path) and told in caught.value.why
    assert not (tmp_path / "out").exists() and not (tmp_path / "locks").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.7, 0.95, 0.999])
def test_a_file_that_is_cut_off_is_told(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.gguf"
    Source().write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FactRecallError, match=r"cut off|no GGUF file") as caught:
        fetched(path)
    assert caught.value.where == str(path)
    assert not (tmp_path / "locks").exists()


def test_the_report_knows_how_weights_were_stored(tmp_path: Path) -> None:
    study = read_study(PRESETS / "ci.yaml")
    base = tmp_path / f"models/m/base/seed{study.seed}"
    assert _format(study, "m", tmp_path) == ""
    for text, found in (('{"dequantised_from": "Q4_1"}', "Q4_1"), ("{}", ""), ("{", "")):
        base.mkdir(parents=True, exist_ok=True)
        (base / "config.json").write_text(text)
        assert _format(study, "m", tmp_path) == found


def test_a_file_that_differs_from_its_lock_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    Source().write(path)
    first = {p.name: p.read_bytes() for p in fetched(path).iterdir()}
    assert {p.name: p.read_bytes() for p in fetched(path).iterdir()} == first
    Source(split="gpt-2").write(path)
    with pytest.raises(FactRecallError, match="it differs from"):
        fetched(path)


def test_a_plan_knows_the_shape_from_the_file(tmp_path: Path) -> None:
    paper = read_study(PRESETS / "paper.yaml")
    for architecture, guessed in (("llama", False), ("qwen2", True)):
        path = tmp_path / f"{architecture}.gguf"
        model = Source(architecture).write(path)
        study = paper.model_copy(update={"models": {"it": settings_of(path)}})
        found = model_info(study, "it")
        assert found.guessed is guessed
        count = sum(parameter.numel() for parameter in model.parameters())
        assert guessed or found.shape.parameters == count
    assert Header(path).formats == "F32"


def test_a_plan_of_a_file_that_is_cut_off_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    Source().write(path)
    path.write_bytes(path.read_bytes()[:500])  # fetching it says so
    study = read_study(PRESETS / "paper.yaml").model_copy(
        update={"models": {"it": settings_of(path)}}
    )
    assert model_info(study, "it").guessed and needs(study, "fetch-model", "it")["mem_mb"] > 0


def test_kinds_of_tokenizers_split_the_probe_in_their_own_ways() -> None:
    pieces = [splitter(kind)[0].pre_tokenize_str(PROBE) for kind in KINDS]
    assert all(one != two for one, two in itertools.combinations(pieces, 2))


def test_a_path_without_a_file_is_told() -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        settings_of(Path("no/such.gguf"))
