"""Writes metrics.json: predictions, and what the original tools say of them.

    pip install scikit-learn scipy seqeval conlleval
    python make_metric_goldens.py

Made with scikit-learn 1.9.1, SciPy 1.17.1, seqeval 1.2.2, conlleval 0.2. The official SQuAD scripts are not on PyPI:
`SquadV1` and `SquadV2` below restate what evaluate-v1.1.py and evaluate-v2.0.py define.
"""

import collections
import json
import math
import pathlib
import random
import re
import string
import warnings

import conlleval
import numpy
from scipy import stats
from seqeval import metrics as seqeval
from seqeval.metrics.sequence_labeling import get_entities
from sklearn import metrics

RANDOM = random.Random(42)


# Classification ------------------------------------------------------------------------------------------------------


def class_scores(gold, predicted, labels):
    """Per-class rows as ClassScores has them."""
    rows = metrics.precision_recall_fscore_support(gold, predicted, labels=labels, average=None, zero_division=0)
    return [dict(precision=p, recall=r, f1=f, support=int(s)) for p, r, f, s in zip(*rows)]


def classification(gold, predicted, classes):
    average = "binary" if classes == 2 else "macro"
    f1_by = lambda name: metrics.f1_score(gold, predicted, average=name, zero_division=0)
    scores = dict(
        accuracy=metrics.accuracy_score(gold, predicted),
        precision=metrics.precision_score(gold, predicted, average=average, zero_division=0),
        recall=metrics.recall_score(gold, predicted, average=average, zero_division=0),
        f1=f1_by(average),
        macro_f1=f1_by("macro"),
        micro_f1=f1_by("micro"),
        weighted_f1=f1_by("weighted"),
        mcc=metrics.matthews_corrcoef(gold, predicted),
        per_class=class_scores(gold, predicted, list(range(classes))),
        confusion=metrics.confusion_matrix(gold, predicted, labels=list(range(classes))).tolist(),
        examples=len(gold),
    )
    return dict(gold=gold, predicted=predicted, classes=classes, scores=scores)


def noisy(gold, classes, right=0.6):
    return [label if RANDOM.random() < right else RANDOM.randrange(classes) for label in gold]


def classification_cases():
    for classes, examples in [(2, 30), (2, 7), (4, 60), (10, 40)]:
        gold = [RANDOM.randrange(classes) for _ in range(examples)]
        yield classification(gold, noisy(gold, classes), classes)
    yield classification([0, 0, 0], [0, 0, 0], 2)  # one class, all right
    yield classification([1, 1, 1], [1, 1, 1], 2)
    yield classification([0, 1, 1, 0], [0, 0, 0, 0], 2)  # always the same prediction
    yield classification([0, 2, 2, 0], [0, 0, 2, 2], 4)  # two classes that never occur
    yield classification([0, 0, 1], [0, 2, 1], 3)  # a class that is only predicted
    yield classification([0, 1, 2], [1, 2, 0], 3)  # nothing right
    yield classification([1], [1], 3)


def multi_label(gold, predicted):
    labels = len(gold[0])
    gold_matrix, predicted_matrix = numpy.array(gold, dtype=int), numpy.array(predicted, dtype=int)
    rows = {
        name: metrics.precision_recall_fscore_support(gold_matrix, predicted_matrix, average=name, zero_division=0)
        for name in ("micro", "macro", "weighted")
    }
    precision, recall, f1, _ = rows["micro"]
    scores = dict(
        accuracy=metrics.accuracy_score(gold_matrix, predicted_matrix),
        precision=precision,
        recall=recall,
        f1=f1,
        micro_f1=f1,
        macro_f1=rows["macro"][2],
        weighted_f1=rows["weighted"][2],
        per_label=class_scores(gold_matrix, predicted_matrix, None),
        examples=len(gold),
    )
    return dict(gold=gold, predicted=predicted, labels=labels, scores=scores)


def multi_label_cases():
    for labels, examples in [(3, 20), (6, 25)]:
        gold = [[RANDOM.random() < 0.3 for _ in range(labels)] for _ in range(examples)]
        yield multi_label(gold, [[truth ^ (RANDOM.random() < 0.2) for truth in row] for row in gold])
    yield multi_label([[True, False], [False, False]], [[False, False], [False, False]])  # nothing predicted
    yield multi_label([[False, False, False]], [[False, True, False]])  # no label at all


# Regression ----------------------------------------------------------------------------------------------------------


def regression(gold, predicted):
    def correlation(function):
        if len(gold) < 2:
            return None
        value = float(function(gold, predicted)[0])
        return None if math.isnan(value) else value

    scores = dict(
        pearson=correlation(stats.pearsonr),
        spearman=correlation(stats.spearmanr),
        mse=metrics.mean_squared_error(gold, predicted),
        mae=metrics.mean_absolute_error(gold, predicted),
        examples=len(gold),
    )
    return dict(gold=gold, predicted=predicted, scores=scores)


def regression_cases():
    gold = [round(RANDOM.uniform(0, 5), 3) for _ in range(30)]
    yield regression(gold, [round(value + RANDOM.gauss(0, 1), 4) for value in gold])
    tied = [float(RANDOM.randrange(4)) for _ in range(25)]
    yield regression(tied, [float(RANDOM.randrange(4)) for _ in tied])
    yield regression(tied, [value * -2 + 1 for value in tied])
    yield regression([0.0, 1.0, 2.5], [3.0, 3.0, 3.0])  # constant predictions
    yield regression([2.0, 2.0], [1.0, 3.0])  # constant labels
    yield regression([1.0, 2.0], [0.5, 7.0])
    yield regression([1.0], [2.0])


# Entities ------------------------------------------------------------------------------------------------------------


def as_seqeval_reads(scheme, sentences):
    """BILOU in the letters of IOBES; plain tags as inside of entities, or, without an `O` among them, each word as an
    entity, as `conlleval -r` reads it."""
    if scheme == "bilou":
        return [[{"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:] for tag in tags] for tags in sentences]
    if scheme == "plain":
        letter = "I-" if any("O" in tags for tags in sentences) else "B-"
        return [[tag if tag == "O" else letter + tag for tag in tags] for tags in sentences]
    return sentences


def check_with_conlleval(gold, predicted):
    lines = []
    for gold_tags, predicted_tags in zip(gold, predicted):
        lines += [f"word {a} {b}" for a, b in zip(gold_tags, predicted_tags)] + [""]
    counts = conlleval.evaluate(lines)["overall"]["chunks"]["stats"]
    gold_set, predicted_set = set(get_entities(gold)), set(get_entities(predicted))
    assert counts == dict(gold=len(gold_set), pred=len(predicted_set), correct=len(gold_set & predicted_set)), counts


def entities(scheme, gold, predicted):
    gold_read, predicted_read = as_seqeval_reads(scheme, gold), as_seqeval_reads(scheme, predicted)
    check_with_conlleval(gold_read, predicted_read)
    score = lambda name, average: getattr(seqeval, name)(gold_read, predicted_read, average=average, zero_division=0)
    types = sorted({entity[0] for tags in (gold_read, predicted_read) for entity in get_entities(tags)})
    per_type = zip(*(score(name, None) for name in ("precision_score", "recall_score", "f1_score"))) if types else []
    scores = dict(
        precision=score("precision_score", "micro"),
        recall=score("recall_score", "micro"),
        f1=score("f1_score", "micro"),
        macro_f1=score("f1_score", "macro") if types else 0.0,
        weighted_f1=score("f1_score", "weighted") if types else 0.0,
        accuracy=seqeval.accuracy_score(gold_read, predicted_read),
        per_type={kind: dict(precision=p, recall=r, f1=f) for kind, (p, r, f) in zip(types, per_type)},
        examples=len(gold),
    )
    return dict(scheme=scheme, gold=gold, predicted=predicted, scores=scores)


def entity_cases():
    prefixes = dict(iob1="BI", iob2="BI", iobes="BIES", bilou="BILU")
    for scheme, letters in prefixes.items():
        tag_set = ["O"] + [f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC")]
        # Random tags break every rule of their scheme: that is what the two scripts must agree on.
        gold = [[RANDOM.choice(tag_set) for _ in range(RANDOM.randrange(1, 9))] for _ in range(12)]
        predicted = [[tag if RANDOM.random() < 0.8 else RANDOM.choice(tag_set) for tag in tags] for tags in gold]
        yield entities(scheme, gold, predicted)
    gold = [[RANDOM.choice(["NN", "VB", "DT", "O"]) for _ in range(6)] for _ in range(5)]
    yield entities("plain", gold, [[tag if RANDOM.random() < 0.7 else "NN" for tag in tags] for tags in gold])
    gold = [["NN", "NN", "VB"], ["DT", "NN"]]
    yield entities("plain", gold, [["NN", "VB", "VB"], ["DT", "NN"]])
    yield entities("iob2", [["B-PER", "I-PER", "O"]], [["O", "O", "O"]])  # nothing predicted
    yield entities("iob2", [["O", "O"]], [["O", "B-LOC"]])  # nothing there
    yield entities("iob2", [["O"], ["O", "O"]], [["O"], ["O", "O"]])
    yield entities("iob2", [["B-PER", "I-PER"], ["I-PER", "O"]], [["B-PER", "I-LOC"], ["B-PER", "O"]])


# SQuAD ---------------------------------------------------------------------------------------------------------------


def normalize(text):
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def word_f1(prediction, answer, both_empty):
    prediction, answer = normalize(prediction).split(), normalize(answer).split()
    if not prediction or not answer:
        return both_empty if prediction == answer else 0.0
    common = sum((collections.Counter(prediction) & collections.Counter(answer)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(answer)
    return 2 * precision * recall / (precision + recall)


def exact(prediction, answer):
    return float(normalize(prediction) == normalize(answer))


def means(exact_scores, f1_scores):
    percent = lambda scores: 100 * sum(scores) / max(len(scores), 1)
    return dict(exact_match=percent(exact_scores), f1=percent(f1_scores), examples=len(exact_scores))


def squad_v1(predictions, answers):
    best = lambda score: [max([score(p, answer) for answer in a], default=0.0) for p, a in zip(predictions, answers)]
    return means(best(exact), best(lambda p, a: word_f1(p, a, both_empty=0.0)))


def squad_v2(predictions, answers, no_answer_scores, threshold):
    def raw(score):
        golds = [[answer for answer in a if normalize(answer)] or [""] for a in answers]
        return [max(score(p, answer) for answer in gold) for p, gold in zip(predictions, golds)]

    def decided(scores):
        cells = zip(scores, no_answer_scores, answers)
        return [float(not a) if no_answer > threshold else score for score, no_answer, a in cells]

    def best(scores):
        current = best_score = sum(not a for a in answers)
        best_threshold = 0.0
        for index in sorted(range(len(scores)), key=lambda index: no_answer_scores[index]):
            current += scores[index] if answers[index] else -1 if predictions[index] else 0
            if current > best_score:
                best_score, best_threshold = current, no_answer_scores[index]
        return 100 * best_score / len(scores), best_threshold

    exact_raw, f1_raw = raw(exact), raw(lambda p, a: word_f1(p, a, both_empty=1.0))
    exact_decided, f1_decided = decided(exact_raw), decided(f1_raw)
    only = lambda scores, has_answer: [score for score, a in zip(scores, answers) if bool(a) == has_answer]
    part = lambda has_answer: means(only(exact_decided, has_answer), only(f1_decided, has_answer))
    (best_exact, exact_threshold), (best_f1, f1_threshold) = best(exact_raw), best(f1_raw)
    return means(exact_decided, f1_decided) | dict(
        has_answer=part(True),
        no_answer=part(False),
        best_exact_match=best_exact,
        best_exact_match_threshold=exact_threshold,
        best_f1=best_f1,
        best_f1_threshold=f1_threshold,
    )


def squad(predictions, answers, no_answer_scores, threshold):
    return dict(
        predictions=predictions,
        answers=answers,
        no_answer_scores=no_answer_scores,
        threshold=threshold,
        v1=squad_v1(predictions, answers),
        v2=squad_v2(predictions, answers, no_answer_scores, threshold),
    )


def squad_cases():
    words = ["the", "a", "Paris", "1,000", "red-hot", "Zoë", "cats", "and", "dogs.", "U.S."]
    phrase = lambda: " ".join(RANDOM.choice(words) for _ in range(RANDOM.randrange(1, 5)))
    answers = [[phrase() for _ in range(RANDOM.randrange(0, 4))] for _ in range(40)]
    predictions = [RANDOM.choice([*a, phrase(), phrase()]) for a in answers]
    # The likelier "no answer" is right, the higher its score.
    probabilities = [round(min(max(RANDOM.gauss(0.3 if a else 0.7, 0.2), 0.01), 0.99), 3) for a in answers]
    yield squad(predictions, answers, probabilities, 0.5)
    yield squad(predictions, answers, [0.0] * 40, 1.0)
    yield squad(predictions, answers, [round(20 * p - 10, 2) for p in probabilities], 0.0)
    yield squad(["the", "", "x", "Cats and dogs"], [["a"], [], [], ["dogs", "the cats"]], [0.4, 0.3, 0.2, 0.1], 1.0)


def normalize_cases():
    texts = [
        "", "The", "  A  the an\tcat ", "An apple—the end", "theatre a11 the_end", "U.S.A.'s \"best\"", "naïve the’s",
        "ΑΣ the İstanbul", "1,000.50 %", "a\u00a0b", "the\u2028a", "東京the塔", "e\u0301 a\u0301", "§the§",
        "-a- [an] {THE}",
    ]  # fmt: skip
    return [dict(text=text, normal=normalize(text)) for text in texts]


def main():
    warnings.simplefilter("ignore")
    sections = dict(
        classification=list(classification_cases()),
        multi_label=list(multi_label_cases()),
        regression=list(regression_cases()),
        entities=list(entity_cases()),
        squad=list(squad_cases()),
        squad_normalize=normalize_cases(),
    )
    dump = lambda case: json.dumps(case, ensure_ascii=False, separators=(",", ":"), default=float)
    rows = [f'"{name}": [\n' + ",\n".join(map(dump, cases)) + "\n]" for name, cases in sections.items()]
    path = pathlib.Path(__file__).with_name("metrics.json")
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
