"""DuckDB, pyarrow and Polars read the lake, find its partitions as Hive does, and agree on every value.

Five lakes: one of many records in few files, one of many small files (columns and pages without any value), one whose
partition values need escaping, one whose definition changes, and one of decimals. For each dataset, the rows of the three
readers are brought to one form and compared, all of them. Then the columns that land unchanged are compared with the input
itself. Every file keeps the conventions of docs/formats.md: the name of its writer, field ids, and the unit of times. What the
manifests say of each file is compared with the file: partitions, and the statistics of its columns.

    python -m e2e.readers
"""

import base64
import datetime
import decimal
import json
import math
import pathlib
import re
import subprocess
import tempfile
import tomllib

import duckdb
import polars
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

from e2e.common.binary import ROOT, binary, shardlake
from e2e.common.lake import commit_records, connect, datasets, dead_letters, parquet_glob, source_lines

# What identifies a row in a lake of one stream, and in a lake of several.
SHARD_KEYS = ["ingest_shard", "ingest_sequence"]
STREAM_KEYS = ["ingest_stream", *SHARD_KEYS]

SHIPPED = sorted((ROOT / "pipeline" / "datasets").glob("*.toml"))
FIELD_ID = b"PARQUET:field_id"
# VersionParser.FORMAT of parquet-java, which must match the whole text.
CREATED_BY = re.compile(r"(.*?)\s+version\s*(?:([^(]*?)\s*(?:\(\s*build\s*([^)]*?)\s*\))?)?")


def normal(value):
    """A value in a form that all three readers can be brought to."""
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return value.astimezone(datetime.timezone.utc).isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        # pyarrow gives a map as a list of pairs, Polars as a list of structs.
        pairs = [pair for pair in value if isinstance(pair, tuple) and len(pair) == 2]
        if value and len(pairs) == len(value):
            return {key: normal(inner) for key, inner in pairs}
        structs = [struct for struct in value if isinstance(struct, dict) and set(struct) == {"key", "value"}]
        if value and len(structs) == len(value):
            return {struct["key"]: normal(struct["value"]) for struct in structs}
        return [normal(inner) for inner in value]
    return value


def by_duckdb(lake, dataset):
    found = connect().execute(
        f"SELECT * FROM read_parquet('{parquet_glob(lake, dataset)}', hive_partitioning = true, hive_types_autocast = false)"
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row)) for row in found.fetchall()]


def by_pyarrow(lake, dataset):
    folder = f"{lake}/processed/{dataset}"
    schema = pyarrow.schema([(key, pyarrow.string()) for key in partition_keys(folder)])
    partitioning = pyarrow.dataset.partitioning(schema, flavor="hive")
    table = pyarrow.dataset.dataset(folder, format="parquet", partitioning=partitioning).to_table()
    return table.to_pylist()


def by_polars(lake, dataset):
    folder = f"{lake}/processed/{dataset}"
    frame = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True,
                                hive_schema={key: polars.String for key in partition_keys(folder)})
    return frame.collect().to_dicts()


def partition_keys(folder):
    path = next(pathlib.Path(folder).rglob("*.parquet"))
    return [part.split("=")[0] for part in path.relative_to(folder).parts[:-1]]


def rows(reader, lake, dataset, keys):
    """All rows in the order of their keys, in normal form. Some readers give an empty map as an empty list."""

    def without_empty_maps(value):
        return [] if value == {} else value

    found = [{name: without_empty_maps(normal(value)) for name, value in row.items()} for row in reader(lake, dataset)]
    return sorted(found, key=lambda row: [row[key] for key in keys])


def compare(lake, keys=SHARD_KEYS):
    """Fails unless the three readers see the same rows. Returns the rows of each dataset."""
    found = {}
    for dataset in datasets(lake):
        first = rows(by_duckdb, lake, dataset, keys)
        assert first, f"{dataset} has no rows"
        for reader in (by_pyarrow, by_polars):
            other = rows(reader, lake, dataset, keys)
            assert len(other) == len(first), f"{dataset}: {reader.__name__} has {len(other)} rows, DuckDB {len(first)}"
            for left, right in zip(first, other):
                assert set(left) == set(right), f"{dataset}: columns differ: {set(left) ^ set(right)}"
                for name in left:
                    assert left[name] == right[name], (
                        f"{dataset}.{name} of {[left[key] for key in keys]}: "
                        f"DuckDB {left[name]!r}, {reader.__name__} {right[name]!r}"
                    )
        found[dataset] = first
    return found


def parsed(line):
    """The record of a line; some are wrapped in base64."""
    text = line.strip().strip(b'"')
    return json.loads(text if text.startswith(b"{") else base64.b64decode(text))


def compare_with_input(found, records):
    """Columns that are not transformed hold what the input holds. Returns the number of rows compared."""
    lines = {(shard, str(offset)): line for shard, offset, line in source_lines(records)}
    compared = 0
    for row in found["assessments"]:
        record = parsed(lines[row["ingest_shard"], row["ingest_sequence"]])
        assert row["assessment_id"] == record["id"] and row["type"] == record["type"]
        assert row["score"] == record.get("score") and row["completion_time"] == record.get("duration")
        answers = record.get("answers") or []
        times = [answer.get("milliseconds") for answer in answers]
        assert [answer["milliseconds"] for answer in row["answers"] or []] == times, (row, record)
        compared += 1
    for row in found["events"]:
        record = parsed(lines[row["ingest_shard"], row["ingest_sequence"]])
        assert row["event_type"] == record["event_type"]
        at = datetime.datetime.fromtimestamp(record["event_timestamp"] / 1000, datetime.timezone.utc)
        assert row["event_timestamp"] == at.isoformat(timespec="microseconds")
        assert (row["year"], row["month"], row["day"]) == (f"{at.year}", f"{at.month:02}", f"{at.day:02}")
        device = record.get("device") or {}
        assert row["device_make"] == device.get("make") and row["device_model"] == device.get("model")
        compared += 1
    return compared


def fields_of(field, parent=None):
    """(id, id of the containing field, name, type) of a field and of every field inside it."""
    identity = int(field.metadata[FIELD_ID])
    yield identity, parent, field.name, field.type
    kind = field.type
    if pyarrow.types.is_map(kind):
        inside = [kind.key_field, kind.item_field]
    elif pyarrow.types.is_list(kind):
        inside = [kind.value_field]
    else:
        inside = [kind.field(n) for n in range(kind.num_fields)]
    for child in inside:
        yield from fields_of(child, identity)


def check_conventions(lake):
    """Every file names its writer, has the lake's field ids, and has times in UTC microseconds."""
    times = 0
    for dataset in datasets(lake):
        schemas = sorted((pathlib.Path(lake) / "_schemas" / dataset).iterdir())
        stored = json.loads(schemas[-1].read_text())
        assert stored["format"] == 1 and stored["dataset"] == dataset, stored
        known = {field["id"]: (field.get("parent"), field["name"]) for field in stored["fields"]}
        assert list(known) == list(range(1, len(known) + 1)), f"{dataset}: ids with gaps: {list(known)}"
        for path in pathlib.Path(lake).glob(f"processed/{dataset}/**/*.parquet"):
            writer = CREATED_BY.fullmatch(pyarrow.parquet.read_metadata(path).created_by)
            assert writer and writer[1] == "shardlake" and re.fullmatch(r"\d+\.\d+\.\d+", writer[2]) and writer[3], path
            fields = [found for field in pyarrow.parquet.read_schema(path) for found in fields_of(field)]
            assert len({identity for identity, *_ in fields}) == len(fields), f"{path}: an id occurs twice"
            columns = pyarrow.parquet.read_metadata(path).schema
            for column in (columns.column(n) for n in range(len(columns))):
                if column.logical_type.type == "TIMESTAMP":
                    stored = (column.physical_type, column.converted_type)
                    assert stored == ("INT64", "TIMESTAMP_MICROS"), f"{path}: {column.path} is {stored}"
            for identity, parent, name, kind in fields:
                assert known[identity] == (parent, name), f"{path}: {name} has the id {identity} of {known[identity]}"
                if pyarrow.types.is_timestamp(kind):
                    assert (kind.unit, kind.tz) == ("us", "UTC"), f"{path}: {name} is {kind}"
                    times += 1
        columns = connect().execute(f"DESCRIBE SELECT * FROM '{parquet_glob(lake, dataset)}'").fetchall()
        by_duckdb = {name for name, kind, *_ in columns if kind == "TIMESTAMP WITH TIME ZONE"}
        frame = polars.scan_parquet(f"{lake}/processed/{dataset}/**/*.parquet", hive_partitioning=False)
        by_polars = {name for name, kind in frame.collect_schema().items() if kind == polars.Datetime("us", "UTC")}
        assert "ingest_arrival_time" in by_duckdb and by_duckdb == by_polars, (by_duckdb, by_polars)
    assert times, "no file has a time"
    return times


def leaves_of(path):
    """(field id, path) of each column of a file, in order, without the groups between the fields."""

    def leaves(field, above):
        kind = field.type
        if pyarrow.types.is_map(kind):
            inside = [kind.key_field, kind.item_field]
        elif pyarrow.types.is_list(kind):
            inside = [kind.value_field]
        else:
            inside = [kind.field(n) for n in range(kind.num_fields)]
        if not inside:
            yield int(field.metadata[FIELD_ID]), (*above, field.name)
        for child in inside:
            yield from leaves(child, (*above, field.name))

    return [leaf for field in pyarrow.parquet.read_schema(path) for leaf in leaves(field, ())]


def range_of(path, leaf):
    """The least and the greatest value of a column or of a struct's field, as the manifest writes bounds."""
    values = pyarrow.parquet.read_table(path, columns=[leaf[0]], partitioning=None)[leaf[0]].combine_chunks()
    for name in leaf[1:]:
        values = pyarrow.compute.struct_field(values, name)
    kind = values.type
    if pyarrow.types.is_timestamp(kind):
        values = values.cast("int64")
    elif pyarrow.types.is_date32(kind):
        values = values.cast("int32")
    found = pyarrow.compute.min_max(values).as_py()
    least, greatest = found["min"], found["max"]
    if pyarrow.types.is_decimal(kind):
        least, greatest = (int(value.scaleb(kind.scale)) for value in (least, greatest))
    return least, greatest


def anonymized_columns(definitions):
    """(dataset, column) of every column, or field of a column, that a rule changes; `column.field` for a field."""
    found = set()
    for path in definitions:
        definition = tomllib.loads(path.read_text())
        for column in definition["column"]:
            members = [(f"{column['name']}.{member['name']}", member) for member in column.get("field", [])]
            for name, part in [(column["name"], column), *members]:
                if "anonymize" in part:
                    found.add((definition["name"], name))
    return found


def check_manifests(lake, definitions=SHIPPED):
    """Every manifest has the partitions and the statistics of its files. Returns the number of bounds compared."""
    anonymized = anonymized_columns(definitions)
    bounds = 0
    files = set(pathlib.Path(lake).glob("processed/**/*.parquet"))
    for manifest in commit_records(lake):
        for item in (item for item in manifest["objects"] if item["kind"] == "processed"):
            path = pathlib.Path(lake) / item["key"]
            files.remove(path)
            meta = pyarrow.parquet.read_metadata(path)
            assert meta.created_by.split()[2] == manifest["version"], (meta.created_by, manifest["version"])
            assert (meta.num_rows, path.stat().st_size) == (item["rows"], item["bytes"]), path
            dataset = item["dataset"]
            version = manifest["definitions"][dataset]["schema_version"]
            schemas = {int(path.stem): path for path in (pathlib.Path(lake) / "_schemas" / dataset).iterdir()}
            known = {field["id"] for field in json.loads(schemas[version].read_text())["fields"]}

            dates = {key: pyarrow.int32() for key in ("year", "month", "day")}
            keys = [part.split("=")[0] for part in item["key"].split("/")[2:-1]]
            schema = pyarrow.schema([(key, dates.get(key, pyarrow.string())) for key in keys])
            parsed = pyarrow.dataset.HivePartitioning(schema).parse(str(pathlib.PurePosixPath(item["key"]).parent) + "/")
            assert pyarrow.dataset.get_partition_keys(parsed) == item["partition"], (item["key"], item["partition"])

            entries = {entry[0]: entry[1:] for entry in item["columns"]}
            assert len(entries) == len(item["columns"]), f"{path}: a column has two entries"
            leaves = leaves_of(path)
            assert len(leaves) == meta.num_columns, path
            for number, (identity, leaf) in enumerate(leaves):
                assert identity in known, f"{path}: {leaf} has an id that _schemas/ does not have"
                chunks = [meta.row_group(group).column(number) for group in range(meta.num_row_groups)]
                counts = [
                    sum(chunk.total_compressed_size for chunk in chunks),
                    sum(chunk.num_values for chunk in chunks),
                    sum(chunk.statistics.null_count for chunk in chunks),
                ]
                entry = entries.pop(identity, None)
                if counts[1] == counts[2]:
                    assert entry is None, f"{path}: {leaf} has no values"
                    continue
                assert entry[:3] == counts, f"{path}: {leaf} has {counts}, the manifest {entry}"
                if (dataset, leaf[0]) in anonymized or (dataset, f"{leaf[0]}.{leaf[-1]}") in anonymized:
                    assert len(entry) == 3, f"{path}: {leaf} is personal and has bounds"
                if len(entry) > 3:
                    check_bounds(path, leaf, entry[3:])
                    bounds += 1
            assert not entries, f"{path}: the manifest has other columns: {entries}"
    assert not files, f"no manifest names {files}"
    assert bounds, "no column has bounds"
    return bounds


def check_bounds(path, leaf, entry):
    """Bounds are the least and the greatest value; texts may be shortened to 16 characters."""
    lower, upper, shortened = entry if len(entry) == 3 else (*entry, 0)
    least, greatest = range_of(path, leaf)
    assert type(lower) is type(least), f"{path}: {leaf} is of {lower!r}, not {least!r}"
    if isinstance(least, str):
        assert lower == least[:16] and bool(shortened & 1) == (lower != least), (path, leaf, lower, least)
        assert upper is None or greatest <= upper and len(upper) <= 16, (path, leaf, upper, greatest)
        assert bool(shortened & 2) == (upper != greatest) == (len(greatest) > 16), (path, leaf, upper, greatest)
    else:
        assert (lower, upper, shortened) == (least, greatest, 0), (path, leaf, entry, least, greatest)


def check_metadata(lake):
    """Every file has provenance, statistics and a page index. Returns the number of files."""
    files = list(pathlib.Path(lake).glob("processed/**/*.parquet"))
    for path in files:
        meta = pyarrow.parquet.read_metadata(path)
        assert any(key.startswith(b"shardlake.") for key in meta.metadata), f"{path}: no provenance"
        for group in range(meta.num_row_groups):
            for column in range(meta.num_columns):
                chunk = meta.row_group(group).column(column)
                assert chunk.compression == "ZSTD", f"{path}: {chunk.path_in_schema} is {chunk.compression}"
                assert chunk.has_offset_index and chunk.has_column_index or chunk.num_values == 0, (
                    f"{path}: {chunk.path_in_schema} has no page index"
                )
                assert chunk.is_stats_set, f"{path}: {chunk.path_in_schema} has no statistics"
    return len(files)


def many_records(folder):
    records = folder / "records"
    records.mkdir()
    for seed in (1, 2):
        shardlake("produce", "--to", records / f"{seed}.ndjson", "--count", 15_000, "--seed", seed, "--bad-ratio", 0.01)
    shardlake("run", "--source", records, "--lake", folder / "lake", "--until-caught-up")
    found = compare(folder / "lake")
    compared = compare_with_input(found, records)
    count = sum(map(len, found.values()))
    assert count + len(list(dead_letters(folder / "lake"))) == len(list(source_lines(records)))
    check_conventions(folder / "lake")
    bounds = check_manifests(folder / "lake")
    files = check_metadata(folder / "lake")
    return f"{count:,} rows agree, {compared:,} compared with the input, {files} files, {bounds:,} bounds"


def small_files(folder):
    """Forty files of a few rows: most columns have no value at all in most of them."""
    for seed in range(40):
        records = folder / f"records-{seed}"
        records.mkdir()
        shardlake("produce", "--to", records / "one.ndjson", "--count", 8, "--seed", seed, "--bad-ratio", 0)
        shardlake("run", "--source", records, "--lake", folder / "lake", "--until-caught-up")
    # Each file is a stream of its own, and all shards have one name.
    found = compare(folder / "lake", STREAM_KEYS)
    bounds = check_manifests(folder / "lake")
    return f"{sum(map(len, found.values())):,} rows agree, {check_metadata(folder / 'lake')} files, {bounds:,} bounds"


def escaped_partitions(folder):
    """Partition values that can't name a folder as they are."""
    kinds = ["a/b", "50%", "x=y", "with space", "ü", "日本", ".hidden", "_under", "..", "a:b*c?", "1", "true", "null"]
    records = folder / "records"
    records.mkdir()
    with open(records / "escaped.ndjson", "w", encoding="utf-8") as file:
        for number, kind in enumerate(kinds):
            record = {"id": f"a{number}", "user_id": "u", "type": kind, "timestamp": "2025-01-15T12:00:00Z", "score": 1.5}
            file.write(json.dumps(record, ensure_ascii=number % 2 == 0) + "\n")
    shardlake("run", "--source", records, "--lake", folder / "lake", "--until-caught-up")
    found = {row["assessment_id"]: row["type"] for row in compare(folder / "lake")["assessments"]}
    assert found == {f"a{number}": kind for number, kind in enumerate(kinds)}, found
    check_manifests(folder / "lake")
    return f"{len(kinds)} values read back"


DEFINITION = """
name = "orders"
[[recognize]]
present = ["/order"]
[event_time]
pointer = "/at"
"""


def changed_definitions(folder):
    """A column keeps its id while others come and go; another type is refused; times are kept to the microsecond."""
    lake = folder / "lake"
    at = datetime.datetime(2025, 1, 15, 23, 59, 59, 123456, datetime.timezone.utc)
    versions = [
        {"order": "string", "at": "timestamp", "amount": "int32", "note": "string"},
        {"order": "string", "at": "timestamp", "tags": "list"},
        {"order": "string", "at": "timestamp", "amount": "int32", "note": "string", "tags": "list"},
    ]
    ids, files = {}, set()
    for number, columns in enumerate(versions):
        text = DEFINITION
        for name, kind in columns.items():
            element = 'element = "string"\n' if kind == "list" else ""
            text += f'[[column]]\nname = "{name}"\npointer = "/{name}"\ntype = "{kind}"\n{element}'
        (folder / "orders.toml").write_text(text)
        (folder / "shardlake.toml").write_text('[[dataset]]\nfile = "orders.toml"\n')
        records = folder / f"records-{number}"
        records.mkdir()
        record = {"order": "o", "at": at.isoformat().replace("+00:00", "789Z"), "amount": number, "note": "n", "tags": ["t"]}
        (records / "one.ndjson").write_text(json.dumps(record) + "\n")
        shardlake("run", "--config", folder / "shardlake.toml", "--source", records, "--lake", lake, "--until-caught-up")
        written = set(lake.glob("processed/orders/**/*.parquet")) - files
        files |= written
        (path,) = written
        fields = [found for field in pyarrow.parquet.read_schema(path) for found in fields_of(field)]
        for identity, parent, name, kind in fields:
            assert ids.setdefault((name, parent, str(kind)), identity) == identity, (name, identity, ids)
        assert len(set(ids.values())) == len(ids), f"an id means two fields: {ids}"
        found = {
            "DuckDB": connect().execute(f"SELECT \"at\" FROM '{path}'").fetchone()[0],
            "pyarrow": pyarrow.parquet.read_table(path, columns=["at"])["at"][0].as_py(),
            "Polars": polars.read_parquet(path, columns=["at"])["at"][0],
        }
        assert all(time == at for time in found.values()), found
    (folder / "orders.toml").write_text(text.replace("int32", "int64"))
    refused = subprocess.run([binary(), "run", "--config", folder / "shardlake.toml", "--source", folder / "records-0",
                              "--lake", lake, "--until-caught-up"], capture_output=True, text=True)
    assert refused.returncode == 2 and "int32 in the lake and int64 in the definition" in refused.stderr, refused
    (folder / "orders.toml").write_text(text)
    # The options by which each reader unifies the files of all definitions (docs/datasets.md).
    everything = f"{lake}/processed/orders/**/*.parquet"
    counts = {
        "DuckDB": connect().execute(f"SELECT count(\"order\") FROM read_parquet('{everything}', union_by_name = true)").fetchone()[0],
        "pyarrow": pyarrow.dataset.dataset(f"{lake}/processed/orders", partitioning="hive").to_table().num_rows,
        "Polars": polars.scan_parquet(everything, missing_columns="insert", extra_columns="ignore").collect().height,
    }
    assert set(counts.values()) == {len(versions)}, counts
    check_conventions(lake)
    check_manifests(lake, [folder / "orders.toml"])
    return f"{len(ids)} fields have ids of their own in {len(files)} files of {len(versions)} definitions"


def decimals(folder):
    """Decimals are exact in every reader and in the manifest, whether they come as numbers or as texts."""
    lake, records = folder / "lake", folder / "records"
    digits = {"price": (12, 2), "rate": (9, 9), "count": (18, 0)}
    text = DEFINITION
    for name, (precision, scale) in digits.items():
        text += f'[[column]]\nname = "{name}"\npointer = "/{name}"\ntype = "decimal({precision},{scale})"\n'
    (folder / "orders.toml").write_text(text)
    (folder / "shardlake.toml").write_text('[[dataset]]\nfile = "orders.toml"\n')
    rows = [
        ("4503599627.37", "0.1", "9007199254740993"),
        ("-9999999999.99", "-0.999999999", "-999999999999999999"),
        ('"0.30"', "1e-9", "1E17"),
    ]
    records.mkdir()
    with open(records / "one.ndjson", "w") as file:
        for price, rate, count in rows:
            line = f'"order":"o","at":"2025-01-15T12:00:00Z","price":{price},"rate":{rate},"count":{count}'
            file.write("{" + line + "}\n")
    shardlake("run", "--config", folder / "shardlake.toml", "--source", records, "--lake", lake, "--until-caught-up")
    expected = [tuple(decimal.Decimal(value.strip('"')) for value in row) for row in rows]
    for row in compare(lake)["orders"]:
        assert tuple(row[name] for name in digits) == expected.pop(0), row
    (path,) = lake.glob("processed/orders/**/*.parquet")
    schema = pyarrow.parquet.read_schema(path)
    found = {name: (schema.field(name).type.precision, schema.field(name).type.scale) for name in digits}
    assert found == digits and not expected, found
    check_conventions(lake)
    return f"{check_manifests(lake, [folder / 'orders.toml'])} bounds"


def main():
    print(f"DuckDB {duckdb.__version__}, pyarrow {pyarrow.__version__}, Polars {polars.__version__}")
    for check in (many_records, small_files, escaped_partitions, changed_definitions, decimals):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{check.__name__}: {check(pathlib.Path(folder))}", flush=True)
    print("OK")


if __name__ == "__main__":
    main()
