"""Writes tags.json: tags in every scheme and notation, and what seqeval says of them in its default and strict modes.

    pip install seqeval
    python make_tag_goldens.py

Made with seqeval 1.2.2. It knows the letters of IOB, IOE and IOBES in its default mode, and BILOU in its strict one, with
`-` between letter and type; other tags are given to it in those letters. Of plain tags it makes `I-`.
"""

import json
import pathlib
import random
import warnings

from seqeval import metrics
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE1, IOE2

RANDOM = random.Random(42)

# The letters of each scheme for begin, inside, end and single, its class in seqeval, and the letters that this has.
SCHEMES = {
    "iob1": ("BI", IOB1, "BI"),
    "iob2": ("BI", IOB2, "BI"),
    "ioe1": ("IE", IOE1, "IE"),
    "ioe2": ("IE", IOE2, "IE"),
    "iobes": ("BIES", IOBES, "BIES"),
    "bilou": ("BILU", BILOU, "BIES"),
    "bmes": ("BMES", IOBES, "BIES"),
    "bmewo": ("BMEW", IOBES, "BIES"),
}

NOTATIONS = ["{letter}-{kind}", "{letter}_{kind}", "{kind}-{letter}", "{kind}_{letter}"]


def scores(gold, predicted, **mode):
    options = dict(zero_division=0, **mode)
    return dict(
        precision=metrics.precision_score(gold, predicted, **options),
        recall=metrics.recall_score(gold, predicted, **options),
        f1=metrics.f1_score(gold, predicted, **options),
    )


def case(scheme, notation, gold, predicted):
    """`gold` and `predicted` hold for each word the index of a letter and a type, or None outside of entities."""
    letters, seqeval_class, default_letters = SCHEMES[scheme]

    def written(sentences, letters, notation):
        tag = lambda word: "O" if word is None else notation.format(letter=letters[word[0]], kind=word[1])
        return [[tag(word) for word in sentence] for sentence in sentences]

    strict_letters = "BILU" if seqeval_class is BILOU else default_letters
    default = [written(sentences, default_letters, NOTATIONS[0]) for sentences in (gold, predicted)]
    strict = [written(sentences, strict_letters, NOTATIONS[0]) for sentences in (gold, predicted)]
    return dict(
        scheme=scheme,
        gold=written(gold, letters, notation),
        predicted=written(predicted, letters, notation),
        scores=scores(*default)
        | dict(accuracy=metrics.accuracy_score(*default), strict=scores(*strict, mode="strict", scheme=seqeval_class)),
    )


def random_words(letters):
    """Random tags break every rule of their scheme: that is where the two modes differ."""
    word = lambda: None if RANDOM.random() < 0.3 else (RANDOM.randrange(letters), RANDOM.choice(["PER", "LOC"]))
    return [[word() for _ in range(RANDOM.randrange(1, 9))] for _ in range(12)]


def scheme_cases():
    for scheme, (letters, _, _) in SCHEMES.items():
        for notation in NOTATIONS:
            gold = random_words(len(letters))
            change = lambda word: word if RANDOM.random() < 0.7 else random_words(len(letters))[0][0]
            yield case(scheme, notation, gold, [[change(word) for word in sentence] for sentence in gold])


def plain_cases():
    tags = ["O", "PER", "LOC"]
    gold = [[RANDOM.choice(tags) for _ in range(RANDOM.randrange(1, 9))] for _ in range(12)]
    predicted = [[tag if RANDOM.random() < 0.7 else RANDOM.choice(tags) for tag in sentence] for sentence in gold]
    inside = lambda sentences: [[tag if tag == "O" else "I-" + tag for tag in tags] for tags in sentences]
    read = inside(gold), inside(predicted)
    yield dict(
        scheme="plain",
        gold=gold,
        predicted=predicted,
        scores=scores(*read) | dict(accuracy=metrics.accuracy_score(gold, predicted)),
    )
    # A stray `I` in IOB2 does not make IOB1 of it.
    words = ["O", "B", "I", "I", "O", "B", "O", "I", "O"]
    gold, predicted = [words], [["B"] * len(words)]
    yield dict(
        scheme="iob2",
        gold=gold,
        predicted=predicted,
        scores=scores(gold, predicted) | dict(accuracy=metrics.accuracy_score(gold, predicted)),
    )


def main():
    warnings.simplefilter("ignore")
    dump = lambda case: json.dumps(case, separators=(",", ":"), default=float)
    rows = ",\n".join(map(dump, [*scheme_cases(), *plain_cases()]))
    path = pathlib.Path(__file__).with_name("tags.json")
    path.write_text("[\n" + rows + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
