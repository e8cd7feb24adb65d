"""Questions for `same_fine_tuning.py`: SQuAD's files as windows, and the metrics of what a model says of them.

Windows as in Google's run_squad.py (384 pieces, 128 apart, questions of 64 at most); of the answers the first one is learned;
spans of 30 pieces at most, from the 20 highest starts and ends, the token with most context not sought. EM and F1 are SQuAD's.
"""

import collections
import json
import re
import string

LENGTH, STEP, QUESTION, N_BEST, ANSWER = 384, 128, 64, 20, 30


def read_questions(path):
    for article in json.load(open(path, encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                yield asked["question"], paragraph["context"], asked["answers"]


def windows_of(index, question, context, answers, tokenizer):
    """Inputs of one question, each with its target positions, its question's number and its pieces' places."""
    asked = tokenizer(question, add_special_tokens=False)["input_ids"][:QUESTION]
    text = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    pieces, places = text["input_ids"], text["offset_mapping"]
    room, start = LENGTH - len(asked) - 3, 0
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    first = last = -1
    if answers:
        begin = answers[0]["answer_start"]
        end = begin + len(answers[0]["text"])
        touched = [piece for piece, place in enumerate(places) if place[1] > begin and place[0] < end]
        first, last = touched[0], touched[-1]
    while True:
        end = min(start + room, len(pieces))
        offset = len(asked) + 2 - start
        is_here = start <= first and last < end
        ids = [cls, *asked, sep, *pieces[start:end], sep]
        yield {
            "input_ids": ids,
            "token_type_ids": [0] * (len(asked) + 2) + [1] * (end - start + 1),
            "attention_mask": [1] * len(ids),
            "start_positions": first + offset if is_here else 0,
            "end_positions": last + offset if is_here else 0,
        }, (index, len(asked) + 2, places[start:end])
        if end == len(pieces):
            return
        start += STEP


def read_windows(path, tokenizer):
    """The inputs, where each comes from, and the questions."""
    questions = list(read_questions(path))
    windows = [w for index, question in enumerate(questions) for w in windows_of(index, *question, tokenizer)]
    return [window for window, _ in windows], [source for _, source in windows], questions


def best_span(start, end, text_start, places):
    """Score and place of the best span of a window."""
    best = (-1e9, 0, 0)
    positions = range(text_start, text_start + len(places))
    ends = sorted(positions, key=lambda at: -end[at])[:N_BEST]
    for first in sorted(positions, key=lambda at: -start[at])[:N_BEST]:
        for last in ends:
            if first <= last < first + ANSWER:
                best = max(best, (start[first] + end[last], places[first - text_start][0], places[last - text_start][1]))
    return best


def normalized(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def exact_and_f1(said, answers):
    said, pairs = normalized(said), []
    for answer in map(normalized, answers or [""]):
        shared = sum((collections.Counter(said) & collections.Counter(answer)).values())
        is_none = not said or not answer
        f1 = float(said == answer) if is_none else 2 * shared / (len(said) + len(answer))
        pairs.append((float(said == answer), f1))
    return [100 * max(values) for values in zip(*pairs)]


def question_metrics(scores, sources, questions):
    """EM and F1; where some question has no answer, with the threshold of "none" that gives the best F1."""
    best, null = [(-1e9, 0, 0)] * len(questions), [1e9] * len(questions)
    for start, end, (index, text_start, places) in zip(*scores, sources):
        best[index] = max(best[index], best_span(start, end, text_start, places))
        null[index] = min(null[index], start[0] + end[0])
    rows = []  # no-answer score, EM and F1 of the span, of "none"
    for (score, begin, end), none, (_, context, answers) in zip(best, null, questions):
        texts = [answer["text"] for answer in answers]
        rows.append((none - score, *exact_and_f1(context[begin:end], texts), 0.0 if texts else 100.0))
    mean = lambda values: sum(values) / len(rows)  # noqa: E731
    if all(answers for _, _, answers in questions):
        return {"exact_match": mean([row[1] for row in rows]), "f1": mean([row[2] for row in rows])}
    at = {
        threshold: mean([row[3] if row[0] > threshold else row[2] for row in rows])
        for threshold in {row[0] for row in rows} | {-1e9}
    }
    threshold = max(at, key=at.get)
    return {"best_f1": at[threshold], "best_f1_threshold": float(threshold), "f1_of_spans_alone": mean([row[2] for row in rows])}
