"""More readers see the values that the input has: Spark, fastparquet, DataFusion, chDB, beside DuckDB, pyarrow and Polars.

Each reader is compared with the records themselves, value by value, and not with another reader. The lake has every type of
column, several pages, null values, texts of unequal lengths, numbers with and without a dictionary, and partition values that
look like numbers. Spark reads it twice: with its own vectorized reader, and with parquet-java, which Hive and Flink use too.

The same records are also written with `[parquet] encodings = "compact"`, for the readers that read those encodings right.
Spark 3.5.6 does not: that it misreads them shows that these values would find such a fault.

Raw lines are read as well, by these readers and some more (`raw_readers`).

    python -m e2e.engines [--without-spark]
"""

import argparse
import base64
import datetime
import decimal
import hashlib
import hmac
import importlib.util
import json
import logging
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import time

import chdb
import datafusion
import fastparquet
import pandas
import polars
import pyarrow
import pyarrow.dataset

from e2e import raw_readers
from e2e.common.binary import shardlake
from e2e.common.lake import connect, source_lines

# More than the 20,000 rows of a page.
ROWS = 22_000
KEY = b"0123456789abcdef0123456789abcdef"
# The versions that Spark 3.5 runs on.
JAVA_VERSIONS = (8, 11, 17)

DEFINITION = """
name = "readings"
partition_by = ["region", "year"]
[[recognize]]
present = ["/at"]
[event_time]
pointer = "/at"
"""
# name, type in the definition, kind of value, further keys
COLUMNS = [
    ("region", "string", "text", ""),
    ("region_text", "string", "text", ""),
    ("at", "timestamp", "time", ""),
    ("unique_text", "string", "text", "unique = true"),
    ("person", "string", "text", 'anonymize = { rule = "pseudonym" }'),
    ("few", "string", "text", ""),
    ("many", "string", "text", ""),
    ("never", "string", "text", ""),
    ("constant", "int32", "number", ""),
    ("small", "int32", "number", ""),
    ("wide", "int32", "number", ""),
    ("long", "int64", "number", ""),
    ("step", "float64", "double", ""),
    ("double", "float64", "double", ""),
    ("price", "decimal(12,2)", "decimal", ""),
    ("rate", "decimal(5,3)", "decimal", ""),
    ("flag", "bool", "bool", ""),
    ("day", "date32", "date", ""),
    ("old_day", "date32", "date", ""),
    ("seen", "timestamp", "time", 'format = "epoch_ms"'),
    ("note", "json", "json", "personal = false"),
    ("tags", "list", "list", 'element = "string"'),
    ("counts", "list", "list", 'element = "int64"'),
    ("totals", "map", "map", 'value = "float64"\nallow = ["*"]'),
    ("device", "struct", "struct", '[[column.field]]\nname = "make"\ntype = "string"\n[[column.field]]\nname = "size"\ntype = "int32"'),
    ("lines", "list", "structs", '[[column.field]]\nname = "sku"\ntype = "string"\n[[column.field]]\nname = "count"\ntype = "int32"'),
]
KINDS = {name: kind for name, _, kind, _ in COLUMNS} | {"ingest_shard": "text", "ingest_sequence": "text", "ingest_subsequence": "number"}
# The columns that have other encodings in compact files: one of each.
COMPACT = ["unique_text", "small", "long", "seen", "counts", "ingest_sequence"]
# A second column of a partition column's field keeps what the path cannot.
POINTERS = {"region_text": "region"}
CONTAINERS = ("list", "map", "struct", "structs")


def record_of(number, chance):
    """Record `number`, as JSON. Fields are missing at different rates."""
    at = datetime.datetime(2025, 1, 15, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=chance.randrange(86_400_000_000))
    text = "".join(chance.choice("abcxyz019éß日🙂 \"\\") for _ in range(chance.randrange(40)))
    record = {
        "region": "007" if number % 20 else ["7", "a/b c", "ü", None, "1e5", ""][number // 20 % 6],
        "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "unique_text": f"{text}{number}",
        "person": f"person-{chance.randrange(ROWS // 2)}",
        "few": f"few-{number % 6}",
        "many": f"many-{chance.randrange(6_000)}é",
        "constant": 7,
        "small": chance.randrange(-500, 500),
        "wide": chance.randrange(-(1 << 31), 1 << 31),
        "long": chance.randrange(-(1 << 60), 1 << 60),
        "step": chance.choice([0.25, -0.5, 1e300, 0.1]),
        "double": chance.choice([-0.0, chance.random(), chance.uniform(-1e18, 1e18)]),
        "price": round(chance.uniform(-1e6, 1e6), 2),
        "rate": round(chance.uniform(-99, 99), 3),
        "flag": chance.random() < 0.3,
        "day": str(datetime.date(1960, 1, 1) + datetime.timedelta(days=chance.randrange(40_000))),
        "old_day": str(datetime.date(1400, 1, 1) + datetime.timedelta(days=chance.randrange(60_000))),
        "seen": 1_736_899_200_000 + chance.randrange(10_000),
        "note": {"n": number, "text": text[:5]},
        "tags": [f"tag-{chance.randrange(9)}" for _ in range(chance.randrange(4))],
        "counts": [chance.choice([None, chance.randrange(1 << 40)]) for _ in range(chance.randrange(5))],
        "totals": {f"k{n}": chance.random() for n in range(chance.randrange(3))},
        "device": {"make": chance.choice([None, "A", "B"]), "size": chance.choice([None, chance.randrange(100)])},
        "lines": [{"sku": chance.choice([None, f"s{chance.randrange(99)}"]), "count": n} for n in range(chance.randrange(3))],
    }
    for place, name in enumerate(list(record)):
        if name not in ("at", "region") and chance.random() < place % 4 * 0.15:
            del record[name]
    return json.dumps(record, ensure_ascii=number % 2 == 0)


def expected_rows(records):
    """What a reader must see, from the records alone: by shard and sequence number."""
    rows = {}
    for shard, offset, line in source_lines(records):
        record = json.loads(line, parse_float=decimal.Decimal)
        if "person" in record:
            record["person"] = hmac.new(KEY, record["person"].encode(), hashlib.sha256).hexdigest()[:32]
        if "seen" in record:
            record["seen"] = datetime.datetime.fromtimestamp(record["seen"] / 1000, datetime.timezone.utc)
        row = {name: canonical(kind, record.get(POINTERS.get(name, name))) for name, kind in KINDS.items()}
        # An empty text has the folder of a missing value.
        row |= {"region": row["region"] or None, "ingest_shard": shard, "ingest_sequence": str(offset), "ingest_subsequence": 0}
        rows[shard, str(offset)] = row
    return rows


def iso(value):
    return value.astimezone(datetime.timezone.utc).isoformat(timespec="microseconds")


def canonical(kind, value):
    """A value in one form, whichever reader it comes from."""
    # pandas writes nulls in four ways. No column has NaN, because JSON has none.
    if value is None or value is pandas.NaT or value is pandas.NA or value != value:
        return None
    match kind:
        case "time":
            value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
            value = value.to_pydatetime() if isinstance(value, pandas.Timestamp) else value
            return iso(value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc))
        case "date":
            return str(value)[:10]
        case "number":
            return int(value)
        case "bool":
            return bool(value)
        case "double":
            # The text tells -0.0 from 0.0.
            return repr(float(value))
        case "decimal":
            # fastparquet has no decimals, only doubles; the definition has three digits after the point at most.
            return decimal.Decimal(str(round(value, 3) if isinstance(value, float) else value)).normalize()
        case "json":
            return json.loads(value) if isinstance(value, str) else value
        case "map":
            pairs = value.items() if isinstance(value, dict) else [pair if isinstance(pair, tuple) else pair.values() for pair in value]
            return {key: canonical("double", inner) for key, inner in map(tuple, pairs)}
        case "list":
            return [inner if inner is None or isinstance(inner, str) else int(inner) for inner in value]
        case "struct":
            return {name: value.get(name) for name in ("make", "size")}
        case "structs":
            return [{name: line.get(name) for name in ("sku", "count")} for line in value]
    return value


# --- the readers ------------------------------------------------------------------------------------------------------


def files_of(lake):
    return sorted(pathlib.Path(lake).glob("processed/readings/**/*.parquet"))


def by_duckdb(lake):
    found = connect().execute(f"SELECT * FROM read_parquet('{lake}/processed/readings/**/*.parquet', "
                              "hive_partitioning = true, hive_types_autocast = false)")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row)) for row in found.fetchall()]


def by_pyarrow(lake):
    schema = pyarrow.schema([("region", pyarrow.string()), ("year", pyarrow.string())])
    partitioning = pyarrow.dataset.partitioning(schema, flavor="hive")
    return pyarrow.dataset.dataset(lake / "processed" / "readings", format="parquet", partitioning=partitioning).to_table().to_pylist()


def by_polars(lake):
    frame = polars.scan_parquet(f"{lake}/processed/readings/**/*.parquet", hive_partitioning=True,
                                hive_schema={"region": polars.String, "year": polars.String})
    return frame.collect().to_dicts()


def by_datafusion(lake):
    text = pyarrow.string()
    context = datafusion.SessionContext()
    frame = context.read_parquet(f"{lake}/processed/readings/", table_partition_cols=[("region", text), ("year", text)])
    rows = frame.to_arrow_table().to_pylist()
    # It has no null partition values, only their name.
    for row in rows:
        row["region"] = None if row["region"] == "__HIVE_DEFAULT_PARTITION__" else row["region"]
    return rows


def by_chdb(lake):
    # ClickHouse guesses the types of partition values, and refuses `007` beside `ü`.
    table = chdb.query(
        f"SELECT * FROM file('{lake}/processed/readings/**/*.parquet', Parquet) SETTINGS use_hive_partitioning = 0, "
        "output_format_arrow_string_as_string = 1, session_timezone = 'UTC'", "ArrowTable")
    return table.to_pylist()


def by_fastparquet(lake):
    rows = []
    for path in files_of(lake):
        frame = fastparquet.ParquetFile(str(path)).to_pandas(columns=[name for name in flat_columns()])
        rows += frame.astype(object).to_dict("records")
    return rows


def flat_columns():
    """The columns that fastparquet reads: it has no structs, no columns of nulls alone, and no times before 1677."""
    return [name for name, kind in KINDS.items() if kind not in ("struct", "structs") and name not in ("region", "never", "old_day")]


def by_spark(spark, lake, vectorized):
    """The rows as JSON, so that no version of pandas or pyarrow is between Spark and the comparison."""
    spark.conf.set("spark.sql.parquet.enableVectorizedReader", str(vectorized).lower())
    frame = spark.read.parquet(f"{lake}/processed/readings")
    options = {"ignoreNullFields": "false", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"}
    from pyspark.sql import functions
    lines = frame.select(functions.to_json(functions.struct(*frame.columns), options)).collect()
    return [json.loads(line[0], parse_float=decimal.Decimal) for line in lines]


def misread_by_spark(spark, lake, expected):
    """What Spark's vectorized reader makes of texts that hardly repeat; an empty text if it reads them right. They need not be UTF-8."""
    from py4j.protocol import Py4JJavaError
    spark.conf.set("spark.sql.parquet.enableVectorizedReader", "true")
    frame = spark.read.parquet(f"{lake}/processed/readings")
    # Bytes of a wrong length are a wrong text, or reach beyond the page. Where the rows of the two shards meet decides which.
    try:
        found = frame.selectExpr("ingest_shard", "ingest_sequence", "base64(cast(unique_text AS binary))").collect()
    except Py4JJavaError as error:
        assert "Parquet" in str(error), "Spark failed elsewhere than in a reader of Parquet"
        return "fails on texts"
    texts = {(shard, sequence): text for shard, sequence, text in found}
    wanted = {key: row["unique_text"] for key, row in expected.items()}
    wanted = {key: None if text is None else base64.b64encode(text.encode()).decode() for key, text in wanted.items()}
    # Spark breaks long base64 texts into lines.
    count = sum((texts[key] or "").replace("\r\n", "") != (text or "") for key, text in wanted.items())
    return f"misreads {count:,} texts" if count else ""


def start_spark(folder):
    """A session on two threads, quiet, in UTC, that takes partition values as they are."""
    logging.getLogger("py4j").setLevel(logging.ERROR)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    from pyspark.sql import SparkSession
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    settings = {
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


# --- comparing --------------------------------------------------------------------------------------------------------


def differences(rows, expected, columns, empty_for_null=False):
    """{column: number of wrong values}. `empty_for_null`: the reader has no null containers, only empty ones."""
    found = {}
    assert len(rows) == len(expected), f"{len(rows)} rows, expected {len(expected)}"
    seen = set()
    for row in rows:
        key = row["ingest_shard"], row["ingest_sequence"]
        seen.add(key)
        right = expected[key]
        for name in columns:
            value, wanted = canonical(KINDS[name], row.get(name)), right[name]
            if empty_for_null and KINDS[name] in CONTAINERS:
                value, wanted = (None if not part or part == {"make": None, "size": None} else part for part in (value, wanted))
            if value != wanted:
                found[name] = found.get(name, 0) + 1
    assert len(seen) == len(expected), "a row is there twice"
    return found


def check(name, rows, expected, columns=tuple(KINDS), **options):
    started = time.monotonic()
    rows = rows()
    wrong = differences(rows, expected, columns, **options)
    assert not wrong, f"{name} reads other values than were written: {wrong}"
    return f"{name} {time.monotonic() - started:.1f} s"


def write_lake(folder, records, encodings):
    text = DEFINITION
    for name, kind, _, keys in COLUMNS:
        text += f'[[column]]\nname = "{name}"\npointer = "/{POINTERS.get(name, name)}"\ntype = "{kind}"\n{keys}\n'
    (folder / "readings.toml").write_text(text)
    (folder / "key").write_bytes(KEY)
    settings = f'[[dataset]]\nfile = "readings.toml"\n[anonymize]\nkey = "file:{folder}/key"\n'
    (folder / "shardlake.toml").write_text(settings + (f'[parquet]\nencodings = "{encodings}"\n' if encodings else ""))
    lake = folder / f"lake-{encodings}"
    shardlake("run", "--config", folder / "shardlake.toml", "--source", records, "--lake", lake, "--until-caught-up")
    return lake


def missing_for_spark():
    """Why Spark cannot be run on this machine; an empty text if it can."""
    if not shutil.which("java"):
        return "there is no Java on this machine"
    printed = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', printed)
    if not found or int(found[1]) not in JAVA_VERSIONS:
        return f"it needs Java 8, 11 or 17, and this machine has {found[1] if found else 'another one'}"
    return "" if importlib.util.find_spec("pyspark") else "tests/e2e/requirements-spark.txt is not installed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-spark", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        records = folder / "records"
        records.mkdir()
        chance = random.Random(5)
        for shard, count in (("a.ndjson", ROWS - 500), ("b.ndjson", 500)):
            lines = [record_of(number, chance) for number in range(count)]
            (records / shard).write_text("\n".join(lines) + "\n", encoding="utf-8")
        expected = expected_rows(records)
        lakes = {encodings: write_lake(folder, records, encodings) for encodings in ("", "compact")}
        for encodings, lake in lakes.items():
            columns = COMPACT if encodings else list(KINDS)
            readers = (by_duckdb, by_pyarrow, by_polars, by_datafusion)
            done = [check(reader.__name__[3:], lambda: reader(lake), expected, columns) for reader in readers]
            # ClickHouse's dates begin in 1900.
            columns = [name for name in columns if name not in ("region", "old_day")]
            done.append(check("chdb", lambda: by_chdb(lake), expected, columns, empty_for_null=True))
            print(f"{encodings or 'default'} encodings, {len(expected):,} rows: {', '.join(done)}", flush=True)
        print(check(f"fastparquet {fastparquet.__version__}", lambda: by_fastparquet(lakes[""]), expected, flat_columns()), flush=True)
        raw = raw_readers.python_readers(folder)
        missing = "it was left out" if args.without_spark else missing_for_spark()
        if missing:
            print(f"NOT CHECKED: Spark and parquet-java: {missing}.")
        else:
            spark_reads(folder, lakes, expected, raw)
    print("OK")


def spark_reads(folder, lakes, expected, raw):
    started = time.monotonic()
    spark = start_spark(folder)
    try:
        print(f"Spark {spark.version} started in {time.monotonic() - started:.1f} s")
        for vectorized in (True, False):
            reader = "vectorized reader" if vectorized else "parquet-java"
            print(check(f"Spark's {reader}", lambda: by_spark(spark, lakes[""], vectorized), expected), flush=True)
        raw_readers.spark_readers(spark, raw)
        # The reason for the default: without it this version of Spark returns other texts, and no error.
        wrong = misread_by_spark(spark, lakes["compact"], expected)
        assert wrong, f"Spark {spark.version} reads compact encodings: these values would not show that it misreads them"
        print(f"Spark {spark.version} {wrong} in compact encodings, as known")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
