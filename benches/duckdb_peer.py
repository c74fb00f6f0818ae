"""DuckDB does what the product does: this program turns a dataset's definition into one COPY statement, and runs it.

    python benches/duckdb_peer.py pipeline/datasets/events.toml INPUT.ndjson OUT_DIR --key-file KEY [--threads 1]

It prints one line of JSON: `rows`, `cpu_seconds` and `wall_seconds` of the statement alone, `version`. `--print` shows the SQL.

The SQL is made from the definition, so that both sides always write the same columns. It should be as good as an expert's:

- column types are explicit, so that only the fields that are read are built;
- the endpoint's document is parsed once, by one `json_transform`;
- constraints are in a filter below all projections;
- classes of characters are matched as `[…]+` beside a length check, because RE2 is twenty times slower on `[…]{1,64}` with
  Unicode classes;
- allow-listed maps are one list of entries; HMAC is two `sha256` over padded keys.

docs/benchmarks.md lists what was tried and was not faster. What it leaves out is in DuckDB's favour:

- Bad records vanish without a reason, a position or a copy. Some are accepted: duplicate keys, a wrong type in a text field
  (it lands as JSON text), a wrong or too large number in an optional field (null), the neighbours of half a surrogate pair.
  `benches/agreement.py` counts them.
- Records wrapped in base64 (1 % of the events) are not read: `read_ndjson` skips them as bad.
- One document with more than 127 levels of nesting ends the whole query, even with `ignore_errors`. Such lines are replaced in its
  copy of the input (`compare.py`).
- `ingest_sequence` is the line's number (a streaming window, on one thread only), not its offset; it is null on two threads.
- Constraints on fields inside the endpoint's document are not checked, and IPv6 networks are cut from the text.
- No bloom filter on pseudonyms, no provenance, no commit.
"""

import argparse
import hashlib
import json
import re
import sys
import time
import tomllib
from pathlib import Path

SCALARS = {"string": "VARCHAR", "int32": "BIGINT", "int64": "BIGINT", "float64": "DOUBLE", "bool": "BOOLEAN"}
HOUR_MS = 3_600_000


def text(value):
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def name(value):
    """A quoted identifier."""
    return '"' + value.replace('"', '""') + '"'


def keys(pointer):
    """The keys of a JSON Pointer."""
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]


class Tree:
    """The fields that are read, with their SQL types: nested dicts of strings."""

    def __init__(self):
        self.fields = {}

    def plant(self, path, sql_type):
        fields = self.fields
        for key in path[:-1]:
            fields = fields.setdefault(key, {})
        fields.setdefault(path[-1], sql_type)

    @staticmethod
    def sql_type(fields):
        if isinstance(fields, str):
            return fields
        return "STRUCT(" + ", ".join(f"{name(key)} {Tree.sql_type(inner)}" for key, inner in fields.items()) + ")"


class Query:
    """The statement for one dataset. `key` is the pseudonym key; the name and time of the file `original` land."""

    def __init__(self, definition, key, original, sequence=True):
        self.definition = definition
        self.original = original.resolve()
        self.arrival_ms = original.stat().st_mtime_ns // 1_000_000
        self.sequence = sequence
        self.record = Tree()
        self.embedded = {pointer: Tree() for pointer in definition.get("embedded", [])}
        self.conditions = []
        block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        pad = lambda byte: "'" + "".join(f"\\x{each ^ byte:02X}" for each in block) + "'::BLOB"
        self.inner_pad, self.outer_pad = pad(0x36), pad(0x5C)

    # --- fields -----------------------------------------------------------------------------------------------------

    def field(self, pointer, sql_type):
        """The expression for a field of the record, which is then read."""
        for number, (document, tree) in enumerate(self.embedded.items()):
            if pointer.startswith(document + "/"):
                self.record.plant(keys(document), "VARCHAR")
                path = keys(pointer[len(document):])
                tree.plant(path, sql_type)
                return f"embedded_{number}." + ".".join(map(name, path))
        path = keys(pointer)
        self.record.plant(path, sql_type)
        return ".".join(map(name, path))

    def require(self, condition, field):
        if not field.startswith("embedded_"):
            self.conditions.append(condition)

    def constrain(self, column, field):
        """Adds the constraints of a column. A comparison with null is null, so optional fields have an alternative."""
        required = column.get("required", False)
        low, high = column.get("min"), column.get("max")
        if column["type"] == "int32":
            low, high = (-(2**31) if low is None else low), (2**31 - 1 if high is None else high)
        bounds = [f"{field} >= {low}"] * (low is not None) + [f"{field} <= {high}"] * (high is not None)
        shortest, longest = column.get("min_length"), column.get("max_length")
        bounds += [f"length({field}) >= {shortest}"] * (shortest is not None)
        bounds += [f"length({field}) <= {longest}"] * (longest is not None)
        if bounds:
            both = " AND ".join(bounds)
            self.require(f"({both})" if required else f"({field} IS NULL OR ({both}))", field)
        elif required:
            self.require(f"{field} IS NOT NULL", field)

    # --- values -----------------------------------------------------------------------------------------------------

    def landing(self, rules, field):
        """The expression for the value that lands."""
        rule = rules.get("anonymize", {})
        match rule.get("rule"):
            case "pseudonym":
                inner = f"unhex(sha256({self.inner_pad} || encode({field})))"
                return f"left(sha256({self.outer_pad} || {inner}), 32)"
            case "match":
                return f"CASE WHEN {matches(field, rule['pattern'])} THEN {field} END"
            case "age_band":
                return age_band(field, rule["bands"])
            case "region":
                return region(field, rule["keep"])
            case "truncate_ip":
                return network(field)
            case None:
                return moment(field, rules.get("format")) if rules["type"] == "timestamp" else cast(rules, field)
            case other:
                raise NotImplementedError(f"rule {other}")

    def column(self, column):
        """The expression of a column of the definition."""
        if column.get("from") == "event_time":
            return f"{self.event_time}::{'DATE' if column['type'] == 'date32' else 'TIMESTAMP'}"
        if column.get("from") == "unknown_fields":
            return self.collected(column["allow"])
        if column["type"] == "map":
            return self.map(column)
        if column["type"] == "list":
            return self.list(column)
        banded = column.get("anonymize", {}).get("rule") == "age_band"
        field = self.field(column["pointer"], "BIGINT" if banded else scalar_type(column))
        self.constrain(column, field)
        return self.landing(column, field)

    def collected(self, allow):
        """Top-level fields without a column, as one JSON object. Absent fields are left out, not null."""
        fields = {key: self.field("/" + key, "JSON") for key in allow}
        members = ", ".join(f"{text(json.dumps(key) + ':')} || {field}" for key, field in fields.items())
        none = " AND ".join(f"{field} IS NULL" for field in fields.values())
        return f"CASE WHEN NOT ({none}) THEN '{{' || concat_ws(',', {members}) || '}}' END"

    def map(self, column):
        """The allowed keys that have no column of their own, as a map without absent keys."""
        own = {other.get("pointer") for other in self.definition["column"]}
        rules = {"type": column["value"], "anonymize": column.get("anonymize", {})}
        entries = []
        for key in column["allow"]:
            pointer = f"{column['pointer']}/{key}"
            if pointer not in own:
                field = self.field(pointer, SCALARS[column["value"]])
                entry = f"{{'key': {text(key)}, 'value': {self.landing(rules, field)}}}"
                entries.append(f"CASE WHEN {field} IS NOT NULL THEN {entry} END")
                above = field.removesuffix("." + name(key))
        present = f"list_filter([{', '.join(entries)}], lambda e: e IS NOT NULL)"
        return f"CASE WHEN {above} IS NOT NULL THEN map_from_entries({present}) END"

    def list(self, column):
        if "field" not in column:
            field = self.field(column["pointer"], SCALARS[column["element"]] + "[]")
            return f"list_transform({field}, lambda e: {self.landing({**column, 'type': column['element']}, 'e')})"
        members = {member["name"]: SCALARS[member["type"]] for member in column["field"]}
        field = self.field(column["pointer"], Tree.sql_type(members) + "[]")
        landing = lambda member: f"{text(member['name'])}: {self.landing(member, 'e.' + name(member['name']))}"
        return f"list_transform({field}, lambda e: {{{', '.join(map(landing, column['field']))}}})"

    # --- the statement ----------------------------------------------------------------------------------------------

    def times(self):
        """Event and arrival time, and the bounds of the former."""
        event = self.definition["event_time"]
        arrival = str(self.arrival_ms)
        if "arrival_time" in self.definition:
            arrival = f"coalesce({self.field(self.definition['arrival_time']['pointer'], 'BIGINT')}, {arrival})"
        first, latest = f"TIMESTAMP {text(event['not_before'])}", f"{arrival} + {event['ahead_max_hours'] * HOUR_MS}"
        if event["format"] == "epoch_ms":
            field = self.field(event["pointer"], "BIGINT")
            self.event_time = f"make_timestamp_ms({field})"
            self.conditions.append(f"{field} BETWEEN epoch_ms({first}) AND {latest}")
        else:
            field = self.field(event["pointer"], "VARCHAR")
            self.event_time = instant(field)
            self.conditions.append(f"{self.event_time} BETWEEN {first} AND make_timestamp_ms({latest})")
            # DuckDB also accepts times without an offset.
            self.conditions.append(f"({field}[-1] IN ('Z', 'z') OR regexp_matches({field}, '[+-]\\d\\d:\\d\\d$'))")
        return f"make_timestamp_ms({arrival})::TIMESTAMP"

    def select(self, source):
        """The SELECT over a file."""
        definition = self.definition
        arrival_time = self.times()
        columns = {}
        for column in definition["column"]:
            if column.get("anonymize", {}).get("rule") != "drop":
                columns[column["name"]] = self.column(column)
        parts = {"year": "%Y", "month": "%m", "day": "%d"}
        for part in definition["partition_by"]:
            if part in parts:
                columns[part] = f"strftime({self.event_time}, {text(parts[part])})"
        columns["ingest_stream"] = text(f"file://{self.original}")
        columns["ingest_shard"] = text(self.original.name)
        columns["ingest_sequence"] = "line::VARCHAR" if self.sequence else "NULL::VARCHAR"
        columns["ingest_subsequence"] = "0::BIGINT"
        columns["ingest_arrival_time"] = arrival_time
        embedded = []
        for number, (pointer, tree) in enumerate(self.embedded.items()):
            field = ".".join(map(name, keys(pointer)))
            self.conditions.append(f"({field} IS NULL OR {field} = '' OR json_valid({field}))")
            embedded.append(f"json_transform(nullif({field}, ''), {text(json.dumps(tree.fields))}) AS embedded_{number}")
        types = ", ".join(f"{text(key)}: {text(Tree.sql_type(inner))}" for key, inner in self.record.fields.items())
        read = f"read_ndjson({text(str(source))}, columns = {{{types}}}, ignore_errors = true, records = true)"
        if self.sequence:
            read = f"(SELECT *, row_number() OVER () AS line FROM {read})"
        landing = ",\n  ".join(f"{expression} AS {name(column)}" for column, expression in columns.items())
        conditions = "\n  AND ".join(self.conditions)
        return f"SELECT\n  {landing}\nFROM (SELECT {', '.join(['*', *embedded])} FROM {read}\n  WHERE {conditions})"

    def copy(self, source, out):
        """The whole statement. The encodings of Parquet version 2 give smaller files, and are not slower."""
        partitions = ", ".join(map(name, self.definition["partition_by"]))
        options = f"FORMAT parquet, PARTITION_BY ({partitions}), COMPRESSION zstd, COMPRESSION_LEVEL 1, PARQUET_VERSION v2"
        return f"COPY (\n{self.select(source)}\n) TO {text(str(out))} ({options})"


def scalar_type(column):
    if column["type"] == "timestamp":
        return "BIGINT" if column.get("format") == "epoch_ms" else "VARCHAR"
    return SCALARS[column["type"]]


def cast(rules, field):
    return f"{field}::INTEGER" if rules["type"] == "int32" else field


def instant(field):
    """RFC 3339. A cast to TIMESTAMP would ignore the offset."""
    return f"make_timestamp(epoch_us(TRY_CAST({field} AS TIMESTAMPTZ)))"


def moment(field, form):
    return f"{f'make_timestamp_ms({field})' if form == 'epoch_ms' else instant(field)}::TIMESTAMP"


def matches(field, pattern):
    """A pattern of the definition. \\w is ASCII in RE2, and Unicode in the product."""
    pattern = pattern.removeprefix("^").removesuffix("$").replace(r"\w", r"\pL\pM\p{Nd}\p{Pc}")
    if counted := re.fullmatch(r"(\[[^]]+\])\{(\d+),(\d+)\}", pattern):
        characters, shortest, longest = counted.groups()
        length = f"length({field}) BETWEEN {shortest} AND {longest}"
        return f"{length} AND regexp_full_match({field}, {text(characters + '+')})"
    return f"regexp_full_match({field}, {text(pattern)})"


def age_band(field, begins):
    bands = [f"WHEN {field} < {begins[0]} THEN '0-{begins[0] - 1}'"]
    bands += [f"WHEN {field} < {end} THEN '{begin}-{end - 1}'" for begin, end in zip(begins, begins[1:])]
    return f"CASE {' '.join(bands)} WHEN {field} IS NOT NULL THEN '{begins[-1]}+' END"


def region(field, keep):
    kept = ", ".join(text(each.lower()) for each in keep)
    return (
        f"CASE WHEN trim({field}) = '' THEN NULL WHEN lower(trim({field})) IN ({kept}) THEN trim({field}) "
        f"WHEN regexp_matches(trim({field}), '^[A-Za-z]{{2}}([-_]|$)') THEN upper(left(trim({field}), 2)) "
        f"WHEN {field} IS NOT NULL THEN 'other' END"
    )


def network(field):
    """IPv4 as the product does it. IPv6 by the first three groups, which is right if these are written out."""
    return (
        f"CASE WHEN regexp_full_match({field}, '\\d{{1,3}}(\\.\\d{{1,3}}){{3}}') "
        f"THEN regexp_extract({field}, '^(.*)\\.', 1) || '.0/24' "
        f"WHEN contains({field}, ':') THEN regexp_extract({field}, '^((?:[0-9a-f]+:){{3}})', 1) || ':/48' END"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("definition", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--original", type=Path, help="the file of which INPUT is a copy")
    parser.add_argument("--print", action="store_true")
    arguments = parser.parse_args()
    definition = tomllib.loads(arguments.definition.read_text())
    key = arguments.key_file.read_bytes().rstrip(b"\r\n")
    query = Query(definition, key, arguments.original or arguments.input, sequence=arguments.threads == 1)
    statement = query.copy(arguments.input, arguments.out)
    if arguments.print:
        sys.exit(print(statement))
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {arguments.threads}; SET preserve_insertion_order = false")
    cpu, wall = time.process_time(), time.monotonic()
    [(rows,)] = connection.execute(statement).fetchall()
    spent = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.monotonic() - wall}
    print(json.dumps({"rows": rows, **spent, "version": duckdb.__version__}))


if __name__ == "__main__":
    main()
