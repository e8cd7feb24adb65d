"""Writes the golden numbers of the model, the loader and the optimizers, with Hugging Face transformers.

    python -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tests/golden/make_model_goldens.py [path to all-MiniLM-L6-v2]

Small random models of odd shapes, with weights large enough that every mistake shows. What is committed was made with
the versions that `versions.json` names; the same versions give the same bytes again, on the CPU, for all but
`variants/torch-legacy` (that format names its storages by their addresses in memory). README.md says what each file holds.

Without the path of the real model everything but `minilm.json` is written. What is drawn at random is drawn in a fixed
order: add a draw after the existing ones, or every golden after it changes.
"""

import json
import shutil
import sys
from pathlib import Path

import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    get_linear_schedule_with_warmup,
)

HERE = Path(__file__).parent
torch.set_num_threads(1)


def randomise(model, seed):
    """Biases and LayerNorms away from 0 and 1, so that leaving one out is seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def config(**changes):
    return BertConfig(attn_implementation="eager", initializer_range=0.3, **changes)


def inputs(configuration, generator, rows=3, tokens=11):
    """One full row, one padded, one short."""
    lengths = ([tokens, tokens - 4, 3] * rows)[:rows]
    mask = torch.tensor([[1] * length + [0] * (tokens - length) for length in lengths])
    ids = torch.randint(5, configuration.vocab_size, (rows, tokens), generator=generator) * mask
    types = torch.randint(0, configuration.type_vocab_size, (rows, tokens), generator=generator) * mask
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def write(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)


def pretraining_losses(output, mlm_labels, nsp_labels):
    """The two parts of the loss, which transformers only gives as a sum: each a mean, over the labeled tokens and the rows."""
    mlm = cross_entropy(output.prediction_logits.flatten(0, 1), mlm_labels.flatten(), ignore_index=-100)
    return mlm, cross_entropy(output.seq_relationship_logits, nsp_labels)


def masked_lm_labels(batch, vocabulary, generator):
    """Labels for about a fifth of the real tokens, at least one in each row; -100 elsewhere."""
    chosen = (torch.rand(batch["input_ids"].shape, generator=generator) < 0.2) & (batch["attention_mask"] == 1)
    chosen[:, 1] = True
    return torch.where(chosen, torch.randint(5, vocabulary, chosen.shape, generator=generator), -100)


def pretraining_model(name, configuration, seed):
    torch.manual_seed(seed)
    model = randomise(BertForPreTraining(configuration), seed)
    directory = HERE / "models" / name
    model.save_pretrained(directory)
    generator = torch.Generator().manual_seed(seed)
    batch = inputs(configuration, generator)
    labels = {
        "mlm_labels": masked_lm_labels(batch, configuration.vocab_size, generator),
        "nsp_labels": torch.randint(0, 2, (3,), generator=generator),
    }
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True, output_attentions=True)
        pooled = model.bert(**batch).pooler_output
    mlm_loss, nsp_loss = pretraining_losses(output, **labels)
    labels |= {"mlm_loss": mlm_loss.reshape(1), "nsp_loss": nsp_loss.reshape(1)}
    tensors = dict(batch, **labels, pooler_output=pooled, mlm_logits=output.prediction_logits, nsp_logits=output.seq_relationship_logits)
    tensors |= {f"hidden_states.{layer}": state for layer, state in enumerate(output.hidden_states)}
    tensors |= {f"attentions.{layer}": attention for layer, attention in enumerate(output.attentions)}
    write(directory / "expected.safetensors", tensors)
    return model


def heads(base, directory):
    """The same encoder under each task head."""
    def save(name, kind, labels, choices=None, **changes):
        configuration = BertConfig.from_dict(base.config.to_dict() | changes)
        configuration._attn_implementation = "eager"
        torch.manual_seed(len(name))
        model = kind(configuration)
        model.load_state_dict(base.state_dict(), strict=False)
        model = randomise_head(model)
        configuration.architectures = [kind.__name__]
        (directory / f"{name}.config.json").write_text(json.dumps(configuration.to_dict(), indent=1, default=str) + "\n")
        state = {key: value for key, value in model.state_dict().items() if "position_ids" not in key}
        if configuration.tie_word_embeddings:  # as save_pretrained does: what is shared is written once
            state = {key: value for key, value in state.items() if "decoder" not in key}
        write(directory / f"{name}.safetensors", state)
        generator = torch.Generator().manual_seed(5)
        batch = inputs(configuration, generator, rows=3 if choices is None else 2 * choices)
        shaped = batch if choices is None else {key: value.view(2, choices, -1) for key, value in batch.items()}
        with torch.no_grad():
            output = model(**shaped, **labels)
        tensors = dict(shaped, loss=output.loss.reshape(1), **labels)
        if hasattr(output, "start_logits"):
            tensors |= {"start_logits": output.start_logits, "end_logits": output.end_logits}
        else:
            tensors["logits"] = output.logits
        write(directory / f"{name}.expected.safetensors", tensors)

    def randomise_head(model):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith(("classifier", "qa_outputs", "cls")) and name.endswith("bias"):
                    parameter.add_(0.3)
        return model.eval()

    directory.mkdir(parents=True, exist_ok=True)
    tags = torch.tensor([[-100, 1, -100, 4, 0, 2, 3, 1, 0, 2, -100], [-100, 2, 3, -100, 1, 0] + [-100] * 5, [-100, 4] + [-100] * 9])
    save("BertForSequenceClassification", BertForSequenceClassification, {"labels": torch.tensor([2, 0, 1])}, num_labels=3)
    save("BertForSequenceClassification-regression", BertForSequenceClassification, {"labels": torch.tensor([0.5, -1.0, 3.25])},
         num_labels=1, problem_type="regression")
    save("BertForSequenceClassification-multi_label", BertForSequenceClassification,
         {"labels": torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]])}, num_labels=4, problem_type="multi_label_classification")
    save("BertForTokenClassification", BertForTokenClassification, {"labels": tags}, num_labels=5)
    save("BertForQuestionAnswering", BertForQuestionAnswering,
         {"start_positions": torch.tensor([3, 0, 1]), "end_positions": torch.tensor([7, 0, 2])})
    save("BertForMultipleChoice", BertForMultipleChoice, {"labels": torch.tensor([2, 0])}, choices=3)
    save("BertForMaskedLM", BertForMaskedLM, {"labels": tags})
    save("BertForNextSentencePrediction", BertForNextSentencePrediction, {"labels": torch.tensor([1, 0, 1])})


def variants(base):
    """One model's weights in every form that the loader reads."""
    directory = HERE / "variants"
    state = {key: value.clone() for key, value in base.state_dict().items() if "position_ids" not in key and "decoder" not in key}

    def form(name, tensors=None):
        (directory / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "models" / "gelu-odd" / "config.json", directory / name / "config.json")
        if tensors is not None:
            write(directory / name / "model.safetensors", tensors)
        return directory / name

    form("sharded")
    base.save_pretrained(directory / "sharded", max_shard_size="15KB")
    torch.save(state, form("torch") / "pytorch_model.bin")
    torch.save(state, form("torch-legacy") / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    old = {key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value for key, value in state.items()}
    form("gamma-beta", old | {"bert.embeddings.position_ids": torch.arange(19).unsqueeze(0)})
    form("no-prefix", {key.removeprefix("bert."): value for key, value in state.items() if key.startswith("bert.")})
    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64)]:
        form(name, {key: value.to(dtype) for key, value in state.items()})


class GoogleAdam(torch.optim.Optimizer):
    """google-research/bert, optimization.py: no bias correction, epsilon outside the root, decoupled decay."""

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state.setdefault(p, {"m": torch.zeros_like(p), "v": torch.zeros_like(p)})
                state["m"].mul_(0.9).add_(p.grad, alpha=0.1)
                state["v"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                update = state["m"] / (state["v"].sqrt() + 1e-6) + group["weight_decay"] * p
                p.sub_(group["lr"] * update)


class Lamb(torch.optim.Optimizer):
    """You et al. 2020 (arXiv 1904.00962), as NVIDIA applies it: the ratio for parameters that decay, 1 for the others.

        m = β1 m + (1 - β1) g        v = β2 v + (1 - β2) g²        (g after the clip by the global norm)
        u = (m / (1 - β1^t)) / (√(v / (1 - β2^t)) + ε) + decay · p
        p = p - lr · (‖p‖ / ‖u‖) · u        (the ratio is 1 where a norm is 0, and for bias and LayerNorm)
    """

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state.setdefault(p, {"m": torch.zeros_like(p), "v": torch.zeros_like(p), "t": 0})
                state["t"] += 1
                state["m"].mul_(0.9).add_(p.grad, alpha=0.1)
                state["v"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                m, v = state["m"] / (1 - 0.9 ** state["t"]), state["v"] / (1 - 0.999 ** state["t"])
                update = m / (v.sqrt() + 1e-6) + group["weight_decay"] * p
                ratio = 1.0
                if group["weight_decay"]:
                    norms = p.norm().item(), update.norm().item()
                    ratio = norms[0] / norms[1] if all(norms) else 1.0
                p.sub_(group["lr"] * ratio * update)


def newton_schulz(grad, coefficients, steps, eps):
    """PyTorch's function in single precision; its own computes in bfloat16, whose rounding would hide mistakes."""
    a, b, c = coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


torch.optim._muon._zeropower_via_newtonschulz = newton_schulz


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon for the matrices of the encoder's layers, torch.optim.AdamW for everything else."""

    def __init__(self, groups, lr):
        super().__init__([p for group in groups for _, p in group["params"]], {"lr": lr})
        is_inner = lambda name, p: "encoder.layer." in name and p.ndim == 2
        def select(inner):
            return [{"params": [p for name, p in group["params"] if is_inner(name, p) == inner], "weight_decay": group["weight_decay"]}
                    for group in groups]
        inner, others = [group for group in select(True) if group["params"]], select(False)
        self.parts = [torch.optim.Muon(inner, lr=lr, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
                      torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.999), eps=1e-6)]
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self):
        for part in self.parts:
            part.step()


def training(model, batches, optimizer_class, weight_decay=0.01, **arguments):
    """Ten steps; the figures of each, before its update. Biases and LayerNorms do not decay; `grad_norm` is before the clip."""
    decays = lambda name: not name.endswith("bias") and "LayerNorm" not in name
    named = list(model.named_parameters())
    groups = [
        {"params": [(name, p) for name, p in named if decays(name)], "weight_decay": weight_decay},
        {"params": [(name, p) for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]
    optimizer = optimizer_class(groups, **arguments)
    schedule = get_linear_schedule_with_warmup(optimizer, 3, 10)
    steps = []
    for batch in batches:
        output = model(**batch)
        parts = {}
        if "next_sentence_label" in batch:
            mlm, nsp = pretraining_losses(output, batch["labels"], batch["next_sentence_label"])
            parts = {"mlm_loss": mlm.item(), "nsp_loss": nsp.item()}
        optimizer.zero_grad()
        output.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.append({"lr": schedule.get_last_lr()[0], "loss": output.loss.item(), **parts, "grad_norm": norm.item()})
        with torch.no_grad():
            optimizer.step()
        schedule.step()
    return steps


def trainings():
    shape = dict(vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                 max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    adamw = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-6)
    generator = torch.Generator().manual_seed(11)

    def batches(labels):
        batches = []
        for _ in range(10):
            batch = inputs(BertConfig(**shape), generator, rows=8, tokens=16)
            batches.append(batch | labels(batch))
        return batches

    def save(directory, model, batches):
        model.save_pretrained(directory)
        names = {"labels": "mlm_labels" if "next_sentence_label" in batches[0] else "labels", "next_sentence_label": "nsp_labels"}
        write(directory / "batches.safetensors",
              {f"{names.get(key, key)}.{step}": value for step, batch in enumerate(batches) for key, value in batch.items()})

    def masked(batch):
        labels = masked_lm_labels(batch, 101, generator)
        return {"labels": labels, "next_sentence_label": torch.randint(0, 2, (8,), generator=generator)}

    def final(directory, model):
        state = {key: value for key, value in model.state_dict().items() if "decoder" not in key and "position_ids" not in key}
        write(directory / "final.safetensors", state)

    directory, data = HERE / "training", batches(masked)
    own = {"defaults": {"lr": 1e-3}}
    # A decay of 0.01 moves these figures by 1e-4 of them in ten steps, so that a decay which is left out, or not left out of
    # the biases, would pass a test to 1e-3. A decay of 1 moves them by 6e-3 to 1e-2.
    strong = {"weight_decay": 1.0}
    for file, kind, arguments in [
        ("expected", torch.optim.AdamW, adamw),
        ("expected_google", GoogleAdam, own),
        ("expected_lamb", Lamb, own),
        ("expected_strong_decay", torch.optim.AdamW, adamw | strong),
        ("expected_google_strong_decay", GoogleAdam, own | strong),
        ("expected_muon", Muon, {"lr": 1e-3}),
        ("expected_muon_strong_decay", Muon, {"lr": 1e-3} | strong),
    ]:
        torch.manual_seed(3)
        model = randomise(BertForPreTraining(config(**shape)), 3)
        if file == "expected":
            save(directory, model, data)
        steps = training(model, data, kind, **arguments)
        (directory / f"{file}.json").write_text(json.dumps({"steps": steps}, indent=1) + "\n")
        if file == "expected":
            final(directory, model)

    directory, data = HERE / "training-classification", batches(lambda _: {"labels": torch.randint(0, 3, (8,), generator=generator)})
    torch.manual_seed(4)
    model = randomise(BertForSequenceClassification(config(num_labels=3, **shape)), 4)
    save(directory, model, data)
    (directory / "expected.json").write_text(json.dumps({"steps": training(model, data, torch.optim.AdamW, **adamw)}, indent=1) + "\n")
    final(directory, model)


TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Café naïve façade, Ünïcödé — coöperate!",
    "北京大学 と 東京, 서울 are cities",
    "I ❤️ 🍕 👩‍👩‍👧‍👦 🇫🇷 emoji 🤷🏽‍♀️",
    "",
    "مرحبا بالعالم שלום עולם",
    "tab\there, nbsp\u00a0there,\u0000 control\u0007 and\u200bzero width",
    "##ing [MASK] is [SEP] not ##special",
    "a" * 101 + " " + "b" * 100,
    {"repeat": ["A sentence that is said again and again. ", 100]},
    "cafe\u0301 n\u0303 [mask] \u0130stanbul \u0152UVRE stra\u00dfe \ufb01 \u00bd \u2167 \uff12\uff10 a_b co-op don't $5.00 \ufffd\u00ad",
]


def minilm(directory):
    """A real model: token ids, mean-pooled embeddings (not normalized) and the start of [CLS]'s vector of awkward texts."""
    def rounded(values):
        return [float(f"{value:.6g}") for value in values.tolist()]

    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    cases = []
    for text in TEXTS:
        plain = text if isinstance(text, str) else text["repeat"][0] * text["repeat"][1]
        batch = tokenizer(plain, truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state[0]
        ids = batch["input_ids"][0].tolist()
        cases.append({"text": text, "ids": ids, "mean": rounded(hidden.mean(0)), "cls": rounded(hidden[0, :8])})
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (HERE / "minilm.json").write_text(f"[\n{lines}\n]\n")


def main():
    for name in ["models", "variants", "training", "training-classification"]:
        shutil.rmtree(HERE / name, ignore_errors=True)
    base = pretraining_model("gelu-odd", config(vocab_size=67, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
                                                intermediate_size=40, max_position_embeddings=19), 1)
    pretraining_model("relu-types", config(vocab_size=51, hidden_size=20, num_hidden_layers=2, num_attention_heads=5, intermediate_size=33,
                                           max_position_embeddings=23, type_vocab_size=3, hidden_act="relu", layer_norm_eps=1e-5), 2)
    pretraining_model("gelu-new-one-head", config(vocab_size=43, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64,
                                                  max_position_embeddings=12, hidden_act="gelu_new", layer_norm_eps=1e-7), 3)
    untied = pretraining_model("silu-untied", config(vocab_size=37, hidden_size=12, num_hidden_layers=2, num_attention_heads=2,
                                                     intermediate_size=20, max_position_embeddings=16, hidden_act="silu", tie_word_embeddings=False), 4)
    pretraining_model("tanh", config(vocab_size=41, hidden_size=14, num_hidden_layers=2, num_attention_heads=7, intermediate_size=25,
                                     max_position_embeddings=11, hidden_act="tanh"), 5)
    heads(base, HERE / "models" / "gelu-odd" / "heads")
    heads(untied, HERE / "models" / "silu-untied" / "heads")  # here the masked-LM head has a decoder of its own
    variants(base)
    trainings()
    if len(sys.argv) > 1:
        minilm(sys.argv[1])
    versions = {module.__name__: module.__version__ for module in [torch, transformers, safetensors, tokenizers]}
    (HERE / "versions.json").write_text(json.dumps(versions) + "\n")
    print(json.dumps(versions))


if __name__ == "__main__":
    main()
