"""GGUF files become the models they were written from; what is not read as it is, is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from factrecall.config.model import Gguf
from factrecall.config.reading import read_study
from factrecall.cost.models import model_info
from factrecall.models.gguf import SPLITS
from factrecall.models.gguf_header import ORIGIN, Header
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.models.sources import fetch
from factrecall.report.tables import shape
from factrecall.runtime.errors import FactRecallError
from tests.conftest import scratch

TEXTS = [
    "Ann Lee was born on May 3, 1987 in Oslo. It's 12345 km from B2B,  isn't it?\n",
    "\u00c0\u00c9 \u6771\u4eac \U0001f44d 9.",
]
PRESETS = Path(__file__).parents[2] / "workflow/presets"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": lambda: ByteLevel(add_prefix_space=False),
    "smollm": lambda: Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "qwen2": lambda: Sequence(
        [Split(Regex(QWEN2), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    ),
}
"""How published tokenizers of each kind split text."""


def tokenizer_of(kind: str) -> Tokenizer:
    """Train a byte-level tokenizer, in which merges within numbers and words were learnt."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = PUBLISHED[kind]()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*TEXTS, "1987 1987 12345 12345 born born"], trainer)
    return core


@dataclass
class Source:
    """A random model and tokenizer, and what a file says of them beside or instead of the truth."""

    architecture: str = "llama"
    split: str = "smollm"
    tied: bool = True
    format: Format = Format.F32
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    tokens: Callable[[list[str]], list[str]] = list

    def model(self) -> PreTrainedModel:
        """Build the model: 2 layers of width 64, numbers that no default happens to be."""
        config = AutoConfig.for_model(
            self.architecture,
            vocab_size=self.tokenizer().get_vocab_size(),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4 if self.architecture != "qwen3" else 2,
            num_key_value_heads=2,
            max_position_embeddings=128,
            rms_norm_eps=3e-5,
            rope_parameters={"rope_theta": 50_000.0, "rope_type": "default"},
            tie_word_embeddings=self.tied,
        )
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():  # norms and biases, too
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model.eval()

    def tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.split)

    def stored(self, model: PreTrainedModel) -> dict[str, np.ndarray]:
        """Return tensors by their names in a file, as llama.cpp orders their rows."""
        config: Any = model.config
        (kind,) = (k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture)
        names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        found = {}
        for name, parameter in model.named_parameters():
            stem, _, suffix = name.rpartition(".")
            array, place = parameter.detach().numpy(), str(names.get_name(stem))
            if self.architecture == "llama" and (count := heads.get(place.rpartition(".")[2])):
                halves = array.reshape(count, 2, -1, *array.shape[1:])
                array = halves.swapaxes(1, 2).reshape(array.shape)
            found[f"{place}.{suffix}"] = array
        return found

    def write(self, path: Path) -> PreTrainedModel:
        """Write the file; return the model."""
        model, core = self.model(), self.tokenizer()
        config: Any = model.config
        vocabulary = core.get_vocab()
        writer = gguf.GGUFWriter(path, self.architecture)
        settings: dict[str, Any] = {
            "block_count": config.num_hidden_layers,
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.freq_base": config.rope_parameters["rope_theta"],
        }
        if self.architecture == "qwen3":
            settings["attention.key_length"] = config.head_dim
        values: dict[str, Any] = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": self.split,
            "tokenizer.ggml.tokens": self.tokens(sorted(vocabulary, key=vocabulary.__getitem__)),
            "tokenizer.ggml.merges": [
                " ".join(m) for m in json.loads(core.to_str())["model"]["merges"]
            ],
            "tokenizer.ggml.eos_token_id": 0,
        }
        stated = {f"{self.architecture}.{k}": v for k, v in (settings | self.settings).items()}
        for key, value in (stated | values | self.values).items():
            if isinstance(value, list):
                writer.add_array(key, value)
            elif value is not None:
                add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
                       bool: writer.add_bool}[type(value)]  # fmt: skip
                add(key, value)
        for name, array in (self.stored(model) | self.tensors).items():
            if array is not None:
                kind = self.format if array.ndim == 2 else Format.F32
                writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return model


def settings_of(path: Path) -> Gguf:
    return Gguf(source="gguf", path=path, training=scratch("llama").training)


def fetched(path: Path) -> Path:
    out = path.parent / "out"
    fetch(settings_of(path), path.parent / "locks", out)
    return out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("architecture", "split"),
    [*(("llama", split) for split in SPLITS), ("qwen2", "qwen2"), ("qwen3", "qwen2")],
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
    flags = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 0}
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
    assert shape({"source": "gguf", "path": "x/a.gguf"}, told) == (
        f"GGUF file a.gguf, dequantised from {kind.name}: not the published weights"
    )


REFUSED: dict[str, tuple[Source, str]] = {
    "architecture": (Source(values={"general.architecture": "gptneox"}), "architecture is gptneox"),
    "scaled positions": (
        Source(settings={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        "scaled (linear)",
    ),
    "scaled positions of Llama 3": (
        Source(tensors={"rope_freqs.weight": np.ones(8, np.float32)}),
        "scaled (rope_freqs.weight)",
    ),
    "fewer tokens": (
        Source(tokens=lambda all: all[:-1]),
        "306 tokens, but its embedding matrix 307",
    ),
    "a token twice": (Source(tokens=lambda all: [*all[:-1], all[5]]), "twice"),
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
    "a split that the library replaces": (Source("qwen2", "gpt-2"), "splits text otherwise"),
    "an unknown split": (Source(values={"tokenizer.ggml.pre": "tekken"}), "gpt2, tekken"),
    "no merges": (Source(values={"tokenizer.ggml.merges": None}), "no merges"),
    "texts begin otherwise": (
        Source(values={"tokenizer.ggml.add_bos_token": True}),
        "add_bos_token",
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


def test_a_path_without_a_file_is_told() -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        settings_of(Path("no/such.gguf"))
