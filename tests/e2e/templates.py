"""The CloudFormation templates in deploy/: linted, generated parts up to date, and in agreement with the worker.

    python -m e2e.templates            needs requirements-templates.txt, and the binary (SHARDLAKE_BIN)

Owns: cfn-lint, checkov, a linter of policies (parliament), the tables against `shardlake schema`, and what templates say twice or
rely on: log messages, times, columns, queries. Does not own: whether the policies suffice (tests/integration/aws/least_privilege.rs),
deploying them (`stack_template.py`).
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

import parliament
import sqlglot

from e2e.common import session
from e2e.common.binary import ROOT, binary, shardlake
from e2e.common.cloudformation import Template

DEPLOY = ROOT / "deploy"
NAMES = ["lake", "worker", "watch", "analytics"]
# Actions without resources, and what AWS documents with `*`.
WITHOUT_RESOURCE = {"ecr:GetAuthorizationToken"}
# What the templates are resolved with: every option on.
EVERYTHING = {
    "lake": {
        "BucketName": "the-lake", "LakePrefix": "prod/", "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/lake",
        "RawLanding": "firehose-stream", "MessagingEvents": "true", "RequestMetrics": "true", "Inventory": "true",
        "PinpointApplicationId": "0123456789abcdef0123456789abcdef", "RawExpirationDays": "400", "ErrorExpirationDays": "90",
    },
    "worker": {
        "BucketName": "the-lake", "LakePrefix": "prod/", "ReadMode": "fan-out", "RawTo": "firehose", "ObjectTags": "true",
        "SourceBucketName": "old-events", "SourcePrefix": "2024/",
        "CreatesTable": "true", "Image": "shardlake:1", "VpcId": "vpc-01234567", "SubnetIds": "subnet-01234567",
        "RouteTableIds": "rtb-01234567", "LakeKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/lake",
        "StreamKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/stream",
        "SecretKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/secret",
        "PseudonymKeySecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:pseudonyms-AbCdEf",
    },
    "watch": {"BucketName": "the-lake", "LakePrefix": "prod/", "LogGroupName": "/shardlake/worker", "Email": "a@example.com"},
    "analytics": {
        "BucketName": "the-lake", "LakePrefix": "prod/", "CreateCrawler": "true", "ManifestKey": "quicksight/manifest.json",
        "LakeKmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/lake",
        "QuickSightPrincipalArn": "arn:aws:quicksight:us-east-1:123456789012:user/default/someone",
    },
}


def tool(name):
    """A command of this environment."""
    return str(pathlib.Path(sys.executable).parent / name)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def check_cfn_lint(log):
    code, output, errors = run(tool("cfn-lint"), *[DEPLOY / f"{name}.yaml" for name in NAMES])
    assert code == 0, f"cfn-lint:\n{output}{errors}"
    log(f"cfn-lint finds nothing in {len(NAMES)} templates")


def check_checkov(log):
    """No failed check; each skipped one has its reason, and would fail otherwise."""
    _, output, errors = run(tool("checkov"), "-d", DEPLOY, "--framework", "cloudformation", "--skip-download", "-o", "json")
    assert output.startswith("{"), f"checkov:\n{output}{errors}"
    found = json.loads(output)
    failed = [f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in found["results"]["failed_checks"]]
    assert not failed and found["summary"]["parsing_errors"] == 0, f"checkov:\n{json.dumps(failed, indent=1)}"
    skipped = {(check["resource"].split(".")[-1], check["check_id"]) for check in found["results"]["skipped_checks"]}
    written = set()
    for name in NAMES:
        for resource, content in Template(DEPLOY / f"{name}.yaml").resources.items():
            for skip in content.get("Metadata", {}).get("checkov", {}).get("skip", []):
                assert len(skip["comment"].split()) > 4, f"{resource}: a skip needs its reason: {skip}"
                written.add((resource, skip["id"]))
    assert written == skipped, f"skips that change nothing: {written - skipped}; without a reason: {skipped - written}"
    log(f"checkov: {found['summary']['passed']} checks pass, {len(skipped)} are skipped with their reasons")


def policies(name):
    """(resource, policy, whether it belongs to a resource) of a template, with every option on."""
    template = Template(DEPLOY / f"{name}.yaml", EVERYTHING[name])
    for resource, content in template.resolved().items():
        properties = content.get("Properties", {})
        for policy in properties.get("Policies", []):
            yield resource, policy["PolicyDocument"], False
        if "PolicyDocument" in properties:
            yield resource, properties["PolicyDocument"], content["Type"] != "AWS::IAM::ManagedPolicy"
        if "AssumeRolePolicyDocument" in properties:
            yield resource, properties["AssumeRolePolicyDocument"], True


def check_policies(log):
    count = 0
    for name in NAMES:
        for resource, document, of_resource in policies(name):
            place, count = f"{name}.yaml, {resource}", count + 1
            for statement in document["Statement"]:
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                resources = statement.get("Resource", [])
                resources = resources if isinstance(resources, list) else [resources]
                if statement["Effect"] == "Deny":
                    continue
                wild = [action for action in actions if "*" in action]
                assert not wild, f"{place}: a wildcard of actions: {wild}"
                assert "*" not in resources or set(actions) <= WITHOUT_RESOURCE, f"{place}: any resource: {actions}"
                if statement.get("Principal") == "*":
                    assert "Condition" in statement or actions == ["s3:GetObject"], f"{place}: any principal: {statement}"
            if of_resource:
                continue
            analyzed = parliament.analyze_policy_string(json.dumps(document))
            # parliament's list of actions is older than some of them; an unknown one is found by the proof of least privilege.
            findings = [str(finding) for finding in analyzed.findings if finding.issue not in {"RESOURCE_STAR"}]
            assert not findings, f"{place}: {findings}"
    log(f"parliament finds nothing in {count} policies; none has a wildcard where AWS allows better")


def check_bucket(log):
    """What LocalStack does not keep of the bucket's settings; `stack_template.py` reads the others back."""
    bucket = Template(DEPLOY / "lake.yaml", {}).resolved()["Bucket"]["Properties"]
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": True}, rule
    (tiering,) = bucket["IntelligentTieringConfigurations"]
    assert tiering["Tierings"] == [{"AccessTier": "ARCHIVE_ACCESS", "Days": 90}, {"AccessTier": "DEEP_ARCHIVE_ACCESS", "Days": 180}]
    for choice, expected in [("GLACIER_IR", ["GLACIER_IR"]), ("none", [])]:
        rules = Template(DEPLOY / "lake.yaml", {"ProcessedArchiveClass": choice}).resolved()["Bucket"]["Properties"]
        rules = [rule for rule in rules["LifecycleConfiguration"]["Rules"] if rule.get("Prefix") == "processed/"]
        assert [move["StorageClass"] for rule in rules for move in rule["Transitions"]] == expected, rules
    log("the bucket has a bucket key and the archive tiers, and processed/ may stay readable")


def check_tables(log, folder):
    """The generated part is what the definitions say, and equals what `schema --format glue` prints."""
    printed = shardlake("schema", "--format", "cloudformation", "--into", DEPLOY / "analytics.yaml", "--check")
    assert "up to date" in printed, printed
    # The check itself: another template is stale.
    stale = folder / "stale.yaml"
    text = (DEPLOY / "analytics.yaml").read_text()
    stale.write_text(text.replace("projection.month.range", "projection.month.rang", 1))
    code, output, _ = run(binary(), "schema", "--format", "cloudformation", "--into", stale, "--check")
    assert code == 1 and "stale" in output, (code, output)
    shardlake("schema", "--format", "cloudformation", "--into", stale)
    assert stale.read_text() == text
    template = Template(DEPLOY / "analytics.yaml", EVERYTHING["analytics"])
    resources = template.resolved()
    tables = {name: content["Properties"]["TableInput"] for name, content in resources.items()
              if content["Type"] == "AWS::Glue::Table"}
    names = {table["Name"] for table in tables.values()}
    assert {"assessments", "events", "users"} <= names, names
    for table in tables.values():
        expected = json.loads(shardlake("schema", table["Name"], "--format", "glue", "--lake", "s3://the-lake/prod"))
        assert table == expected, (table, expected)
    projected = [table["Name"] for table in tables.values() if table["Parameters"].get("projection.enabled") == "true"]
    crawled = resources["Crawler"]["Properties"]["Targets"]["CatalogTargets"][0]["Tables"]
    by_logical_name = {name: table["Name"] for name, table in tables.items()}
    crawled = {by_logical_name.get(name, name) for name in crawled}
    assert crawled == names - set(projected), f"the crawler has {crawled}, projected are {projected}"
    check_data_set(resources["AssessmentsDataSet"], next(table for table in tables.values() if table["Name"] == "assessments"))
    log(f"{len(tables)} tables are up to date and equal the Glue schemas; {len(projected)} have projected partitions")


def check_data_set(data_set, table):
    """QuickSight's columns are the table's, with the types that QuickSight reads from Athena."""
    kinds = {"string": "STRING", "int": "INTEGER", "bigint": "INTEGER", "double": "DECIMAL", "date": "DATETIME",
             "timestamp": "DATETIME"}
    columns = {column["Name"]: kinds.get(column["Type"])
               for column in table["StorageDescriptor"]["Columns"] + table["PartitionKeys"]}
    relational = next(iter(data_set["Properties"]["PhysicalTableMap"].values()))["RelationalTable"]
    for column in relational["InputColumns"]:
        assert columns.get(column["Name"]) == column["Type"], f"{column} in the data set, {columns.get(column['Name'])} in the table"


def check_queries(log):
    resources = Template(DEPLOY / "analytics.yaml", EVERYTHING["analytics"]).resolved()
    tables = {content["Properties"]["TableInput"]["Name"]: content["Properties"]["TableInput"]
              for content in resources.values() if content["Type"] == "AWS::Glue::Table"}
    queries = [content["Properties"]["QueryString"] for content in resources.values()
               if content["Type"] == "AWS::Athena::NamedQuery"]
    for query in queries:
        (parsed,) = [statement for statement in sqlglot.parse(query, dialect="athena") if statement]
        (name,) = [table.name for table in parsed.find_all(sqlglot.exp.Table)]
        known = {column["Name"] for column in tables[name]["StorageDescriptor"]["Columns"] + tables[name]["PartitionKeys"]}
        known |= {alias.alias for alias in parsed.find_all(sqlglot.exp.Alias)}
        used = {column.name for column in parsed.find_all(sqlglot.exp.Column)}
        assert used <= known, f"no such columns in {name}: {used - known}"
        partitions = {column["Name"] for column in tables[name]["PartitionKeys"]}
        assert used & partitions, f"the query reads the whole table:\n{query}"
    log(f"{len(queries)} named queries are in Athena's dialect, and of columns that exist")


# ── What the worker must do for the templates to work ────────────────────────────────────────────────────────────────────────────────


def clauses(pattern):
    """The conditions of a metric filter: [(path, text)] of which any must hold."""
    found = re.findall(r"\$\.([\w.]+) = \"([^\"]*)\"", pattern)
    assert found and len(found) == pattern.count(" = "), pattern
    return found


def matches(line, pattern):
    def at(path):
        value = line
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def holds(path, text):
        value = at(path)
        return isinstance(value, str) and (value.startswith(text[:-1]) if text.endswith("*") else value == text)

    return any(holds(path, text) for path, text in clauses(pattern))


def check_log_filters(log, folder):
    """A worker's JSON logs have the lines and numbers that the metric filters search for; the rarer messages are in the source."""
    source = folder / "in"
    source.mkdir()
    good = [f'{{"id":"a{n}","user_id":"u{n}","type":"skills","score":{n},"timestamp":"2025-01-02T10:00:00Z"}}' for n in range(7)]
    (source / "a.ndjson").write_text("\n".join([*good, "not json", "{}"]) + "\n")
    done = subprocess.run(
        [binary(), "run", "--source", "in", "--lake", "lake", "--until-caught-up", "--log-format", "json"], cwd=folder,
        capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin", "RUST_LOG": "shardlake=info,warn"})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    filters = {name: content["Properties"]
               for name, content in Template(DEPLOY / "watch.yaml", EVERYTHING["watch"]).resolved().items()
               if content["Type"] == "AWS::Logs::MetricFilter"}
    sums = {}
    for name, properties in filters.items():
        value = properties["MetricTransformations"][0]["MetricValue"]
        for line in lines:
            if matches(line, properties["FilterPattern"]):
                sums[name] = sums.get(name, 0) + (float(value) if not value.startswith("$") else line["fields"][value.split(".")[-1]])
    assert sums == {"CommittedRecords": 9, "DeadLetters": 2}, (sums, lines)
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    for properties in filters.values():
        for path, text in clauses(properties["FilterPattern"]):
            assert path == "level" or f'"{text.rstrip("*")}' in code, f"no log message begins with {text!r}"
    log(f"{len(filters)} metric filters match a worker's logs: {sums}")


def check_task(log, folder):
    """The task definition agrees with the Dockerfile, and its configuration is one that the worker accepts."""
    resolved = Template(DEPLOY / "worker.yaml", EVERYTHING["worker"]).resolved()
    task = resolved["TaskDefinition"]["Properties"]
    (container,) = task["ContainerDefinitions"]
    dockerfile = (ROOT / "Dockerfile").read_text().split("AS worker")[1]
    assert f"USER {container['User']}" in dockerfile and "STOPSIGNAL SIGTERM" in dockerfile
    health = json.loads(re.search(r"HEALTHCHECK.* CMD (\[.*\])", dockerfile).group(1))
    assert ["CMD", *health] == container["HealthCheck"]["Command"], (health, container["HealthCheck"])
    # It is a command that the worker's image has, and nobody listens here.
    asked = subprocess.run([binary(), *health[1:], "--json", "--url", "http://127.0.0.1:1"], capture_output=True, text=True)
    assert health[0] == "shardlake" and asked.returncode == 1 and json.loads(asked.stdout)["ok"] is False, asked
    for mount in container["MountPoints"]:
        assert f'VOLUME ["{mount["ContainerPath"]}"]' in dockerfile, mount
    settings = {entry["Name"]: entry["Value"] for entry in container["Environment"]}
    text = settings["SHARDLAKE_CONFIG"]
    within = int(re.search(r'within = "(\d+)s"', text).group(1))
    assert within + 5 <= container["StopTimeout"] <= 120, "ECS ends the task before the worker's own time is over"
    for options in [{}, {"ReadMode": "fan-out"}, {"RawTo": "firehose"}, {"RawTo": "off"}, {"LakePrefix": ""}]:
        parameters = {**EVERYTHING["worker"], "ReadMode": "polling", "RawTo": "lake", **options}
        task = Template(DEPLOY / "worker.yaml", parameters).resolved()["TaskDefinition"]["Properties"]
        settings = {entry["Name"]: entry["Value"] for entry in task["ContainerDefinitions"][0]["Environment"]}
        (folder / "task.toml").write_text(settings["SHARDLAKE_CONFIG"])
        checked = json.loads(shardlake("config", "check", "--offline", "--json", "--config", folder / "task.toml"))
        assert checked["ok"] if "ok" in checked else checked, checked
    (command,) = container["Command"]
    assert container["EntryPoint"] == ["/bin/sh", "-ec"] and "exec shardlake run " in command
    log("the task definition agrees with the Dockerfile, and the worker accepts its configuration in every form")


def check_sweep(log, folder):
    """The scheduled task runs a command that exists, with options that it has. Here it sweeps the lake that `check_log_filters` made."""
    task = Template(DEPLOY / "worker.yaml", EVERYTHING["worker"]).resolved()["SweepTask"]["Properties"]
    (container,) = task["ContainerDefinitions"]
    here = {"s3://the-lake/prod/": folder / "lake", "dynamodb://shardlake-leases": f"sqlite://{folder}/lake/_checkpoints.db"}
    command = [here.get(word, word) for word in container["Command"]]
    assert container["EntryPoint"] == ["shardlake"] and not set(here) & set(command), command
    swept = json.loads(shardlake(*command))
    assert swept["uploads"] == swept["intents"] == 0, swept
    off = Template(DEPLOY / "worker.yaml", {**EVERYTHING["worker"], "SweepSchedule": ""}).resolved()
    assert not [name for name in off if name.startswith("Sweep")], "an empty schedule must leave the task out"
    log("the scheduled sweep is a command that the worker's image has")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder")
    args = arguments.parse_args()
    log = session.Log()

    def work(folder):
        check_cfn_lint(log)
        check_policies(log)
        check_bucket(log)
        check_tables(log, folder)
        check_queries(log)
        check_log_filters(log, folder)
        check_task(log, folder)
        check_sweep(log, folder)
        check_checkov(log)

    session.in_folder(args, "templates", work)


if __name__ == "__main__":
    main()
