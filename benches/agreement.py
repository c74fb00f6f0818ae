"""Compares the files that DuckDB and the product wrote from one input, row by row and column by column.

    python benches/agreement.py DEFINITION.toml INPUT.ndjson LAKE DUCKDB_OUT

Rows are matched by their position in the input: the product has the offset of a record's line, DuckDB its number. It prints one
line of JSON:

- `both`: the number of rows that both have;
- `only_product`, `only_duckdb`: the other rows by reason (for `only_duckdb`, the code of the product's dead letter);
- `columns`: the number of compared columns;
- `different`: the columns in which some rows differ, with their number and one pair of values;
- `parquet`, `rewritten`: the size of the product's files, and the size of the same rows in the same order and partitions, written by
  DuckDB with each version of its encodings.

The exit code is 1 if a column differs in more than 1 row of 10,000, or if either side has more than 2 % of rows that the other does
not have.
"""

import argparse
import json
import sys
import tempfile
import tomllib
from pathlib import Path

import duckdb

# Columns in which the two differ on purpose.
NOT_COMPARED = {"ingest_sequence"}
DIFFERENT_MAX = 1e-4
ALONE_MAX = 0.02


def write_lines(source, path):
    """Writes the number, the offset and the form of each line of the input, as CSV."""
    with open(source, "rb") as lines, open(path, "w") as out:
        offset = 0
        for number, line in enumerate(lines, 1):
            out.write(f"{number},{offset},{'object' if line.startswith(b'{') else 'other'}\n")
            offset += len(line)


def comparable(column, sql_type, is_json):
    """An expression that is equal if the values are: maps have no order, times have no zone, JSON has several forms."""
    if is_json:
        return f"json_normalize({column}::VARCHAR)::VARCHAR"
    if sql_type.startswith("MAP"):
        return f"list_sort(map_entries({column}))"
    if sql_type.startswith("TIMESTAMP"):
        return f"epoch_us({column})"
    return column


def size(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))


def rewrite(run, rows, partition_by):
    """The size of the same rows as DuckDB writes them."""
    partitions = ", ".join(f'"{column}"' for column in partition_by)
    run("SET preserve_insertion_order = true")
    sizes = {}
    for version in ("v1", "v2"):
        with tempfile.TemporaryDirectory() as folder:
            run(f"""COPY (FROM {rows}) TO '{folder}/out' (FORMAT parquet, PARTITION_BY ({partitions}), COMPRESSION zstd,
                COMPRESSION_LEVEL 1, PARQUET_VERSION {version})""")
            sizes[version] = size(folder)
    return sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for argument in ("definition", "input", "lake", "duckdb"):
        parser.add_argument(argument, type=Path)
    arguments = parser.parse_args()
    definition = tomllib.loads(arguments.definition.read_text())
    json_columns = {column["name"] for column in definition["column"] if column["type"] == "json"}
    connection = duckdb.connect()
    run = lambda sql: connection.execute(sql).fetchall()
    run("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    with tempfile.TemporaryDirectory() as folder:
        write_lines(arguments.input, f"{folder}/lines.csv")
        run(f"""CREATE TABLE lines AS FROM read_csv('{folder}/lines.csv', header = false,
            columns = {{number: 'BIGINT', start: 'BIGINT', form: 'VARCHAR'}})""")
    parquet = lambda folder: f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
    run(f"""CREATE VIEW product AS SELECT number, form, p.*
        FROM {parquet(arguments.lake / 'processed' / definition['name'])} p JOIN lines ON start = ingest_sequence::BIGINT""")
    run(f"CREATE VIEW peer AS SELECT ingest_sequence::BIGINT AS number, * FROM {parquet(arguments.duckdb)}")
    run(f"""CREATE TABLE dead_letters AS SELECT number, errorCode AS code FROM read_json(
        '{arguments.lake}/error/**/*.json.gz', columns = {{errorCode: 'VARCHAR', sequenceNumber: 'BIGINT'}},
        hive_partitioning = false) JOIN lines ON start = sequenceNumber""")

    [(both,)] = run("SELECT count(*) FROM product SEMI JOIN peer USING (number)")
    alone = """SELECT reason, count(*) FROM (SELECT {reason} AS reason FROM {mine} m ANTI JOIN {theirs} t USING (number))
        GROUP BY 1 ORDER BY 2 DESC"""
    wrapped = "CASE form WHEN 'other' THEN 'wrapped in base64' ELSE 'other' END"
    only_product = dict(run(alone.format(reason=wrapped, mine="product", theirs="peer")))
    dead = "coalesce((SELECT any_value(code) FROM dead_letters l WHERE l.number = m.number), 'no dead letter')"
    only_duckdb = dict(run(alone.format(reason=dead, mine="peer", theirs="product")))

    types = lambda view: {row[0]: row[1] for row in run(f"DESCRIBE {view}") if row[0] not in ("number", "form")}
    product, peer = types("product"), types("peer")
    columns = sorted((product.keys() & peer.keys()) - NOT_COMPARED)
    sides = lambda c: [
        comparable(f'{side}."{c}"', types_of[c], c in json_columns) for side, types_of in (("p", product), ("d", peer))
    ]
    counts = ", ".join("count(*) FILTER ({} IS DISTINCT FROM {})".format(*sides(c)) for c in columns)
    [found] = run(f"SELECT {counts} FROM product p JOIN peer d USING (number)")
    different = {}
    for column, count in zip(columns, found):
        if count:
            left, right = sides(column)
            [pair] = run(f"""SELECT {left}::VARCHAR, {right}::VARCHAR FROM product p JOIN peer d USING (number)
                WHERE {left} IS DISTINCT FROM {right} LIMIT 1""")
            different[column] = {"rows": count, "product": pair[0], "duckdb": pair[1]}
    files = arguments.lake / "processed" / definition["name"]
    missing = sorted(product.keys() ^ peer.keys())
    print(json.dumps({
        "both": both, "only_product": only_product, "only_duckdb": only_duckdb,
        "columns": len(columns), "only_one_has": missing, "different": different,
        "parquet": size(files), "rewritten": rewrite(run, parquet(files), definition["partition_by"]),
    }))
    alone_rows = max(sum(only_product.values()), sum(only_duckdb.values()))
    too_different = any(entry["rows"] > both * DIFFERENT_MAX for entry in different.values())
    sys.exit(1 if missing or too_different or alone_rows > both * ALONE_MAX else 0)


if __name__ == "__main__":
    main()
