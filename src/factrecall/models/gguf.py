"""GGUF files: llama.cpp's single-file format, turned into a model folder with float32 weights.

The library reads such a file, but leaves out without a word what it does not know. So all that the
file states is compared with what the library makes of it: each setting of the model, each tensor
and its shape, each token, and where the tokenizer splits text. Whatever differs is refused.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from factrecall.models.gguf_header import EMBEDDING, ORIGIN, SETTINGS, Header
from factrecall.models.loading import load_tokenizer
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Architectures, by their name in the file, that are known to be read as they are."""

PROBE = "In 1987, Ann's B2B"
_DIGITS = ["In", "\u0120", "1", "9", "8", "7", ",", "\u0120Ann", "'s", "\u0120B", "2", "B"]
SPLITS = {
    "gpt-2": ["In", "\u01201987", ",", "\u0120Ann", "'s", "\u0120B", "2", "B"],
    "qwen2": _DIGITS,
    "smollm": _DIGITS,
}
"""How tokenizers split a probe, by their kind (``tokenizer.ggml.pre``); U+0120 is a space."""

SPECIAL = ("bos", "eos", "unk", "pad")
"""Kinds of special tokens."""


def dequantise(path: Path, folder: Path) -> None:
    """Write a model folder with the weights of a GGUF file as float32.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        An empty folder; its `config.json` says under ``ORIGIN`` how weights were stored.

    Raises
    ------
    FactRecallError
        When the file is damaged, or the library does not read all of it.
    """
    quiet()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    header = Header(path)
    _check_keys(header)
    with _alone(header) as where:
        config = AutoConfig.from_pretrained(**where)
        _check_settings(header, config)
        _check_tensors(header, config)
        _save_tokenizer(header, AutoTokenizer.from_pretrained(**where), folder)
        config.save_pretrained(folder)  # which decides of what class the tokenizer is opened
        _check_tokenizer(header, load_tokenizer(folder))
        model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # Marks of the quantiser, with which the library refuses to save.
    model.hf_quantizer = None
    del model.config.quantization_config
    setattr(model.config, ORIGIN, header.formats)
    model.save_pretrained(folder)


@contextmanager
def _alone(header: Header) -> Iterator[dict[str, Any]]:
    """Give a file to the library, in a folder where nothing else and no odd name is.

    What the library raises becomes a message.
    """
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # a bar of its own
        (Path(folder) / "model.gguf").symlink_to(header.path.resolve())
        try:
            yield {
                "pretrained_model_name_or_path": folder,
                "gguf_file": "model.gguf",
                "local_files_only": True,
            }
        except FactRecallError:
            raise
        except Exception as error:  # the library raises many kinds
            told = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
            raise header.refused(f"the library cannot read it: {told}") from error


def _check_keys(header: Header) -> None:
    """Refuse architectures, settings and tokenizers of which it is known that they are not read."""
    name = header.architecture
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise header.refused(
            f"its architecture is {name}; of GGUF files {known} are known to be read as they are"
        )
    scaling = header.setting("rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in header.shapes:
        raise header.refused(
            "its rotary position embeddings are scaled "
            f"({scaling if scaling != 'none' else 'rope_freqs.weight'}), which the library does "
            "not read from such files: it would be another model"
        )
    for key, value in header.values.items():
        own = key.removeprefix(f"{name}.")
        if own != key and own not in SETTINGS and not own.startswith("rope.scaling."):
            raise header.refused(f"the library does not read {key} = {value!r}")
    kind, split = (header.values.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind != "gpt2" or split not in SPLITS:
        known = ", ".join(SPLITS)
        raise header.refused(
            f"its tokenizer is of kind {kind}, {split}; known to be read as they are: gpt2 "
            f"(byte-level BPE) with {known}"
        )
    if not header.merges():
        raise header.refused("its tokenizer has no merges")
    tokens, (rows, *_) = header.tokens(), header.shapes.get(EMBEDDING, (0,))
    if len(tokens) != rows:
        raise header.refused(
            f"its tokenizer has {len(tokens):,} tokens, but its embedding matrix {rows:,} rows",
            "it was put together from two models: download another file",
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise header.refused(f"its tokenizer has the token {twice!r} twice")


def _check_settings(header: Header, config: Any) -> None:
    """Compare each setting that the file states, or implies, with the configuration made of it."""
    heads = header.setting("attention.head_count")
    size = header.setting("embedding_length", 0) // max(heads or 1, 1)
    implied = {
        "attention.head_count_kv": heads,
        "attention.key_length": size,
        "rope.freq_base": 10_000.0,
    }
    made: Mapping[str, Any] = {**vars(config), **(getattr(config, "rope_parameters", None) or {})}
    made = {**made, "head_dim": made.get("head_dim") or config.hidden_size // heads}
    for key, name in SETTINGS.items():
        stated = header.setting(key, implied.get(key))
        if stated is not None and (found := made.get(name)) != stated:
            raise header.refused(
                f"it states {key} = {stated!r}, of which the library makes {found!r}"
            )


def _check_tensors(header: Header, config: PreTrainedConfig) -> None:
    """Compare the names and shapes of all tensors with those of the model."""
    import torch
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from transformers import AutoModelForCausalLM

    (kind,) = (kind for kind, name in MODEL_ARCH_NAMES.items() if name == header.architecture)
    names = get_tensor_name_map(kind, config.num_hidden_layers)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = {}
    for name, parameter in model.named_parameters():  # a tied matrix is there once
        stem, _, suffix = name.rpartition(".")
        wanted[f"{names.get_name(stem)}.{suffix}"] = tuple(parameter.shape)
    for name in sorted(wanted.keys() | header.shapes.keys()):
        here, there = header.shapes.get(name), wanted.get(name)
        if there is None:
            raise header.refused(f"it holds the tensor {name}, which the library does not read")
        if here is None:
            raise header.refused(f"it lacks the tensor {name}", "download another file")
        if here != there:
            raise header.refused(f"its tensor {name} is of shape {here}, the model needs {there}")


def _save_tokenizer(header: Header, tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer as it is in the file."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = tokenizer.backend_tokenizer
    if header.values["tokenizer.ggml.pre"] == "smollm":  # not known to the library
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    special = {f"{kind}_token": getattr(tokenizer, f"{kind}_token") for kind in SPECIAL}
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=header.setting("context_length"),
        clean_up_tokenization_spaces=False,
        **special,
    ).save_pretrained(folder)


def _check_tokenizer(header: Header, tokenizer: Any) -> None:
    """Compare tokens, and where text is split, with what the file states."""
    kind = header.values["tokenizer.ggml.pre"]
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(PROBE)
    if (found := [piece for piece, _ in split]) != SPLITS[kind]:
        raise header.refused(
            f"its tokenizer ({kind}) splits text otherwise than the library's would: {found}"
        )
    vocabulary = tokenizer.get_vocab()
    for number, token in enumerate(header.tokens()):
        if vocabulary.get(token) != number:
            raise header.refused(f"the library reads its token {token!r} as another one")
    first = header.values.get("tokenizer.ggml.bos_token_id")
    begins = tokenizer(PROBE)["input_ids"][0] == first
    if begins != bool(header.values.get("tokenizer.ggml.add_bos_token", False)):
        raise header.refused("the library does not begin texts as it says (add_bos_token)")
