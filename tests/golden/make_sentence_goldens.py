"""Writes the golden numbers of sentence embeddings, with sentence-transformers.

    venv/bin/pip install sentence-transformers
    venv/bin/python tests/golden/make_sentence_goldens.py

One tiny random encoder with a cased vocabulary, and many directories around it that differ in their small files only. A
case of `cases.json` holds these files, so that a test can lay out the same directory; README.md describes the fields.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy
import sentence_transformers
import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)
from transformers import BertConfig, BertForSequenceClassification, BertModel

HERE = Path(__file__).parent / "sentence-transformers"
WIDTH = 16
WORDS = "the The cat dog river bank runs sleeps under over quick a of in é e query passage : . , ! ##s ##ing run".split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
PIECES += ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
PIECES = list(dict.fromkeys(PIECES))
TEXTS = [
    "the cat sleeps under the river bank .",
    "The dog runs",
    "",
    "quick",
    "É é THE [MASK] unknown-word, of a Cat!",
    "the quick dog runs over the cat in the river of the bank , the cat runs under a dog . the dog sleeps !",
]
torch.set_num_threads(1)
torch.manual_seed(11)


def configuration(**changes):
    return BertConfig(
        vocab_size=len(PIECES), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=40, initializer_range=0.3, **changes,
    )


def save_encoder(model, directory):
    """Weights, configuration and vocabulary."""
    model.eval().save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 40}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")


def modules(*names, package="sentence_transformers.models"):
    paths = ["" if index == 0 else f"{index}_{name}" for index, name in enumerate(names)]
    return [
        {"idx": index, "name": str(index), "path": path, "type": f"{package}.{name}"}
        for index, (name, path) in enumerate(zip(names, paths))
    ]


LEGACY = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]


def pooling(*chosen, **more):
    return {"word_embedding_dimension": WIDTH, **{f"pooling_mode_{name}": name in chosen for name in LEGACY}, **more}


def case(name, files, names=("Transformer", "Pooling"), dense=None, **encode):
    files = {"modules.json": modules(*names), "1_Pooling/config.json": pooling("mean_tokens"), **files}
    return {"name": name, "files": files, "dense": dense, "encode": encode}


def dense(activation, outputs, place="2_Dense", **more):
    return {f"{place}/config.json": {
        "in_features": WIDTH, "out_features": outputs, "bias": True, "activation_function": activation, **more,
    }}


PROMPTS = {"config_sentence_transformers.json": {
    "prompts": {"query": "query: ", "passage": "passage : the"}, "default_prompt_name": None, "similarity_fn_name": "dot",
}}
TANH, GELU = "torch.nn.modules.activation.Tanh", "torch.nn.modules.activation.GELU"
IDENTITY = "torch.nn.modules.linear.Identity"


def default_prompt(name):
    return {"config_sentence_transformers.json": {**PROMPTS["config_sentence_transformers.json"], "default_prompt_name": name}}


CASES = [
    *(case(f"one kind: {kind}", {"1_Pooling/config.json": pooling(kind)}) for kind in LEGACY),
    case("several kinds", {"1_Pooling/config.json": pooling("mean_tokens", "lasttoken", "max_tokens", "cls_token")}),
    case("kinds by name", {"1_Pooling/config.json": {"embedding_dimension": WIDTH, "pooling_mode": ["lasttoken", "cls", "mean"]}}),
    case("a kind by name", {"1_Pooling/config.json": {"embedding_dimension": WIDTH, "pooling_mode": "weightedmean"}}),
    case("normalized", {}, ("Transformer", "Pooling", "Normalize")),
    case("short", {"sentence_bert_config.json": {"max_seq_length": 6, "do_lower_case": False}}),
    case("lowercase", {"sentence_bert_config.json": {"max_seq_length": 30, "do_lower_case": True}}),
    case("length of the tokenizer", {
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 9},
    }),
    case("dense", dense(TANH, 6), ("Transformer", "Pooling", "Dense", "Normalize"), dense="narrow"),
    case("dense without activation", dense(IDENTITY, 6), ("Transformer", "Pooling", "Dense"), dense="narrow"),
    case("dense with a residual", dense(GELU, 6, use_residual=True), ("Transformer", "Pooling", "Dense"), dense="residual"),
    case("a prompt by name", PROMPTS, prompt_name="query"),
    case("a prompt by text", PROMPTS, prompt="the dog of "),
    case("the usual prompt", default_prompt("passage")),
    *(
        case(
            f"a prompt that is not pooled: {kind}",
            {**default_prompt("query"), "1_Pooling/config.json": pooling(kind, include_prompt=False)},
        )
        for kind in LEGACY
    ),
    case("classes of a newer version", {
        **dense(TANH, 6, module_input_name="sentence_embedding", module_output_name="sentence_embedding"),
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"},
            {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
        ],
        "3_Normalize/config.json": {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    }, dense="narrow"),
    case("fewer numbers", {"config_sentence_transformers.json": {"truncate_dim": 5}}, ("Transformer", "Pooling", "Normalize")),
]


def lay_out(case, directory):
    shutil.copytree(HERE / "encoder", directory, dirs_exist_ok=True)
    for path, content in case["files"].items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(json.dumps(content))
    for name in ("2_Normalize", "3_Normalize"):
        (directory / name).mkdir(exist_ok=True)
    if case["dense"]:
        shutil.copy(HERE / f"dense-{case['dense']}.safetensors", directory / "2_Dense" / "model.safetensors")


def rounded(values):
    return [[float(f"{value:.8g}") for value in row] for row in numpy.asarray(values, dtype=numpy.float64)]


def vectors():
    found = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            lay_out(case, Path(directory))
            model = SentenceTransformer(directory, device="cpu")
            found.append({**case, "vectors": rounded(model.encode(TEXTS, **case["encode"]))})
            if case["name"] == "normalized":
                evaluation = evaluate(model)
    return found, evaluation


FIRST = ["the cat sleeps", "a dog runs", "the quick cat", "under the river", "over the bank", "the cat sleeps", "a river"]
SECOND = ["the dog sleeps", "the dog runs", "a cat", "a river", "the bank", "a cat sleeps", "a cat"]
SCORES = [0.5, 4.0, 3.5, 3.0, 4.5, 5.0, 0.0]


def evaluate(model):
    """Pairs as questions to all second texts, and pairs with scores."""
    queries, corpus = list(dict.fromkeys(FIRST)), list(dict.fromkeys(SECOND))
    relevant = {str(place): set() for place in range(len(queries))}
    for first, second in zip(FIRST, SECOND):
        relevant[str(queries.index(first))].add(str(corpus.index(second)))
    named = lambda texts: {str(place): text for place, text in enumerate(texts)}
    retrieval = InformationRetrievalEvaluator(
        named(queries), named(corpus), relevant, accuracy_at_k=[1], precision_recall_at_k=[10, 2], mrr_at_k=[10],
        ndcg_at_k=[10], map_at_k=[10],
    )(model)
    scored = EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES)(model)
    figure = lambda results, ending: next(float(value) for key, value in results.items() if key.endswith(ending))
    return {
        "first": FIRST,
        "second": SECOND,
        "scores": SCORES,
        "retrieval": {
            "accuracy_at_1": figure(retrieval, "accuracy@1"),
            "mrr_at_10": figure(retrieval, "mrr@10"),
            "ndcg_at_10": figure(retrieval, "ndcg@10"),
            "recall_at_10": figure(retrieval, "recall@10"),
            "recall_at_2": figure(retrieval, "recall@2"),
        },
        "similarity": {"pearson": figure(scored, "pearson_cosine"), "spearman": figure(scored, "spearman_cosine")},
    }


def losses():
    """Losses of given vectors, and their gradients."""
    columns = [torch.randn(4, 6, requires_grad=True) for _ in range(4)]
    labels = torch.tensor([0.0, 1.0, 0.4, 0.8])
    found = {"vectors": [rounded(column.detach()) for column in columns], "labels": [float(f"{x:.8g}") for x in labels]}
    for name, loss, count in [
        ("pairs", MultipleNegativesRankingLoss(None, scale=20.0), 2),
        ("negatives", MultipleNegativesRankingLoss(None, scale=20.0), 4),
        ("scores", CosineSimilarityLoss(None), 2),
    ]:
        value = loss.compute_loss_from_embeddings(columns[:count], labels)
        gradients = torch.autograd.grad(value, columns[:count])
        found[name] = {"loss": float(value), "gradients": [rounded(gradient) for gradient in gradients]}
    return found


PAIRS = [["the cat sleeps", "a dog"], ["", "the river bank ."], ["quick quick", "The dog runs over the cat in the river"]]


def cross_encoder():
    """Scores of a classifier of one label through the activations that its files may name."""
    found = []
    for name, config, settings in [
        ("nothing is named", {}, None),
        ("in config.json", {"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.0.0"}}, None),
        ("as older versions did", {"sbert_ce_default_activation_function": IDENTITY}, None),
        ("in a file of its own", {}, {"model_type": "CrossEncoder", "activation_fn": TANH}),
        ("null is named", {"sentence_transformers": {"activation_fn": None, "version": "5.0.0"}}, None),
        ("a prompt", {}, {"model_type": "CrossEncoder", "prompts": {"query": "the dog "}, "default_prompt_name": "query"}),
    ]:
        with tempfile.TemporaryDirectory() as directory:
            directory = Path(directory)
            shutil.copytree(HERE / "cross-encoder", directory, dirs_exist_ok=True)
            merged = json.loads((directory / "config.json").read_text()) | config
            (directory / "config.json").write_text(json.dumps(merged))
            files = {"config.json": config}
            if settings:
                files["config_sentence_transformers.json"] = settings
                files["modules.json"] = modules("Transformer")
                files["sentence_bert_config.json"] = {"transformer_task": "sequence-classification"}
                for file in list(files)[1:]:
                    (directory / file).write_text(json.dumps(files[file]))
            scores = CrossEncoder(str(directory), device="cpu").predict(PAIRS)
            found.append({"name": name, "files": files, "scores": [float(f"{score:.8g}") for score in scores]})
    return found


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    (HERE / "encoder").mkdir(parents=True)
    (HERE / "cross-encoder").mkdir()
    save_encoder(BertModel(configuration()), HERE / "encoder")
    save_encoder(BertForSequenceClassification(configuration(num_labels=1)), HERE / "cross-encoder")
    narrow = {"linear.weight": torch.randn(6, WIDTH) * 0.3, "linear.bias": torch.randn(6) * 0.3}
    save_file(narrow, HERE / "dense-narrow.safetensors")
    save_file({**narrow, "residual.weight": torch.randn(6, WIDTH) * 0.3}, HERE / "dense-residual.safetensors")
    cases, evaluation = vectors()
    golden = {
        "sentence_transformers": sentence_transformers.__version__,
        "texts": TEXTS,
        "cases": cases,
        "evaluation": evaluation,
        "losses": losses(),
        "pairs": PAIRS,
        "cross_encoder": cross_encoder(),
    }
    (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")
