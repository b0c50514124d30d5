"""Model folders, opened and written: safetensors only, no remote code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.quiet import quiet
from factrecall.runtime.storage import atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Open a model folder's tokenizer; it must be a fast one, since offsets are needed."""
    quiet()
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises many kinds, from OSError to bare Exception
        raise _unreadable(folder, "tokenizer", error) from error
    if not tokenizer.is_fast:
        raise FactRecallError(
            str(folder),
            f"{type(tokenizer).__name__} gives no character offsets, so answers cannot be located",
            "use a model with a fast tokenizer (a tokenizer.json file)",
        )
    return tokenizer


def load_model(folder: Path, device: torch.device | str = "cpu") -> PreTrainedModel:
    """Open a model folder with float32 weights, in evaluation mode."""
    quiet()
    from transformers import AutoModelForCausalLM

    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # as above; SafetensorError is no OSError
        raise _unreadable(folder, "model", error) from error
    model: PreTrainedModel
    model, notes = opened
    if notes["missing_keys"]:  # the library fills them with random numbers
        raise _unreadable(folder, "model", ValueError(f"it lacks {min(notes['missing_keys'])}"))
    model.to(device)  # type: ignore[arg-type]  # the library's wrapper loses the signature
    model.eval()
    return model


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model folder that `from_pretrained` opens, atomically."""
    quiet()
    with atomic(folder) as temporary:
        model.save_pretrained(temporary)
        try:
            tokenizer.save_pretrained(temporary)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise OSError(str(error)) from error  # what a full disk is to that library


def choose_device(name: str) -> torch.device:
    """Turn the setting `compute.device` into a device that is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise FactRecallError(
            "compute.device = cuda",
            "PyTorch sees no CUDA device here",
            "set it to auto or cpu, or check the driver and that the GPU build of PyTorch is "
            "installed (envs/requirements-gpu.txt)",
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _unreadable(folder: Path, what: str, error: Exception) -> FactRecallError:
    first = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
    why = f"the {what} cannot be opened: {first}"
    remedy = (
        "the folder needs config.json, *.safetensors and tokenizer.json as `save_pretrained` "
        "writes them; if factrecall made it, delete it and run the workflow again"
    )
    if _damaged(folder, what):
        return DamagedFile(folder, why, remedy)
    return FactRecallError(str(folder), why, remedy)


def _damaged(folder: Path, what: str) -> bool:
    """Say whether files of a model folder are missing or cut off; libraries fail otherwise, too."""
    from safetensors import SafetensorError, safe_open

    weights = list(folder.glob("*.safetensors"))
    named = {"config.json"}
    if what == "tokenizer":  # for a fetched model the library may make one of other files
        named.add("tokenizer.json")
    try:
        for text in folder.glob("*.json"):
            content = json.loads(text.read_text(encoding="utf-8"))
            if text.name.endswith(".safetensors.index.json"):
                named.update(content["weight_map"].values())
        for file in weights:
            with safe_open(file, framework="pt"):
                pass
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return True
    except OSError:
        return False
    return folder.is_dir() and not (weights and all((folder / name).exists() for name in named))
