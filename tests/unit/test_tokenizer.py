"""Tokenizers of models built from scratch: nothing lost, nothing unknown, the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from factrecall.data.files import joined
from factrecall.data.tables import FactTables
from factrecall.models.loading import load_tokenizer
from factrecall.models.tokenizers import train_tokenizer
from tests.conftest import tokenizer_for

KINDS = ("words", "bpe")
EXTRA = ["A (B) c-d, e.f: ½ “q” O'Neil's 1,000.5.", "x", "ÀÉ 東京 👍🏽 done."]


def texts_of(facts: FactTables) -> list[str]:
    """Return every text that a model of the study reads."""
    return [
        *(text for _, text, _ in joined(facts.bio)),
        *(text for _, text, _ in joined(facts.qa)),
        *facts.bio["short"],
        *facts.qa["text"],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_of_the_study_comes_back_and_holds_no_unknown_token(
    facts: FactTables, kind: str
) -> None:
    tokenizer = tokenizer_for(facts, kind)
    for text in texts_of(facts):
        tokens = tokenizer(text)["input_ids"]
        assert tokens[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in tokens
        decoded = tokenizer.decode(tokens, skip_special_tokens=True)
        # Byte-level tokens keep the space that is put before the first word.
        assert decoded.removeprefix(" ") == text


@pytest.mark.parametrize("kind", KINDS)
def test_punctuation_and_any_script_come_back(kind: str) -> None:
    tokenizer = train_tokenizer(EXTRA, kind, 600, context=64)  # type: ignore[arg-type]
    for text in EXTRA:
        tokens = tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokens, skip_special_tokens=True).removeprefix(" ") == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_has_the_same_tokens_first_and_inside(facts: FactTables, kind: str) -> None:
    tokenizer = tokenizer_for(facts, kind)
    name = str(facts.individuals["name"].iloc[0])
    alone = tokenizer(name, add_special_tokens=False)["input_ids"]
    inside = tokenizer(f"She {name}", add_special_tokens=False)["input_ids"]
    assert inside[-len(alone) :] == alone


def test_words_are_whole_and_marks_apart(facts: FactTables) -> None:
    tokenizer = tokenizer_for(facts, "words")
    text = str(facts.qa["text"].iloc[0])
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert pieces[-1] == "." and pieces[-2].removeprefix("▁").isdigit()
    assert sum(piece.startswith("▁") for piece in pieces) == len(text.split())


def test_bpe_keeps_to_its_vocabulary(facts: FactTables) -> None:
    assert len(tokenizer_for(facts, "bpe")) <= 400


def test_offsets_lead_back_to_the_text(facts: FactTables) -> None:
    text = str(facts.bio["text"].iloc[0])
    for kind in KINDS:
        batch = tokenizer_for(facts, kind)(text, return_offsets_mapping=True)
        covered = "".join(text[start:end] for start, end in batch["offset_mapping"])
        assert covered.replace(" ", "") == text.replace(" ", "")


SCRIPT = """
import sys
from factrecall.models.tokenizers import train_tokenizer
texts = [f"{a}{b} was born in {b}ville, {a}-{b}." for a in "abcdefgh" for b in "stuvwxyz"]
train_tokenizer(texts, sys.argv[1], 420, context=64).save_pretrained(sys.argv[2])
"""


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_files_in_every_process(tmp_path: Path, kind: str) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, kind, str(folder)],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
        )
        for seed, folder in enumerate(folders)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert "tokenizer.json" in first
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_gives_the_same_tokens(
    facts: FactTables, tmp_path: Path, kind: str
) -> None:
    tokenizer = tokenizer_for(facts, kind)
    tokenizer.save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path)
    texts = texts_of(facts)[:20]
    assert opened(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert (opened.bos_token, opened.pad_token, opened.padding_side) == ("<bos>", "<pad>", "right")
