"""Recompute a finished study in the most naive way, from its files alone.

    python tests/naive/recompute.py results/ci

Nothing of the package is imported. Every text is a pass of its own, every answer is generated token
by token, every ranking is sorted and cut in plain sight, and every ablated or grafted model is
composed anew from two whole vectors of weights. What the package does to be fast (batches, shared
prefixes, cached layers, weights written in place, streamed rankings) is not done here.

Definitions are those of docs/method.md; each function names the section. A line is printed for each
comparison, and the exit code is 1 if anything differs. Sets, counts and answers have to be equal,
fractions to `TOLERANCE`. An answer may differ where another token is as likely as the gold one to
`TIE`, since sums of float32 depend on their order; the line says of how many answers that is so.

S and |S|/k are recomputed for all training seeds, what needs models for the first one, or with
`--all-seeds` for all. `--model NAME` takes one model of the study.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors import safe_open
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE, TIE = 1e-9, 1e-4
"""Largest difference of equal fractions, and of the logits of equally likely tokens."""

TASKS = ("BIO_in", "BIO_out", "QA_in")
STATEMENTS = {"S_I": ["BIO_in"], "S_II": ["BIO_out"], "S": ["BIO_in", "BIO_out"]}
READINGS = ("absolute", "magnitude", "signed", "adam")
RELATION = ["split", "relation"]
NODE = ["layer", "projection", "head"]

Key = tuple[str, int, str]
"""Which answer: split ("bio", "qa_in", "qa_out"), individual, relation."""

Right = dict[Key, bool]


class Comparison:
    """Prints a line for each comparison and counts those that fail."""

    made = failed = 0

    def line(self, what: str, differences: int, total: int, more: str = "") -> None:
        self.made, self.failed = self.made + 1, self.failed + (differences > 0)
        verdict = "DIFFERS" if differences else "equal"
        print(f"{verdict:<8}{what}: {differences:,} of {total:,} differ{more}", flush=True)

    def answers(self, what: str, found: Mapping[Key, tuple[bool, bool]], said: Right) -> Right:
        """Compare answers (see `ask`) with the study's; return them, at ties the study's."""
        right = {key: said.get(key, ours) if tie else ours for key, (ours, tie) in found.items()}
        ties = sum(right[key] != ours for key, (ours, _) in found.items())
        wrong = sum(right.get(key) != said.get(key) for key in right.keys() | said.keys())
        self.line(f"{what}, answers", wrong, len(found), f", {ties} at a tie" if ties else "")
        return right

    def rows(self, what: str, found: pd.DataFrame, stored: pd.DataFrame, keys: list[str]) -> None:
        """Compare all columns of `found` with a table's; both have the same keys, each once."""
        both = found.merge(stored, on=keys, how="outer", suffixes=("", " stored"), indicator=True)
        wrong = (both["_merge"] != "both").to_numpy() | both.duplicated(keys, keep=False).to_numpy()
        for column in found.columns.difference(keys):
            ours, theirs = (both[name].astype(float) for name in (column, f"{column} stored"))
            wrong |= ~np.isclose(ours, theirs, rtol=0, atol=TOLERANCE, equal_nan=True)
        self.line(what, int(wrong.sum()), len(both))


# Files. Where they lie is said here and nowhere else.


@dataclass(frozen=True)
class Run:
    """A model of the study, and where its files are."""

    results: Path
    model: str
    tuning: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model} {self.tuning} seed {self.seed}"

    def file(self, kind: str, suffix: str = "") -> Path:
        return self.results / kind / self.model / self.tuning / f"seed{self.seed}{suffix}"

    def table(self, kind: str, suffix: str = ".parquet") -> pd.DataFrame:
        return pd.read_parquet(self.file(kind, suffix))

    def summary(self, name: str, **equal: object) -> pd.DataFrame:
        """Return this model's rows of a table of the study, where columns have these values."""
        table = pd.read_parquet(self.results / "tables" / f"{name}.parquet")
        labels = {"model": self.model, "tuning": self.tuning, "seed": self.seed}
        for column, value in {**labels, **equal}.items():
            table = table[table[column] == value]
        return table

    def facts(self, name: str) -> pd.DataFrame:
        """Return a table of facts without the people of pre-training."""
        table = pd.read_parquet(self._own(f"facts/**/{name}.parquet"))
        return table[table["split"] != "pretrain"]

    @property
    def weights(self) -> Path:
        return self.file("models")

    @property
    def base(self) -> Path:
        """θpre, which has the study's seed."""
        return self._own(f"models/{self.model}/base/seed*/config.json").parent

    def _own(self, pattern: str) -> Path:
        """Return the only such file; of one for each replicate, that of the same thousand."""
        own = list(self.results.glob(pattern))
        if len(own) > 1:
            seeds = {p: re.findall(r"\bseed(\d+)", str(p.relative_to(self.results))) for p in own}
            own = [p for p, s in seeds.items() if int(s[-1]) // 1000 == self.seed // 1000]
        if len(own) != 1:
            raise FileNotFoundError(f"{self.results}/{pattern}: {len(own)} files, not one")
        return own[0]


def runs(results: Path, model: str, tuning: str) -> list[Run]:
    """Return the models of a tuning, by name and seed."""
    folders = sorted(file.parent for file in results.glob(f"models/{model}/{tuning}/*/config.json"))
    if not folders:
        raise FileNotFoundError(f"{results}/models/{model}/{tuning}: there is no model")
    return [
        Run(results, f.parts[-3], f.parts[-2], int(f.name.removeprefix("seed"))) for f in folders
    ]


def tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return all tensors of a file, and its metadata."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return {n: file.get_tensor(n).numpy() for n in names}, json.loads(
            file.metadata()["factrecall"]
        )


# Models: opened, composed, asked.


def opened(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def theta(folder: Path) -> torch.Tensor:
    """Return all weights as one vector of n numbers, tied tensors once (method.md, the top)."""
    return parameters_to_vector(opened(folder).parameters()).detach()


def composed(task: Path, pre: Path, from_task: np.ndarray) -> Any:
    """Return a new model, with θtask where `from_task` is true and θpre elsewhere."""
    model = opened(task)
    chosen = torch.where(torch.from_numpy(from_task), theta(task), theta(pre))
    vector_to_parameters(chosen, model.parameters())
    return model


def truth(index: np.ndarray, n: int) -> np.ndarray:
    """Return a set of flat indices as n truth values."""
    inside = np.zeros(n, dtype=bool)
    inside[index.astype(np.int64)] = True
    return inside


@cache
def questions(run: Run) -> dict[Key, tuple[list[int], list[int]]]:
    """Return the tokens of each prompt and of its answer (method.md, facts and formats; recall).

    A biography is six sentences with a space between; all before an attribute is its prompt. The
    full stop belongs to the answer, and so does every token that overlaps its characters.
    """
    tokenizer = AutoTokenizer.from_pretrained(run.weights)
    found = {}

    def add(key: Key, text: str, start: int, end: int) -> None:
        coded = tokenizer(text, return_offsets_mapping=True)
        spans = enumerate(coded["offset_mapping"])
        inside = [i for i, (a, b) in spans if a < b and a < end and b > start]
        tokens = coded["input_ids"]
        found[key] = tokens[: inside[0]], tokens[inside[0] : inside[-1] + 1]

    for person, sentences in run.facts("bio").groupby("individual"):
        story, begin = " ".join(sentences["text"]), 0
        for row in sentences.itertuples():
            start, end = begin + row.attribute_start, begin + row.terminator_end
            add(("bio", person, row.relation), story, start, end)
            begin += len(row.text) + 1
    for row in run.facts("qa").itertuples():
        key = f"qa_{row.split}", row.individual, row.relation
        add(key, row.text, row.attribute_start, row.terminator_end)
    return found


def ask(model: Any, prompt: list[int], gold: list[int]) -> tuple[bool, bool]:
    """Generate greedily, token by token; say whether that is right, and whether there was a tie.

    After a wrong token nothing can make the answer right, so that generation ends there.
    """
    tokens, tie = list(prompt), False
    for expected in gold:
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        others = torch.cat([logits[:expected], logits[expected + 1 :]])
        tie |= bool((logits[expected] - others.max()).abs() < TIE)
        tokens.append(int(logits.argmax()))
        if tokens[-1] != expected:
            return False, tie
    return True, tie


def ask_all(run: Run, model: Any, keys: Iterable[Key]) -> dict[Key, tuple[bool, bool]]:
    known = questions(run)
    with torch.inference_mode():
        return {key: ask(model, *known[key]) for key in keys}


def stored_answers(table: pd.DataFrame) -> Right:
    columns = (table[name].tolist() for name in ("split", "individual", "relation", "correct"))
    return {(s, i, r): c for s, i, r, c in zip(*columns, strict=True)}


def by_relation(right: Right) -> pd.DataFrame:
    """Count right answers by split and relation."""
    table = pd.DataFrame([(s, r, c) for (s, _, r), c in right.items()], columns=[*RELATION, "c"])
    found = table.groupby(RELATION)["c"].agg(n="size", correct="sum").reset_index()
    return found.assign(accuracy=found["correct"] / found["n"])


# What is recomputed.


def recall(run: Run, compare: Comparison) -> Right:
    """Exact match of every answer of a model (method.md, recall)."""
    said = stored_answers(run.table("models", ".recall.parquet"))
    found = ask_all(run, opened(run.weights), questions(run))
    right = compare.answers(f"recall of {run}", found, said)
    compare.rows(f"recall of {run}, table", by_relation(right), run.summary("recall"), RELATION)
    return right


def majority(base: Run, compare: Comparison) -> None:
    """The most frequent trained answer, of equals the first in the alphabet (method.md, recall)."""
    qa, right = base.facts("qa"), {}
    spans = zip(qa["text"], qa["attribute_start"], qa["attribute_end"], strict=True)
    qa = qa.assign(answer=[text[start:end] for text, start, end in spans])
    for of_bio, (relation, rows) in product((True, False), qa.groupby("relation")):
        trained = Counter(rows["answer"] if of_bio else rows["answer"][rows["split"] == "in"])
        usual = min(trained, key=lambda answer: (-trained[answer], answer))
        for row in rows.itertuples():
            split = "bio" if of_bio else f"qa_{row.split}"
            right[split, row.individual, relation] = row.answer == usual
    stored = replace(base, tuning="majority").summary("recall")
    compare.rows(f"majority vote, {base.model}, table", by_relation(right), stored, RELATION)


@dataclass(frozen=True)
class Selection:
    """S of a training history, its influence, and the tensor of each parameter.

    `question_top` are as many parameters as S has, the highest-ranked of the questions.
    """

    shared: np.ndarray
    question_top: np.ndarray
    influence: str
    names: list[str]
    tensor: np.ndarray

    def by_tensor(self, members: np.ndarray) -> pd.DataFrame:
        """Count members of a set, and those of them that are in S, in each tensor."""
        sets = {"members": members, "shared": members & self.shared}
        count = {c: np.bincount(self.tensor[m], minlength=len(self.names)) for c, m in sets.items()}
        table = pd.DataFrame({"tensor": self.names, **count})
        return table[table["members"] > 0]


def select(run: Run, compare: Comparison) -> Selection:
    """S_I, S_II, S and |S|/k at every k, with chance and null (method.md, shared parameters).

    A ranking is by descending influence; of equal influence the lower index comes first.
    """
    traced: dict[str, np.ndarray] = {}
    for tuning in ("bio", "stage") if run.tuning == "stage" else ("mix",):
        found, trace = tensors(replace(run, tuning=tuning).file("traces", ".safetensors"))
        traced |= found
    stored, said = tensors(run.file("shared", ".sets.safetensors"))
    n, keep, names, k = trace["n"], trace["keep"], trace["names"], said["k"]
    sizes = np.array([math.prod(shape) for shape in trace["shapes"]])
    wanted = said["provenance"]["settings"]["k"]  # a number of parameters, or a share of all
    model = opened(run.weights)
    wrong = [
        k != (wanted if isinstance(wanted, int) else round(wanted * n)),
        [name for name, _ in model.named_parameters()] != names or said["names"] != names,
        sum(p.numel() for p in model.parameters()) != n,
    ]
    compare.line(f"k, order of tensors and n of {run}", sum(wrong), len(wrong))

    ranking, wrong = {}, []
    for task, reading in product(TASKS, READINGS):
        index, value = (traced[f"{task}/{reading}/{part}"] for part in ("index", "value"))
        ranking[task, reading] = index[np.lexsort((index, -value))].astype(np.int64)
        wrong += (ranking[task, reading] != index).tolist()
    compare.line(f"rankings of {run}, sorted again", sum(wrong), len(wrong))

    tensor = np.repeat(np.arange(len(sizes)), sizes)
    ks = {m * 10**e for m in (1, 2, 5) for e in range(1, 13) if m * 10**e < keep} | {k, keep}
    rows, shared = [], np.zeros(n, dtype=bool)
    for reading, at, name in product(READINGS, sorted(ks), STATEMENTS):
        question = truth(ranking["QA_in", reading][:at], n)
        tops = [truth(ranking[task, reading][:at], n) for task in STATEMENTS[name]]
        statement, both = np.any(tops, axis=0), np.any([top & question for top in tops], axis=0)
        size = both.sum()
        b, q = (np.bincount(tensor[of], minlength=len(sizes)) for of in (statement, question))
        chance, null = b.sum() * q.sum() / n, (b * q / sizes).sum()
        selected = at == k and reading == said["influence"]
        rows.append([reading, name, at, size, size / at, chance / at, null / at, selected])
        if selected:
            compare.line(f"{name} of {run}", (both ^ truth(stored[name], n)).sum(), size)
            shared = both  # the last is S
    columns = ["influence", "set", "k", "size", "ratio", "chance", "null", "selected"]
    curve = pd.DataFrame(rows, columns=columns)
    compare.rows(f"|S|/k of {run}", curve, run.summary("shared"), columns[:3])
    question_top = truth(ranking["QA_in", said["influence"]][: shared.sum()], n)
    return Selection(shared, question_top, said["influence"], names, tensor)


def ablation(
    run: Run, other: Run, selections: Mapping[Run, Selection], whole: Right, compare: Comparison
) -> None:
    """θtask with some parameters reset to θpre, asked anew (method.md, ablation).

    These follow from files. Which parameters a random control resets is in none.
    """
    own, into = selections[run], f"{other.tuning}_into_{run.tuning}"
    resets = {  # whose S, and the members and where their values are from
        "shared": (own, own.shared, run.base),
        "only_shared": (own, ~own.shared, run.base),
        "qa_top": (own, own.question_top, run.base),
        into: (selections[other], selections[other].shared, other.weights),
    }
    for name, (selection, members, source) in resets.items():
        what, labels = f"{name} of {run}", {"ablated": name, "influence": own.influence}
        table = run.table("ablation", ".transplant.parquet" if name == into else ".parquet")
        here = (table["ablated"] == name) & (table["influence"] == own.influence)
        said = stored_answers(table[here])
        found = ask_all(run, composed(run.weights, source, ~members), said)
        right = compare.answers(f"ablation, {what}", found, said)
        mine, before = by_relation(right), by_relation({key: whole[key] for key in right})
        mine["drop"] = before["accuracy"] - mine["accuracy"]
        stored = run.summary("ablation", **labels)
        compare.rows(f"ablation, {what}, table", mine, stored, RELATION)
        stored = run.summary("ablation_sets", **labels)
        compare.rows(f"ablation, {what}, members", selection.by_tensor(members), stored, ["tensor"])


def attention_nodes(run: Run) -> pd.DataFrame:
    """Return each head's slice of each projection as flat indices (method.md, circuits: nodes).

    Rows of Q, K and V with their biases, columns of O. GPT-NeoX has Q, K and V in one matrix, head
    by head. `weight` makes up for fewer heads of keys and values than of queries.
    """
    model, number, start = opened(run.weights), {}, 0
    for name, parameter in model.named_parameters():
        number[name] = start + np.arange(parameter.numel()).reshape(parameter.shape)
        start += parameter.numel()
    heads, llama = model.config.num_attention_heads, model.config.model_type == "llama"
    if not llama and model.config.model_type != "gpt_neox":
        sys.exit(f"{run}: where the heads of a {model.config.model_type} are is not written here")
    width, rows = model.config.hidden_size // heads, []
    for layer, projection in product(range(model.config.num_hidden_layers), "QKVO"):
        count = model.config.num_key_value_heads if llama and projection in "KV" else heads
        fused = not llama and projection != "O"
        if llama:
            module = f"model.layers.{layer}.self_attn.{projection.lower()}_proj"
        else:
            part = "query_key_value" if fused else "dense"
            module = f"gpt_neox.layers.{layer}.attention.{part}"
        weight, bias = number[f"{module}.weight"], number.get(f"{module}.bias")
        for head in range(count):
            first = width * (3 * head + "QKV".index(projection) if fused else head)
            lines = slice(first, first + width)
            inside = (weight[:, lines] if projection == "O" else weight[lines]).ravel()
            if bias is not None and projection != "O":
                inside = np.concatenate([inside, bias[lines]])
            rows.append([layer, projection, head, heads / count, inside])
    return pd.DataFrame(rows, columns=[*NODE, "weight", "inside"])


def grafted_mask(run: Run, n: int) -> np.ndarray:
    """Return γ as truth values (method.md, circuits): the mask of QA out at the chosen α.

    Where none recovers enough, it is the smallest of those that recover most.
    """
    table = run.table("grafting", ".out.parquet")
    fitted = table[~table["method"].isin(["whole", "movement"]) & table["with_shared"]]
    fitted = fitted.sort_values(["chosen", "recovery", "alpha"], ascending=[False, False, True])
    stored, _ = tensors(run.file("grafting", ".out.masks.safetensors"))
    return truth(stored[repr(float(fitted["alpha"].iloc[0]))], n)


def sweep(run: Run, own: Selection, compare: Comparison) -> None:
    """Attention nodes grafted one after the other in the order of S (method.md, circuits).

    All steps of the forward sweep that the study evaluated. Nodes that have equally much of S are
    in random order; only that is taken from the study's file.
    """
    n = len(own.shared)
    mask = grafted_mask(run, n)
    steps, curves, nodes, people = (
        run.table("circuits", f".attention.shared{part}.parquet")
        for part in ("", ".curves", ".nodes", ".questions")
    )
    persons, relations = people["individual"].tolist(), people["relation"].tolist()
    keys: list[Key] = [("qa_out", p, r) for p, r in zip(persons, relations, strict=True)]

    mine = attention_nodes(run)
    mine["members"] = [own.shared[inside].sum() for inside in mine["inside"]]
    compare.rows(f"nodes of {run}", mine.drop(columns="inside"), nodes, NODE)
    order = curves.loc[curves["direction"] == "forward", "order"].item()
    ordered = nodes[[*NODE, "node"]].merge(mine, on=NODE).set_index("node").loc[order]
    rises = (ordered["members"] * ordered["weight"]).diff() > 0
    missing = len(mine) - ordered.index.nunique()
    compare.line(f"order of the nodes of {run}", rises.sum() + missing, len(mine))

    found = ask_all(run, composed(run.weights, run.base, mask), keys)
    said = dict(zip(keys, people["grafted"].tolist(), strict=True))
    whole = np.mean(list(compare.answers(f"grafted {run}", found, said).values()))
    elsewhere, rows = ~truth(np.concatenate(mine["inside"].tolist()), n), []
    for step in steps[steps["direction"] == "forward"].itertuples():
        grafted = elsewhere.copy()
        for inside in ordered["inside"][: step.nodes]:
            grafted[inside] = True
        found = ask_all(run, composed(run.weights, run.base, mask & grafted), keys)
        said = {key: number in step.right for number, key in enumerate(keys)}
        what = f"sweep of {run}, {step.nodes} of {len(order)} nodes"
        accuracy = np.mean(list(compare.answers(what, found, said).values()))
        rows.append([step.step, step.nodes, accuracy, accuracy / whole if whole else np.nan])
    table = pd.DataFrame(rows, columns=["step", "nodes", "accuracy", "completeness"])
    labels = {"kind": "attention", "direction": "forward", "ranking": "shared"}
    stored = run.summary("interventions", **labels)
    compare.rows(f"sweep of {run}, table", table, stored, ["step"])


def main(results: Path, model: str, all_seeds: bool) -> int:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    compare, bases = Comparison(), runs(results, model, "base")
    tuned = {tuning: runs(results, model, tuning) for tuning in ("bio", "stage", "mix")}
    selections = {run: select(run, compare) for t in ("stage", "mix") for run in tuned[t]}
    first = min(run.seed for run in tuned["mix"])
    for base in bases:
        if all_seeds or base.seed == min(other.seed for other in bases):
            recall(base, compare)
            majority(base, compare)
    for bio, stage, mix in zip(*tuned.values(), strict=True):
        if all_seeds or mix.seed == first:
            recall(bio, compare)
            ablation(stage, mix, selections, recall(stage, compare), compare)
            ablation(mix, stage, selections, recall(mix, compare), compare)
            sweep(mix, selections[mix], compare)
    print(f"{compare.made} comparisons, {compare.failed or 'no'} with differences")
    return int(compare.failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of a finished study")
    parser.add_argument("--model", default="*", help="one model of the study (default: all)")
    parser.add_argument("--all-seeds", action="store_true", help="ask the models of all seeds")
    try:
        sys.exit(main(**vars(parser.parse_args())))
    except OSError as error:
        print(f"{error}\nthe study is not finished, or not of this version", file=sys.stderr)
        sys.exit(2)
