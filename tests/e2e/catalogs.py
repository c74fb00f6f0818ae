"""Athena and Glue take every table: a parser of their dialect reads back what a definition says.

Definitions from a seed: reserved words as the names of tables, columns and fields of structs; descriptions with quotes,
backslashes, line breaks, control characters, and of any length; partitions of every kind; event times from any year. sqlglot
parses the DDL as Athena and as Hive do. What it finds is compared with the definition and with the table for Glue.

    python -m e2e.catalogs
"""

import argparse
import json
import pathlib
import random
import unicodedata

import sqlglot
from sqlglot import expressions as exp

from e2e.common import session
from e2e.common.binary import ROOT, shardlake
from e2e.common.cloudformation import Template

LAKE = "s3://the-lake/a"

# Athena's user guide, "Escape reserved keywords in queries": of DDL, then some of SELECT and of Hive.
RESERVED = """all alter and array as authorization between bigint binary boolean both by case cashe cast char column conf
constraint commit create cross cube current current_date current_timestamp cursor database date dayofweek decimal delete describe
distinct div double drop else end exchange exists extended external extract false fetch float floor following for foreign from full
function grant group grouping having if import in inner insert int integer intersect interval into is join lateral left less like
local macro map more none not null numeric of on only or order out outer over partialscan partition percent preceding precision
preserve primary procedure range reads reduce regexp references revoke right rlike rollback rollup row rows select set smallint
start table tablesample then time timestamp to transform trigger true truncate unboundedpreceding union uniquejoin unnest update
user using utc_timestamp values varchar views when where window with year month day hour comment location tblproperties stored
struct msck repair escape except first last natural normalize recursive uescape current_user localtime order_1 index key""".split()

HOSTILE = ["'", '"', "\\", "`", ";", "--", "/*", "*/", "\n", "\r\n", "\t", "\0", "\x07", "\x7f", "\u0085", "\u2028", "\u200f", "\ufeff",
           "\ufffe", "\ufdd0", "${year}", "%", "\\n", "\\'", "''", "é", "漢", "😀", "e\u0301", " ", "  ", "word", "C:\\new"]
SCALARS = {"string": "STRING", "int32": "INT", "int64": "BIGINT", "float64": "DOUBLE", "bool": "BOOLEAN", "date32": "DATE",
           "timestamp": "TIMESTAMP", "decimal(12,2)": "DECIMAL(12, 2)"}


def text(value):
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def expected_comment(description):
    """One line without control characters and noncharacters, of 255 bytes at most, cut at a character."""

    def is_gap(c):
        nonchar = ord(c) & 0xFFFF in (0xFFFE, 0xFFFF) or 0xFDD0 <= ord(c) <= 0xFDEF
        return c.isspace() or unicodedata.category(c) == "Cc" or nonchar

    line = " ".join("".join(" " if is_gap(c) else c for c in description).split(" "))
    line = " ".join(word for word in line.split(" ") if word)
    return line.encode()[:255].decode(errors="ignore").rstrip(" ")


def description(rng):
    return "".join(rng.choice(HOSTILE) for _ in range(rng.choice([0, 1, 5, 40, 200])))


class Definition:
    """A dataset, as TOML and as what the catalogs must have."""

    def __init__(self, rng, name, words):
        self.name, self.description = name, description(rng)
        self.not_before = rng.choice([1, 1970, 1999, 2009, 2010, 2026, 2150])
        self.partitions = rng.choice([["year"], ["year", "month", "day"], ["month"], ["a_text", "year"], ["year", "a_text"]])
        lines = [f"name = {text(name)}", f"description = {text(self.description)}",
                 f"partition_by = {json.dumps(self.partitions)}", "recognize = { present = [\"/at\"] }",
                 f"event_time = {{ pointer = \"/at\", not_before = \"{self.not_before:04}-01-01\" }}"]
        # name, type as sqlglot writes it, description
        self.columns = []
        for word in words:
            if word in self.partitions:
                continue
            kind, about = rng.choice(["scalar", "list", "struct", "structs", "map"]), description(rng)
            scalar = rng.choice(list(SCALARS))
            lines += ["[[column]]", f"name = {text(word)}", f"description = {text(about)}", f"pointer = \"/x/{word}\"", "personal = false"]
            members = rng.sample(words, min(3, len(words)))
            if kind == "scalar":
                lines, found = lines + [f"type = {text(scalar)}"], SCALARS[scalar]
            elif kind == "list":
                lines, found = lines + ["type = \"list\"", f"element = {text(scalar)}"], f"ARRAY<{SCALARS[scalar]}>"
            elif kind == "map":
                lines, found = lines + ["type = \"map\"", "value = \"int64\"", "allow = []"], "MAP<STRING, BIGINT>"
            else:
                lines.append(f"type = \"{'list' if kind == 'structs' else 'struct'}\"")
                for member in members:
                    lines += ["[[column.field]]", f"name = {text(member)}", f"type = {text(scalar)}", "personal = false"]
                fields = ", ".join(f"`{member}`: {SCALARS[scalar]}" for member in members)
                found = f"ARRAY<STRUCT<{fields}>>" if kind == "structs" else f"STRUCT<{fields}>"
            self.columns.append((word, found, about))
        lines += ["[[column]]", "name = \"a_text\"", "pointer = \"/t\"", "type = \"string\""]
        if "a_text" not in self.partitions:
            self.columns.append(("a_text", "STRING", ""))
        self.toml = "\n".join(lines) + "\n"


def check_athena(ddl, definition, dialect):
    statements = [found for found in sqlglot.parse(ddl, read=dialect) if not isinstance(found, (exp.Semicolon, type(None)))]
    assert len(statements) == 1, f"{len(statements)} statements in {ddl}"
    create = statements[0]
    assert isinstance(create, exp.Create) and create.kind == "TABLE", ddl
    assert create.this.this.name == definition.name and create.this.this.this.quoted, ddl
    found = []
    for column in create.this.expressions:
        assert column.this.quoted, f"{column.name} is not in backticks"
        comments = [one.kind.this.name for one in column.args.get("constraints") or []]
        found.append((column.name, column.kind.sql("hive"), comments[0] if comments else ""))
    own = found[:len(definition.columns)]
    assert [name for name, *_ in found[len(own):]] == [
        "ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "ingest_arrival_time"], found
    expected = [(name, kind, expected_comment(about)) for name, kind, about in definition.columns]
    for left, right in zip(own, expected):
        assert left == right, f"{dialect}: {left} is in the DDL, {right} in the definition"
    assert len(own) == len(expected)
    properties = {type(one): one for one in create.args["properties"].expressions if not type(one) is exp.Property}
    table = {one.name: one.args["value"].name for one in create.args["properties"].expressions if type(one) is exp.Property}
    comment = properties[exp.SchemaCommentProperty].this.name if exp.SchemaCommentProperty in properties else ""
    assert comment == expected_comment(definition.description)
    assert properties[exp.LocationProperty].this.name == f"{LAKE}/processed/{definition.name}/"
    partitions = [(one.name, one.kind.sql("hive")) for one in properties[exp.PartitionedByProperty].this.expressions]
    assert partitions == [(name, "STRING" if name == "a_text" else "INT") for name in definition.partitions], partitions
    return table


def check_glue(table, definition):
    assert table["Name"] == definition.name and table["Description"] == expected_comment(definition.description)
    storage = table["StorageDescriptor"]
    for column, (name, kind, about) in zip(storage["Columns"], definition.columns):
        comment = column["Comment"]
        assert (column["Name"], comment) == (name, expected_comment(about)), column
        assert len(comment.encode()) <= 255 and len(comment.splitlines()) < 2, column
        assert column["Type"] == kind.replace("`", "").replace(": ", ":").replace(", ", ",").lower(), (column, kind)
    return table["Parameters"]


def check_projection(properties, definition):
    """Athena derives the partitions of every year that rows may have, or none."""
    if "a_text" in definition.partitions:
        assert not any(key.startswith("projection") for key in properties), properties
    elif "year" in definition.partitions:
        first, last = map(int, properties["projection.year.range"].split(","))
        assert first == definition.not_before and last >= max(2099, first), properties


TEMPLATE = """
Parameters:
  BucketName: {Type: String}
  LakePrefix: {Type: String}
Resources:
  Database: {Type: "AWS::Glue::Database"}
  # ── Generated by shardlake schema --format cloudformation ──
  # ── End of the generated part ──
"""


def check_template(folder, glue):
    """The resource of a CloudFormation template is the same table."""
    path = folder / "template.yaml"
    path.write_text(TEMPLATE)
    shardlake("schema", "--format", "cloudformation", "--config", folder / "shardlake.toml", "--into", path)
    bucket, prefix = LAKE.removeprefix("s3://").split("/")
    resources = Template(path, {"BucketName": bucket, "LakePrefix": f"{prefix}/"}).resolved()
    tables = [content["Properties"]["TableInput"] for content in resources.values() if content["Type"] == "AWS::Glue::Table"]
    assert glue in tables, (glue, tables)


# The table of the seed document, in which `type` is a column and no partition.
SEED = {"assessment_id": "STRING", "user_id": "STRING", "type": "STRING", "score": "DOUBLE", "completion_time": "INT", "date": "DATE",
        "year": "INT", "month": "INT"}


def check_seed():
    """The shipped table has the seed's columns with their types, its format and its folder."""
    ddl = shardlake("schema", "assessments", "--lake", "s3://ioc-data-lake-prod", "--format", "athena")
    parsed = sqlglot.parse(ddl, dialect="athena")[0]
    columns = {column.name: column.args["kind"].sql("hive").upper() for column in parsed.find_all(exp.ColumnDef)}
    found = {name: columns.get(name) for name in SEED}
    assert found == SEED, found
    assert parsed.args["kind"] == "TABLE" and "STORED AS PARQUET" in ddl
    assert "LOCATION 's3://ioc-data-lake-prod/processed/assessments/'" in ddl, ddl


def check(folder, definition, in_template):
    (folder / "definition.toml").write_text(definition.toml)
    (folder / "shardlake.toml").write_text("[[dataset]]\nfile = \"definition.toml\"\n")

    def schema(form):
        return shardlake("schema", definition.name, "--config", folder / "shardlake.toml", "--lake", LAKE, "--format", form)

    ddl, glue = schema("athena"), json.loads(schema("glue"))
    if in_template:
        check_template(folder, glue)
    for dialect in ("athena", "hive"):
        properties = check_athena(ddl, definition, dialect)
        assert properties == check_glue(glue, definition), (properties, glue["Parameters"])
    check_projection(properties, definition)


# The table as the architecture has it ("Athena Configuration"). `type` is a column there. The files do not have it: it is in the path.
WRITTEN_BY_HAND = """CREATE EXTERNAL TABLE IF NOT EXISTS assessments (
  assessment_id string,
  user_id string,
  type string,
  score double,
  completion_time int,
  date date
)
PARTITIONED BY (
  year int,
  month int
)
STORED AS PARQUET
LOCATION 's3://ioc-data-lake-prod/processed/assessments/'"""


def table_of(ddl):
    """The columns, the partitions and the location of a CREATE TABLE, as Athena reads it."""
    create, = [found for found in sqlglot.parse(ddl, read="athena") if isinstance(found, exp.Create)]
    properties = {type(one): one for one in create.args["properties"].expressions if not type(one) is exp.Property}
    columns = {one.name: one.kind.sql("hive") for one in create.this.expressions}
    partitions = {one.name: one.kind.sql("hive") for one in properties[exp.PartitionedByProperty].this.expressions}
    return columns, partitions, properties[exp.LocationProperty].this.name


def check_built_in():
    golden = ROOT / "pipeline" / "tests" / "golden"
    for path in sorted(golden.glob("*.athena.sql")):
        name = path.name.split(".")[0]
        expected = path.read_text()
        location = table_of(expected)[2]
        lake = location.removesuffix(f"/processed/{name}/")
        assert lake != location, location
        found = shardlake("schema", name, "--format", "athena", "--lake", lake)
        assert found == expected, f"{path} is not what the command prints"
    by_hand, by_hand_partitions, location = table_of(WRITTEN_BY_HAND)
    columns, partitions, found = table_of(shardlake("schema", "assessments", "--format", "athena", "--lake", "s3://ioc-data-lake-prod"))
    assert found == location, found
    assert partitions.pop("type") == by_hand.pop("type") == "STRING"
    assert partitions == by_hand_partitions, partitions
    for column, kind in by_hand.items():
        assert columns.get(column) == kind, f"{column} is {columns.get(column)}, and {kind} by hand"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--definitions", type=int, default=60)
    arguments.add_argument("--folder")
    args = arguments.parse_args()
    rng, log = random.Random(args.seed), session.Log()

    def work(folder):
        words = RESERVED[:]
        rng.shuffle(words)
        check_seed()
        names = [word for word in words if word not in ("analytics", "unknown")]
        for number in range(args.definitions):
            # Every word becomes a column and a field.
            chosen = [words[(number * 7 + n) % len(words)] for n in range(12)]
            check(folder, Definition(rng, names[number * 3 % len(names)], chosen), in_template=number % 4 == 0)
        check_built_in()
        log("the built-in tables are the golden ones, and have what was written by hand")
        log(f"{args.definitions} hostile definitions are tables of Athena, Hive, Glue and CloudFormation; the seed's table is one")

    session.in_folder(args, "catalogs", work)


if __name__ == "__main__":
    main()
