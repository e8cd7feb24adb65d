"""Writes tests/golden/parquet with pyarrow: the same table in several compressions and encodings, and data of the shapes
that data sets on the Hugging Face Hub have.

    python3 -m venv venv && venv/bin/pip install pyarrow
    venv/bin/python tests/golden/make_parquet_goldens.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(__file__).parent / "parquet"
folder.mkdir(exist_ok=True)


def write(name, table, **options):
    pq.write_table(table, folder / name, **{"row_group_size": 16, "compression": "snappy", **options})


rows = range(40)
table = pa.table(
    {
        "text": [f"row {i}: Zoë ate 𝄞 pies" for i in rows],
        "pair": [f"pair {i}" if i % 3 == 0 and i else None for i in rows],
        "label": pa.array([i % 3 for i in rows], pa.int64()),
        "score": pa.array([i / 10 for i in rows], pa.float32()),
        "is_long": [i % 3 == 0 and i > 0 for i in rows],
    }
)
write("snappy.parquet", table)
write("zstd.parquet", table, compression="zstd")
write("gzip.parquet", table, compression="gzip")
write("plain.parquet", table, compression="none", use_dictionary=False)
deltas = {"text": "DELTA_BYTE_ARRAY", "pair": "DELTA_LENGTH_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED",
          "score": "BYTE_STREAM_SPLIT", "is_long": "RLE"}
write("delta.parquet", table, use_dictionary=False, column_encoding=deltas)
write("pages-v2.parquet", table, data_page_version="2.0", compression="zstd")

documents = pa.table({"id": [1, 2, 3], "text": ["One.\nTwo.\n\nThree.", "", "Four."]})
write("documents.parquet", documents)

tags = ["O", "B-PER", "B-LOC"]
features = {
    "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
    "ner_tags": {"feature": {"names": tags, "_type": "ClassLabel"}, "_type": "Sequence"},
}
tagged = pa.table(
    {
        "tokens": [["Anna", "lives", "in", "Bonn"], [], ["Bonn", "sleeps"]],
        "ner_tags": pa.array([[1, 0, 0, 2], [], [2, 0]], pa.list_(pa.int64())),
    }
)
write("tags.parquet", tagged.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}))

answers = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
squad = pa.table(
    {
        "id": ["1", "2"],
        "title": ["T", "T"],
        "context": ["Zoë ate 𝄞 pies."] * 2,
        "question": ["What?", "Who?"],
        "answers": pa.array(
            [{"text": ["pies"], "answer_start": [10]}, {"text": [], "answer_start": []}], answers
        ),
    }
)
write("squad.parquet", squad)
