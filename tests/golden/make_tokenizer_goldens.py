"""Token ids of odd tokenizer directories, as transformers reads them, into tokenizers.json.

    venv/bin/python tests/golden/make_tokenizer_goldens.py        (needs transformers, not torch)
"""

import json
import tempfile
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer, BertTokenizer

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog ##s a b The < > e1 / [unused1] <s> </s> <mask> <unk> é 漢".split()
TEXTS = [("the cats [MASK] The é", None), ("<e1> dogs </e1>", None), ("a [unused1] b", "cat <mask> zebra"), ("", None)]


def saved(**options):
    """The tokenizer.json of a BERT tokenizer, as a dictionary."""
    with tempfile.TemporaryDirectory() as directory:
        vocabulary = {piece: index for index, piece in enumerate(VOCABULARY)}
        BertTokenizer(vocab=vocabulary, **options).save_pretrained(directory)
        return json.loads(Path(directory, "tokenizer.json").read_text())


def added(content, **options):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content} | flags | options


def template(single, pair, tokens):
    def pieces(parts):
        one = lambda part: "Sequence" if part[0] in "AB" and len(part[0]) == 1 else "SpecialToken"
        return [{one(part): {"id": part[0], "type_id": part[1]}} for part in parts]

    special = {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in tokens.items()}
    return {"type": "TemplateProcessing", "single": pieces(single), "pair": pieces(pair), "special_tokens": special}


def case(name, vocabulary=VOCABULARY, json_file=None, max_length=None, has_types=True, **files):
    files = {key.replace("_json", ".json"): json.dumps(value, ensure_ascii=False) for key, value in files.items()}
    if json_file is None:
        files["vocab.txt"] = "\n".join(vocabulary) + "\n"
    else:
        files["tokenizer.json"] = json.dumps(json_file, ensure_ascii=False)
    with tempfile.TemporaryDirectory() as directory:
        for file, content in files.items():
            Path(directory, file).write_text(content)
        if "config.json" not in files:
            Path(directory, "config.json").write_text('{"model_type": "bert"}')
        tokenizer = AutoTokenizer.from_pretrained(directory)
    given = [[text for text in texts if text is not None] for texts in TEXTS]
    options = {"truncation": True, "max_length": max_length} if max_length else {}
    options |= {"return_token_type_ids": True} if has_types else {}
    encoded = [tokenizer(*texts, **options) for texts in given]
    # BertModel takes zeros if it gets no types.
    types = [encoding.get("token_type_ids", [0] * len(encoding["input_ids"])) for encoding in encoded]
    return {
        "name": name,
        "files": files,
        "texts": TEXTS,
        "ids": [encoding["input_ids"] for encoding in encoded],
        "types": types,
        "max_length": max_length,
        "special": [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id],
        "mask": tokenizer.mask_token_id,
    }


def cases():
    bert = saved()
    generic = {"tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    generic |= {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    turned = template([("[CLS]", 0), ("A", 1), ("[SEP]", 0)], [("A", 0), ("[SEP]", 0), ("B", 1)], {"[CLS]": 2, "[SEP]": 3})
    yield case("vocabulary alone")
    yield case("cased", tokenizer_config_json={"do_lower_case": False})
    yield case("accents kept", tokenizer_config_json={"strip_accents": False, "tokenize_chinese_chars": False})
    yield case("a piece twice", vocabulary=VOCABULARY + ["cat", "the"])
    names = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>", "unk_token": "<unk>"}
    yield case("names in the configuration", tokenizer_config_json=names)
    yield case("names in the map", special_tokens_map_json=names, tokenizer_config_json={"cls_token": "[unused1]"})
    yield case(
        "names in the configuration, which lists the added tokens",
        special_tokens_map_json={"cls_token": "[unused1]"},
        tokenizer_config_json=names | {"added_tokens_decoder": {"17": added("<s>"), "18": added("</s>")}},
    )
    yield case("a mask that takes spaces", special_tokens_map_json={"mask_token": added("[MASK]", lstrip=True)})
    end = len(VOCABULARY)
    yield case("added tokens", added_tokens_json={"<e1>": end, "</e1>": end + 1})
    yield case(
        "added special tokens",
        added_tokens_json={"<e1>": end, "</e1>": end + 1},
        special_tokens_map_json={"additional_special_tokens": ["<e1>", "</e1>"]},
    )
    decoder = {str(end): added("<e1>"), str(end + 1): added("</e1>", normalized=True, special=False)}
    yield case("added tokens of the configuration", tokenizer_config_json={"added_tokens_decoder": decoder})
    yield case("more special tokens", tokenizer_config_json={"additional_special_tokens": ["[unused1]", "<e1>"]})
    yield case("more special tokens of the map", special_tokens_map_json={"additional_special_tokens": ["</e1>", "<e1>"]})
    stale = {"101": added("[CLS]"), "102": added("[SEP]"), "0": added("[PAD]")}
    yield case("ids of another vocabulary", json_file=bert, tokenizer_config_json={"added_tokens_decoder": stale})
    yield case("tokenizer.json", json_file=bert)
    yield case("tokenizer.json with other names", json_file=bert, tokenizer_config_json=names)
    yield case("tokenizer.json with added tokens", json_file=bert, added_tokens_json={"<e1>": end, "</e1>": end + 1})
    yield case("tokenizer.json without a post-processor", json_file=bert | {"post_processor": None})
    yield case("tokenizer.json that lists no special token", json_file=bert | {"added_tokens": []})
    yield case("tokenizer.json with a turned template", json_file=bert | {"post_processor": turned})
    fewer = ["[UNK]"] + VOCABULARY[5:]
    added_names = {name: len(fewer) + index for index, name in enumerate(["[PAD]", "[CLS]", "[SEP]", "[MASK]"])}
    yield case("special tokens among the added ones", vocabulary=fewer, added_tokens_json=added_names)
    decoder = {str(id): added(name) for name, id in added_names.items()}
    decoder = {"tokenizer_class": "BertTokenizer", "added_tokens_decoder": decoder}
    yield case("special tokens among those of the configuration", vocabulary=fewer, tokenizer_config_json=decoder)
    typeless = {"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]}
    yield case("no token types", tokenizer_config_json=typeless, has_types=False)
    yield case("truncated", max_length=5)
    yield case("truncated on the left", max_length=5, tokenizer_config_json={"truncation_side": "left"})
    left = {"direction": "Left", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    yield case("truncated on the left by tokenizer.json", max_length=5, json_file=bert | {"truncation": left})
    split = {"split_special_tokens": True}
    yield case("special tokens in a text are split", json_file=bert, tokenizer_config_json=split)
    of_model = {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}
    names = {key: value for key, value in generic.items() if key != "tokenizer_class"}
    turned_file = bert | {"post_processor": turned}
    yield case("the class in config.json", json_file=turned_file, tokenizer_config_json=names, config_json=of_model)
    yield case("a turned template that counts", json_file=bert | {"post_processor": turned}, tokenizer_config_json=generic)


if __name__ == "__main__":
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    path = Path(__file__).with_name("tokenizers.json")
    path.write_text(json.dumps({"versions": versions, "cases": list(cases())}, ensure_ascii=False, indent=1) + "\n")
