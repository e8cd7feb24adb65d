"""Tests bert-serve with existing clients: openai, huggingface_hub, requests, and curl.

    python3 -m venv target/clients && target/clients/bin/pip install openai huggingface_hub numpy requests
    target/clients/bin/python benchmarks/serve/clients.py target/debug/bert-serve MODEL…

Starts the server with the given model directories, calls the routes that each model's head supports, and prints one
line per client. The exit code is 1 if any client did not get the expected answer.
"""

import json
import subprocess
import sys

import requests
from huggingface_hub import InferenceClient
from openai import APIStatusError, OpenAI


def start(program, models):
    options = [option for model in models for option in ("--model", model)]
    server = subprocess.Popen([program, "--port", "0", *options], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if line.startswith("listening on "):
            return server, line.split()[-1]
        print(line, end="")
    sys.exit("the server did not start")


def openai(base, model):
    client = OpenAI(base_url=f"{base}/v1", api_key="none")
    assert model in [entry.id for entry in client.models.list()]
    texts = ["a charming film", "two hours too long"]
    # The client requests base64 by default.
    encoded = client.embeddings.create(model=model, input=texts)
    plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
    assert len(encoded.data) == 2 and encoded.usage.total_tokens > 0
    for a, b in zip(encoded.data, plain.data):
        assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding)) < 1e-6
    assert len(client.embeddings.create(model=model, input="x", dimensions=8).data[0].embedding) == 8
    try:
        client.embeddings.create(model="no-such-model", input="x")
    except APIStatusError as error:
        assert error.status_code == 404 and "no model" in error.message, error
    else:
        raise AssertionError("expected 404")


def feature_extraction(base, model):
    client = InferenceClient(model=f"{base}/?model={model}")
    vectors = client.feature_extraction("a charming film")
    assert vectors.shape[0] == 1 and abs((vectors**2).sum() - 1) < 1e-4, vectors.shape


def text_classification(base, model):
    found = InferenceClient(model=f"{base}/?model={model}").text_classification("a charming film")
    assert found and 0 <= found[0].score <= 1, found


def token_classification(base, model):
    found = InferenceClient(model=f"{base}/?model={model}").token_classification("Ada Lovelace lived in London.")
    assert all(entity.entity_group and entity.word for entity in found), found


def question_answering(base, model):
    client = InferenceClient(model=f"{base}/?model={model}")
    found = client.question_answering(question="Where did she live?", context="Ada Lovelace lived in London.")
    found = found[0] if isinstance(found, list) else found
    assert found.answer in "Ada Lovelace lived in London." and 0 <= found.score <= 1, found


def fill_mask(base, model):
    found = InferenceClient(model=f"{base}/?model={model}").fill_mask("Paris is the [MASK] of France.", top_k=3)
    assert len(found) == 3 and found[0].token_str.removeprefix("##") in found[0].sequence, found


def curl(base, model):
    body = json.dumps({"inputs": "a charming film", "model": model})
    command = ["curl", "-sS", "--fail-with-body", f"{base}/tokenize", "-d", body]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found[0][0]["text"] == "[CLS]", found


CLIENTS = {
    "/v1/embeddings": [openai, feature_extraction],
    "/predict": [text_classification],
    "/tag": [token_classification],
    "/answer": [question_answering],
    "/fill-mask": [fill_mask],
    "/tokenize": [curl],
}


def main():
    program, *models = sys.argv[1:]
    server, base = start(program, models)
    failed = False
    try:
        for model in requests.get(f"{base}/v1/models", timeout=10).json()["data"]:
            for route in model["routes"]:
                for client in CLIENTS.get(route, []):
                    # For masked-LM models, `/` fills masks.
                    if client is feature_extraction and "/fill-mask" in model["routes"]:
                        continue
                    try:
                        client(base, model["id"])
                        print(f"ok      {client.__name__:22} {model['id']}")
                    except Exception as error:  # continue with the next client
                        failed = True
                        print(f"FAILED  {client.__name__:22} {model['id']}: {error!r}")
    finally:
        server.terminate()
    sys.exit(failed or server.wait() != 0)


if __name__ == "__main__":
    main()
