"""GGUF files: llama.cpp's single-file format, turned into a model folder with float32 weights.

The library reads such a file, but leaves out without a word what it does not know. So all that the
file states is compared with what the library makes of it: each setting of the model, each tensor
and its shape, each token, and where the tokenizer splits text. Whatever differs is refused. How the
tokenizer splits text is set here, by its kind, since the library does not know every kind.
"""

from __future__ import annotations

import io
import json
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
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedConfig

SUPPORTED = ("llama", "qwen2", "qwen3")
"""Architectures, by their name in the file, whose tensors are read as they are."""

REQUIRED = (
    *("block_count", "context_length", "embedding_length", "feed_forward_length"),
    *("attention.head_count", "attention.layer_norm_rms_epsilon"),
)
"""Settings for which the library would take a number of its own."""

KINDS = ("gpt-2", "qwen2", "smollm")
"""Kinds of byte-level tokenizers (``tokenizer.ggml.pre``); see `splitter`."""

PROBE = "In 1987 (Ann's B2B)  I'M Zoe\u0308\n\n1 a"
"""A text that each kind splits in its own way."""

SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Special tokens, as the library and the file name them."""


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
    with _opened(header) as where:
        config = AutoConfig.from_pretrained(**where)
        _check_settings(header, config)
        _check_tensors(header, config)
        core = AutoTokenizer.from_pretrained(**where).backend_tokenizer
    config.save_pretrained(folder)  # which decides of what class the tokenizer is opened
    _save_tokenizer(header, core, folder)
    _check_tokenizer(header, folder)
    with _opened(header) as where:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, output_loading_info=True
        )
    model, notes = opened
    if left := {*notes["missing_keys"], *notes["unexpected_keys"], *notes["mismatched_keys"]}:
        raise header.refusal(f"the library does not read its tensor {min(map(str, left))}")
    # Marks of the quantiser, with which the library refuses to save.
    model.hf_quantizer = None
    del model.config.quantization_config
    setattr(model.config, ORIGIN, header.formats)
    model.save_pretrained(folder)


@contextmanager
def _opened(header: Header) -> Iterator[dict[str, Any]]:
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
        except (FactRecallError, MemoryError):
            raise
        except Exception as error:  # the library raises many kinds
            if isinstance(error, OSError) and error.errno:
                raise
            told = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
            raise header.refusal(f"the library cannot read it: {told}") from error


def _check_keys(header: Header) -> None:
    """Refuse architectures, settings and tokenizers of which it is known that they are not read."""
    name = header.architecture
    if (parts := header.values.get("split.count", 1)) > 1:
        raise header.refusal(
            f"it is one of {parts} parts of a model", "join them with llama-gguf-split --merge"
        )
    if name not in SUPPORTED:
        raise header.refusal(
            f"its architecture is {name}; supported in GGUF files are {', '.join(SUPPORTED)}"
        )
    scaling = [key for key in header.values if key.startswith(f"{name}.rope.scaling.")]
    kind = header.setting("rope.scaling.type", "linear")  # as llama.cpp takes it
    if (scaling and kind != "none") or "rope_freqs.weight" in header.shapes:
        raise header.refusal(
            f"its rotary position embeddings are scaled ({kind if scaling else 'rope_freqs.weight'}"
            "), which the library does not read from such files: it would be another model"
        )
    for key in (*header.values, *header.lists):
        own = key.removeprefix(f"{name}.")
        if own != key and key not in scaling and (own not in SETTINGS or key in header.lists):
            told = "a list" if key in header.lists else repr(header.values[key])
            raise header.refusal(f"the library does not read {key} = {told}")
    for key in REQUIRED:
        if header.setting(key) is None:
            raise header.refusal(f"it does not state {name}.{key}", "download another file")
    kind, split = (header.values.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind != "gpt2" or split not in KINDS:
        raise header.refusal(
            f"its tokenizer is of kind {kind}, {split}; supported are byte-level BPE tokenizers "
            f"(gpt2) of the kinds {', '.join(KINDS)}"
        )
    if not header.merges():
        raise header.refusal("its tokenizer has no merges")
    tokens, rows = header.tokens(), header.shapes.get(EMBEDDING, ())[:1]
    if rows and len(tokens) != rows[0]:
        raise header.refusal(
            f"its tokenizer has {len(tokens):,} tokens, but its embedding matrix {rows[0]:,} rows",
            "they are of two models: download another file",
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise header.refusal(f"its tokenizer has the token {twice!r} twice")


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
    if config.model_type != header.architecture:
        raise header.refusal(f"the library takes it for a model of kind {config.model_type}")
    for key, name in SETTINGS.items():
        stated = header.setting(key, implied.get(key))
        if stated is not None and (found := made.get(name)) != stated:
            raise header.refusal(
                f"it states or implies {key} = {stated!r}, of which the library makes {found!r}"
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
            raise header.refusal(f"it holds the tensor {name}, which the library does not read")
        if here is None:
            raise header.refusal(f"it lacks the tensor {name}", "download another file")
        if here != there:
            raise header.refusal(f"its tensor {name} is of shape {here}, the model needs {there}")


def splitter(kind: str) -> tuple[PreTokenizer, Normalizer | None]:
    """Return what splits a text in a kind of byte-level tokenizers, and what changes it before.

    As the published tokenizers of GPT-2, Qwen 2 and 3, and SmolLM2 do.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    usual = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, usual]), None
    if kind == "qwen2":
        words = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
        characters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([words, characters]), normalizers.NFC()
    return usual, None


QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The published pattern of Qwen 2 and 3."""


def _save_tokenizer(header: Header, core: Any, folder: Path) -> None:
    """Write a tokenizer as the file describes it."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokens = header.tokens()
    described = json.loads(core.to_str())
    added = described["added_tokens"]  # the library may add one of its own
    described["added_tokens"] = [token for token in added if token["id"] < len(tokens)]
    core = Tokenizer.from_str(json.dumps(described))
    core.pre_tokenizer, core.normalizer = splitter(header.values["tokenizer.ggml.pre"])
    numbers = {
        kind: header.values.get(f"tokenizer.ggml.{name}_token_id") for kind, name in SPECIAL.items()
    }
    special = {f"{kind}_token": tokens[n] for kind, n in numbers.items() if n is not None}
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=header.setting("context_length"),
        clean_up_tokenization_spaces=False,
        **special,
    ).save_pretrained(folder)


def _check_tokenizer(header: Header, folder: Path) -> None:
    """Compare tokens, merges and the splitting of text with what the file states."""
    try:
        tokenizer: Any = load_tokenizer(folder)
    except FactRecallError as error:  # of a folder that is soon gone
        raise header.refusal(error.why) from error
    kind, core = header.values["tokenizer.ggml.pre"], tokenizer.backend_tokenizer
    wanted, normal = splitter(kind)
    text = normal.normalize_str(PROBE) if normal else PROBE
    found = core.normalizer.normalize_str(PROBE) if core.normalizer else PROBE
    if core.pre_tokenizer.pre_tokenize_str(found) != wanted.pre_tokenize_str(text):
        raise header.refusal(f"the library would split text otherwise than its tokenizer ({kind})")
    vocabulary, tokens = tokenizer.get_vocab(), header.tokens()
    if vocabulary != {token: number for number, token in enumerate(tokens)}:
        raise header.refusal("the library reads other tokens than it states")
    merges = [" ".join(pair) for pair in json.loads(core.to_str())["model"]["merges"]]
    if merges != header.merges():
        raise header.refusal("the library reads other merges of tokens than it states")
    ids = tokenizer(PROBE)["input_ids"]
    for kind, place in (("bos", 0), ("eos", -1)):
        marked = ids[place] == header.values.get(f"tokenizer.ggml.{kind}_token_id")
        if marked != bool(header.values.get(f"tokenizer.ggml.add_{kind}_token", False)):
            raise header.refusal(f"the library does not mark texts as it states (add_{kind}_token)")
