"""Tokenizers for models built from scratch, trained on the study's own text.

`words` keeps every word, number and punctuation mark whole, which suits small models: capacity
goes into facts and not into spelling. `bpe` is a byte-level BPE as the large models use, in which
the last characters of an answer may merge with the full stop. In both, a space is put before the
first word, so that it has the same tokens as inside a text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<bos>", "<pad>")


def word_splitter() -> PreTokenizer:
    """Return what splits a text into words and punctuation marks, for `words`."""
    from tokenizers import pre_tokenizers

    splitter: PreTokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    return splitter


def train_tokenizer(
    texts: Iterable[str], kind: Literal["words", "bpe"], vocabulary: int, *, context: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer that puts ``<bos>`` before each text and pads on the right.

    Parameters
    ----------
    texts : iterable of str
        All text the model is to read; `words` has no other way to know a word.
    kind : {"words", "bpe"}
        See the module.
    vocabulary : int
        Largest number of tokens, for `bpe`; `words` takes as many as there are.
    context : int
        Longest sequence in tokens, recorded with the tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "words":
        # WordLevel breaks ties of frequency by hash order: sorted words make the same bytes.
        core = Tokenizer(models.WordLevel({}, unk_token="<unk>"))
        core.pre_tokenizer = word_splitter()
        core.decoder = decoders.Metaspace(prepend_scheme="always")
        words = {piece for text in texts for piece, _ in core.pre_tokenizer.pre_tokenize_str(text)}
        order = [*SPECIAL, *sorted(words)]
        core.model = models.WordLevel({word: i for i, word in enumerate(order)}, unk_token="<unk>")
    else:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        core.decoder = decoders.ByteLevel()
        core.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=vocabulary,
                special_tokens=list(SPECIAL),
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", core.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<bos>",
        pad_token="<pad>",
        padding_side="right",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
