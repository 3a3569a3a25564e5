"""Reading files that anybody may have written: what they claim is checked before it is believed.

Every file that keystep reads comes through here: text, JSON, YAML and CSV (`text`), what they have to hold
(`records`), arrays (`arrays`), columns of Parquet (`parquet`), the headers of safetensors (`tensors`), and files within
tar files (`shards`). A file is a regular one of bounded size, its nesting is bounded, its numbers are finite, and no
memory is taken for a size that the file only claims.
"""

from keystep.reading.arrays import is_archive, npy_header, open_npy, read_npz
from keystep.reading.parquet import column_names, read_columns
from keystep.reading.records import Record, checked, read_record
from keystep.reading.shards import held_in_shards, located, stored
from keystep.reading.tensors import TensorHeader, read_header
from keystep.reading.text import (
    check_regular,
    is_file_name,
    parse_json,
    parse_yaml,
    read_json,
    read_lines,
    read_rows,
    read_table,
    read_text,
    whole_number,
)

__all__ = [
    "Record",
    "TensorHeader",
    "check_regular",
    "checked",
    "column_names",
    "held_in_shards",
    "is_archive",
    "is_file_name",
    "located",
    "npy_header",
    "open_npy",
    "parse_json",
    "parse_yaml",
    "read_columns",
    "read_header",
    "read_json",
    "read_lines",
    "read_npz",
    "read_record",
    "read_rows",
    "read_table",
    "read_text",
    "stored",
    "whole_number",
]
