"""Readers of line objects see every raw line, although each member of an object carries the identities of its lines.

The identities are in the extra field of gzip headers and in skippable frames of zstd, which readers must ignore. Each object has many
members and many identities. Each reader is compared with the input itself, line by line, and not with another reader.
"""

import collections
import gzip
import json
import pathlib
import subprocess
import time

import chdb
import datafusion
import polars
import pyarrow
import pyarrow.csv

from e2e.common.binary import shardlake
from e2e.common.lake import connect

# Bytes of lines in a member, as the worker writes them.
MEMBER = 1 << 20
LINES = 60_000
# A record that becomes a row. The lines belong to no dataset, and so they are in raw/unknown/.
GOOD = {"id": "a1", "user_id": "u1", "type": "skills", "score": 1, "duration": 1, "timestamp": "2025-01-13T10:00:00Z"}


def line_of(number):
    return json.dumps({"number": number, "text": f"a line \u00e4 of {number}", "filler": "xyz" * (number % 90)}, ensure_ascii=False)


def write(folder, codec):
    """A lake whose raw objects have many members, from two files whose lines alternate in places."""
    source = folder / "raw-source"
    if not source.exists():
        source.mkdir()
        for name, first in (("a.ndjson", 0), ("b.ndjson", LINES)):
            lines = [line_of(number) for number in range(first, first + LINES)]
            (source / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        # A run whose records all fail is an error.
        (source / "good.ndjson").write_text(json.dumps(GOOD) + "\n")
    (folder / "raw.toml").write_text(f'[raw]\ncodec = "{codec}"\n[limits]\nthreads = 2\n')
    lake = folder / f"raw-{codec}"
    shardlake("run", "--config", folder / "raw.toml", "--source", source, "--lake", lake, "--until-caught-up")
    objects = sorted(lake.glob("raw/unknown/**/*.json.*"))
    assert objects, "there is no raw object"
    first = objects[0].read_bytes()
    if codec == "gzip":
        # RFC 1952: bit 2 of the flags, and the subfield `SL` as the first of the extra field.
        assert first[3] == 4 and first[12:14] == b"SL", first[:16]
    else:
        # RFC 8878: an empty frame, then a skippable one.
        assert first[:4] == bytes([0x28, 0xB5, 0x2F, 0xFD]) and first[9:13] == bytes([0x5C, 0x2A, 0x4D, 0x18]) and first[17:19] == b"SL", first[:19]
    return lake, objects


def members(path):
    """How many gzip members an object has, each with the field, by decompressing one after another."""
    import zlib
    data, count = path.read_bytes(), 0
    while data:
        assert data[3] == 4 and data[12:14] == b"SL", "a member has no identities"
        decoder = zlib.decompressobj(wbits=31)
        decoder.decompress(data)
        assert decoder.eof, "a member is cut off"
        data, count = decoder.unused_data, count + 1
    return count


# --- readers: each returns the lines, without their ends ----------------------------------------------------------------

def by_python(objects):
    for path in objects:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            yield from (line.rstrip("\n") for line in file)


def by_tool(*command):
    def read(objects):
        out = subprocess.run([*command, *objects], check=True, capture_output=True, timeout=120).stdout
        yield from out.decode().splitlines()
    return read


def by_duckdb(objects):
    """As text, and as JSON: the values are compared as well."""
    names = [str(path) for path in objects]
    found = connect().execute("SELECT json FROM read_ndjson_objects($1)", [names]).fetchall()
    numbers = connect().execute("SELECT sum(number), count(*) FROM read_json($1, format = 'newline_delimited')", [names]).fetchone()
    assert numbers == (sum(range(2 * LINES)), 2 * LINES), numbers
    for (line,) in found:
        yield line


def by_pyarrow(objects):
    for path in objects:
        with pyarrow.input_stream(str(path), compression="detect") as stream:
            yield from stream.read().decode().splitlines()


def by_polars(objects):
    frame = polars.scan_ndjson(list(objects), schema={"number": polars.Int64, "text": polars.String, "filler": polars.String}).collect()
    for row in frame.iter_rows(named=True):
        yield json.dumps(row, ensure_ascii=False)


def by_chdb(objects):
    for path in objects:
        found = chdb.query(f"SELECT line FROM file('{path}', LineAsString)", "JSONEachRow").bytes()
        yield from (json.loads(line)["line"] for line in found.splitlines())


def by_datafusion(objects):
    for path in objects:
        context = datafusion.SessionContext()
        schema = pyarrow.schema([("number", pyarrow.int64()), ("text", pyarrow.string()), ("filler", pyarrow.string())])
        compression = "gz" if path.suffix == ".gz" else "zst"
        extension = ".json.gz" if path.suffix == ".gz" else ".json.zst"
        context.register_json("lines", str(path), schema=schema, file_extension=extension, file_compression_type=compression)
        for row in context.sql("SELECT number, text, filler FROM lines").to_pylist():
            yield json.dumps(row, ensure_ascii=False)


def by_spark(spark):
    def read(objects):
        frame = spark.read.text([str(path) for path in objects])
        yield from (row[0] for row in frame.collect())
    return read


def by_java(spark):
    """java.util.zip.GZIPInputStream, which most Java programs use, through Spark's virtual machine."""
    def read(objects):
        java = spark._jvm
        for path in objects:
            stream = java.java.util.zip.GZIPInputStream(java.java.io.FileInputStream(str(path)))
            text = java.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
            stream.close()
            yield from text.splitlines()
    return read


def check(name, read, objects):
    started = time.monotonic()
    expected = collections.Counter(line_of(number) for number in range(2 * LINES))
    found = collections.Counter(read(objects))
    missing, more = expected - found, found - expected
    assert not missing and not more, f"{name}: {missing.total():,} lines are missing, {more.total():,} are too many"
    return f"{name} {time.monotonic() - started:.1f} s"


def python_readers(folder):
    """Checks all readers that need no Java. Returns the gzip objects."""
    lake, objects = write(folder, "gzip")
    count = sum(members(path) for path in objects)
    size = sum(path.stat().st_size for path in pathlib.Path(lake).glob("raw/**/*.gz"))
    text = sum(len(line_of(number).encode()) + 1 for number in range(2 * LINES))
    assert count > 1.5 * len(objects) and count > text // MEMBER // 2, f"{count} members in {len(objects)} objects"
    readers = [("gzip module", by_python), ("zcat", by_tool("zcat")), ("DuckDB", by_duckdb), ("pyarrow", by_pyarrow),
               ("Polars", by_polars), ("chDB", by_chdb), ("DataFusion", by_datafusion)]
    done = [check(name, read, objects) for name, read in readers]
    print(f"raw lines, gzip, {count} members of {len(objects)} objects, {size:,} bytes: {', '.join(done)}", flush=True)
    _, frames = write(folder, "zstd")
    readers = [("zstd", by_tool("zstd", "-dcq")), ("DuckDB", by_duckdb), ("pyarrow", by_pyarrow), ("Polars", by_polars),
               ("chDB", by_chdb), ("DataFusion", by_datafusion)]
    done = [check(name, read, frames) for name, read in readers]
    print(f"raw lines, zstd: {', '.join(done)}", flush=True)
    return objects


def spark_readers(spark, objects):
    done = [check("Spark", by_spark(spark), objects), check("Java's GZIPInputStream", by_java(spark), objects)]
    print(f"raw lines, gzip: {', '.join(done)}", flush=True)
