"""Templates and rendering: grammar for everyone, spans for any Unicode."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from factrecall.config.facts import PoolSizes
from factrecall.data.pools import BLOOD_TYPES, make_pools
from factrecall.data.rendering import Rendered, article, render_question, render_sentence
from factrecall.data.templates import load_templates, read_templates
from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import RELATIONS

TEMPLATES = load_templates()
ALL = [(relation, t) for relation in RELATIONS for t in TEMPLATES.sentences[relation]]
COUNTS = {
    "birth_date": 21,
    "birth_city": 33,
    "university": 22,
    "job": 24,
    "employer": 29,
    "blood_type": 21,
}
POOLS = make_pools(PoolSizes(jobs=600), 0)
EXTREMES = {
    "birth_date": ("February 1, 2089", "December 28, 1900"),
    "birth_city": ("Amyville, GA", max(POOLS.cities, key=len)),
    "university": ("Prairie View A&M University", max(POOLS.universities, key=len)),
    "job": ("engineer, civil (consulting)", "it sales professional", "chief of staff"),
    "employer": ("Bell, Ramos and Romero", "Long-Peters", "Smith and Sons", "Jones PLC"),
    "blood_type": BLOOD_TYPES,
}
FEMININE, MASCULINE = {"she", "her", "hers", "herself"}, {"he", "him", "his", "himself"}

text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
value = text.map(str.strip).filter(bool)


def cut(rendered: Rendered, part: tuple[int, int]) -> str:
    return rendered.text[part[0] : part[1]]


def check_spans(rendered: Rendered, subject: str, attribute: str) -> None:
    """Every part is where its span says, and the parts cover the text but for white space."""
    assert cut(rendered, rendered.subject) == subject
    assert cut(rendered, rendered.attribute) == attribute
    assert cut(rendered, rendered.terminator) == "."
    assert rendered.terminator.start == rendered.attribute.end
    assert rendered.terminator.end == len(rendered.text)
    covered = sorted(
        [rendered.subject, rendered.attribute, rendered.terminator, *rendered.relation]
    )
    end = 0
    for part in covered:
        assert part.start >= end, "parts overlap"
        assert rendered.text[end : part.start].strip() == ""
        end = part.end
    for part in rendered.relation:
        assert cut(rendered, part) == cut(rendered, part).strip() != ""


def test_counts_are_those_of_the_paper() -> None:
    assert {relation: len(TEMPLATES.sentences[relation]) for relation in RELATIONS} == COUNTS
    assert len({template for _, template in ALL}) == 150


def test_templates_differ_in_more_than_their_placeholders() -> None:
    assert len({(relation, re.sub(r"\{\w+\}", "", t)) for relation, t in ALL}) == 150


def test_questions_are_the_fixed_six() -> None:
    assert TEMPLATES.questions == {
        "birth_date": "What is the birth date of {name}?",
        "birth_city": "What is the birth city of {name}?",
        "university": "Which university did {name} study at?",
        "job": "What is the job of {name}?",
        "employer": "Which company did {name} work for?",
        "blood_type": "What is the blood type of {name}?",
    }


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("gender", ["F", "M"])
@pytest.mark.parametrize(("relation", "template"), ALL)
def test_grammar(relation: str, template: str, gender: str, named: bool) -> None:
    for attribute in EXTREMES[relation]:
        rendered = render_sentence(template, "Xyla Jones", gender, attribute, named=named)
        sentence = rendered.text
        assert sentence[0].isupper()
        assert sentence.endswith(f"{attribute}.")
        assert "  " not in sentence and sentence == sentence.strip()
        assert not set("{}") & set(sentence)
        words = set(re.findall(r"[A-Za-z']+", sentence.removesuffix(f"{attribute}.").lower()))
        assert not words & (MASCULINE if gender == "F" else FEMININE)
        assert ("xyla" in words) == named
        if named:
            assert ("jones's" in words) == ("{possessive}" in template)
        else:
            assert words & (FEMININE if gender == "F" else MASCULINE)
        # No pronoun is capitalised but at the beginning.
        assert not set(re.findall(r"\w+", sentence[1:])) & {"She", "He", "Her", "His", "Him"}
        subject = cut(rendered, rendered.subject).lower()
        pronouns = {"xyla jones"} if named else {"she", "her", "he", "his"}
        assert subject in pronouns
        check_spans(rendered, cut(rendered, rendered.subject), attribute)


def test_pronouns_have_the_right_case() -> None:
    def say(template: str, gender: str) -> str:
        return render_sentence(template, "A B", gender, "x", named=False).text

    template = "{subject} {they} {them} {their} {attribute}."
    assert say(template, "F") == "She she her her x."
    assert say(template, "M") == "He he him his x."
    assert say("{possessive} {attribute}.", "F") == "Her x."
    assert say("Now {possessive} {attribute}.", "M") == "Now his x."
    assert say("Now {subject} {attribute}.", "F") == "Now she x."


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("engineer, civil (consulting)", "an"),
        ("it sales professional", "an"),
        ("it trainer", "an"),
        ("actuary", "an"),
        ("oncologist", "an"),
        ("chief of staff", "a"),
        ("homeopath", "a"),
        ("hospital doctor", "a"),
        ("university lecturer", "a"),
        ("user researcher", "a"),
        ("urologist", "a"),
        ("usher", "an"),
        ("undertaker", "an"),
        ("European buyer", "a"),
        ("one-man band", "a"),
        ("heir", "an"),
        ("MRI technician", "an"),
        ("UX designer", "a"),
        ("NASA engineer", "a"),
        ("AB+", "an"),
        ("O-", "an"),
        ("B-", "a"),
    ],
)
def test_article_follows_the_sound(noun: str, expected: str) -> None:
    assert article(noun) == expected


def test_article_over_the_whole_job_pool() -> None:
    # No job of the pool begins with a vowel letter that sounds as a consonant, or the reverse.
    irregular = ("uni", "us", "ur", "eu", "one", "once", "hour", "heir", "hon")
    for job in POOLS.jobs:
        assert not job.startswith(irregular)
        assert article(job) == ("an" if job[0] in "aeiou" else "a"), job


@given(name=value, attribute=value, template=st.sampled_from(ALL), named=st.booleans())
def test_sentence_spans_for_any_unicode(
    name: str, attribute: str, template: tuple[str, str], named: bool
) -> None:
    rendered = render_sentence(template[1], name, "F", attribute, named=named)
    pronoun = cut(rendered, rendered.subject)
    check_spans(rendered, name if named else pronoun, attribute)
    assert named or pronoun.lower() in {"she", "her"}


@given(name=value, attribute=value, relation=st.sampled_from(RELATIONS))
def test_question_spans_for_any_unicode(name: str, attribute: str, relation: str) -> None:
    question = TEMPLATES.questions[relation]
    rendered = render_question(question, name, attribute)
    assert rendered.text == question.replace("{name}", name) + f" {attribute}."
    check_spans(rendered, name, attribute)


def test_relation_spans_are_the_words_between() -> None:
    sentence = render_sentence("On it {possessive} x is {attribute}.", "Al", "M", "y", named=True)
    assert [cut(sentence, part) for part in sentence.relation] == ["On it", "'s x is"]
    question = render_question("Which city did {name} see?", "Al", "y")
    assert [cut(question, part) for part in question.relation] == ["Which city did", "see?"]


def content() -> dict[str, dict[str, object]]:
    return {
        "questions": {relation: f"{relation} of {{name}}?" for relation in RELATIONS},
        "sentences": {
            relation: [f"{{subject}} {relation} {{attribute}}."] for relation in RELATIONS
        },
    }


def save(path: Path, data: object) -> Path:
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_own_templates_are_read(tmp_path: Path) -> None:
    own = content()
    own["sentences"]["job"] = ["{subject} à l'œuvre {{x}} {attribute}."]
    templates = read_templates(save(tmp_path / "own.yaml", own))
    sentence = render_sentence(templates.sentences["job"][0], "Al", "M", "y", named=True)
    assert sentence.text == "Al à l'œuvre {x} y."


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{subject} is {attribute}", "end it"),
        ("{subject} is {attribute}. Yes.", "end it"),
        ("{subject} {attribute} is {attribute}.", "once"),
        ("It is {attribute}.", "exactly one"),
        ("{subject} {possessive} {attribute}.", "exactly one"),
        ("For {their} work {subject} is {attribute}.", "after the first mention"),
        ("{subject} is {job} {attribute}.", "unknown placeholder {job}"),
        ("{subject} is {attribute:>9}.", "bad braces"),
        ("{subject} is { {attribute}.", "bad braces"),
        ("{subject}  is {attribute}.", "double spaces"),
        ("{subject}\nis {attribute}.", "one line"),
        (3, "must be text"),
        ("{subject} job {attribute}.", "repeats"),
    ],
)
def test_mistakes_in_own_templates_name_file_relation_and_number(
    tmp_path: Path, template: object, why: str
) -> None:
    own = content()
    own["sentences"]["job"] = ["{subject} job {attribute}.", template]
    with pytest.raises(FactRecallError) as error:
        read_templates(save(tmp_path / "own.yaml", own))
    assert "own.yaml" in error.value.where
    assert "job" in error.value.where
    assert "template 2" in error.value.where
    assert why in error.value.why


@pytest.mark.parametrize(
    ("section", "relation", "bad", "why"),
    [
        ("questions", "job", "Who?", "{name} once"),
        ("questions", "job", "{name} and {name}?", "{name} once"),
        ("questions", "job", None, "must be text"),
        ("sentences", "job", [], "at least one"),
        ("sentences", "job", "{subject} {attribute}.", "must be a list"),
    ],
)
def test_mistakes_in_sections(
    tmp_path: Path, section: str, relation: str, bad: object, why: str
) -> None:
    own = content()
    own[section][relation] = bad
    with pytest.raises(FactRecallError) as error:
        read_templates(save(tmp_path / "own.yaml", own))
    assert relation in error.value.where
    assert why in error.value.why


def test_files_that_hold_no_templates(tmp_path: Path) -> None:
    with pytest.raises(FactRecallError, match="cannot be read"):
        read_templates(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"questions: \xff")
    with pytest.raises(FactRecallError, match="cannot be read"):
        read_templates(tmp_path / "latin.yaml")
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(FactRecallError, match="no valid YAML"):
        read_templates(tmp_path / "broken.yaml")
    with pytest.raises(FactRecallError, match="exactly questions and sentences"):
        read_templates(save(tmp_path / "list.yaml", ["x"]))
    own = content()
    del own["sentences"]["employer"]
    with pytest.raises(FactRecallError, match="exactly the relations"):
        read_templates(save(tmp_path / "short.yaml", own))
