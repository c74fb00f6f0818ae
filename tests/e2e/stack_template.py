"""The templates deployed by CloudFormation on the local stack, a worker on what they made, and its output read by DuckDB.

    localstack/run python -m e2e.stack_template [--records 1200]

- `lake.yaml` with `Local=true`, which leaves out what LocalStack lacks, and `worker.yaml` without its service are deployed.
- The bucket's settings are those of the template, and the lease table is as a worker makes one.
- Workers run with the very configuration of the task definition: the raw landing first in the lake, then through Data Firehose.
- `verify` finds no fault, each record is one row or one dead letter, and the named queries of `analytics.yaml` run in DuckDB.

Does not own: linting (`templates.py`), or whether the roles suffice (tests/integration/aws/least_privilege.rs).
"""

import argparse
import collections
import gzip
import json
import subprocess
import uuid

import boto3
import sqlglot

from e2e.common import binary, lake as lakes, session
from e2e.common.binary import ROOT, shardlake
from e2e.common.cloudformation import Template

DEPLOY = ROOT / "deploy"
ACCOUNT = "000000000000"


def deploy(cloudformation, template, stack, parameters):
    """Creates a stack, and returns its outputs."""
    cloudformation.create_stack(
        StackName=stack, TemplateBody=(DEPLOY / f"{template}.yaml").read_text(), Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()])
    state = {}

    def ended():
        (state["stack"],) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        return not state["stack"]["StackStatus"].endswith("_IN_PROGRESS")

    session.until(ended, 120, f"the stack {stack} is not ready", every=0.5)
    status = state["stack"]["StackStatus"]
    if status != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        reasons = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in events
                   if event["ResourceStatus"].endswith("FAILED")]
        raise AssertionError(f"the stack {stack} is {status}: {reasons}")
    return {output["OutputKey"]: output["OutputValue"] for output in state["stack"].get("Outputs", [])}


def put_lifecycle(s3, bucket, properties):
    """LocalStack's CloudFormation leaves out rules and tiers. S3 itself takes and checks them, in its own words."""
    def rule(of):
        moves = [{"Days": move["TransitionInDays"], "StorageClass": move["StorageClass"]} for move in of.get("Transitions", [])]
        moves = [{**move, "Days": int(move["Days"])} for move in moves]
        entries = {"ID": of["Id"], "Status": of["Status"], "Filter": {"Prefix": of.get("Prefix", "")}}
        if moves:
            entries["Transitions"] = moves
        if "ExpirationInDays" in of:
            entries["Expiration"] = {"Days": int(of["ExpirationInDays"])}
        if of.get("ExpiredObjectDeleteMarker"):
            entries["Expiration"] = {"ExpiredObjectDeleteMarker": True}
        if "AbortIncompleteMultipartUpload" in of:
            entries["AbortIncompleteMultipartUpload"] = of["AbortIncompleteMultipartUpload"]
        if "NoncurrentVersionExpiration" in of:
            entries["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(of["NoncurrentVersionExpiration"]["NoncurrentDays"])}
        return entries

    rules = [rule(of) for of in properties["LifecycleConfiguration"]["Rules"]]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    for tiering in properties["IntelligentTieringConfigurations"]:
        s3.put_bucket_intelligent_tiering_configuration(Bucket=bucket, Id=tiering["Id"], IntelligentTieringConfiguration={
            "Id": tiering["Id"], "Status": tiering["Status"], "Filter": {"Prefix": tiering["Prefix"]},
            "Tierings": tiering["Tierings"]})


def check_bucket(s3, bucket, parameters):
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256", rule
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    denied = [statement for statement in policy["Statement"] if statement["Effect"] == "Deny"]
    assert any("aws:SecureTransport" in json.dumps(statement) for statement in denied), policy
    put_lifecycle(s3, bucket, Template(DEPLOY / "lake.yaml", parameters).resolved()["Bucket"]["Properties"])
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    moves = {name: [(move["Days"], move["StorageClass"]) for move in rule.get("Transitions", [])] for name, rule in rules.items()}
    assert moves["MoveToInfrequentAccess"] == [(30, "STANDARD_IA"), (90, "INTELLIGENT_TIERING")], rules
    assert moves["ArchiveOldData"] == [(365, "GLACIER")], rules
    assert rules["AbortIncompleteUploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7, rules
    assert "NoncurrentVersionExpiration" in rules["ExpireNoncurrentVersions"], rules
    prefixes = {rule["Filter"]["Prefix"] for rule in rules.values()}
    assert {f"{parameters['LakePrefix']}raw/", f"{parameters['LakePrefix']}processed/"} <= prefixes, prefixes
    (tiering,) = s3.list_bucket_intelligent_tiering_configurations(Bucket=bucket)["IntelligentTieringConfigurationList"]
    assert [(tier["Days"], tier["AccessTier"]) for tier in tiering["Tierings"]] == \
        [(90, "ARCHIVE_ACCESS"), (180, "DEEP_ARCHIVE_ACCESS")], tiering


def check_table(dynamodb, deployed, made):
    """A table of the template is as one that a worker makes."""
    def shape(table):
        described = dynamodb.describe_table(TableName=table)["Table"]
        indexes = [(index["IndexName"], index["KeySchema"], index["Projection"]["ProjectionType"])
                   for index in described["GlobalSecondaryIndexes"]]
        attributes = sorted((a["AttributeName"], a["AttributeType"]) for a in described["AttributeDefinitions"])
        return described["KeySchema"], attributes, indexes, described["BillingModeSummary"]["BillingMode"]

    assert shape(deployed) == shape(made), (shape(deployed), shape(made))


def configuration(folder, parameters):
    """The configuration of the task definition, for these parameters."""
    template = Template(DEPLOY / "worker.yaml", {**parameters, "Image": "shardlake", "VpcId": "vpc-01234567"})
    template.values["AWS::AccountId"] = ACCOUNT
    (container,) = template.resolved()["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    settings = {entry["Name"]: entry["Value"] for entry in container["Environment"]}
    path = folder / "shardlake.toml"
    path.write_text(settings["SHARDLAKE_CONFIG"])
    return path


def catch_up(config, *flags):
    done = subprocess.run([binary.binary(), "run", "--config", str(config), "--until-caught-up", "--json", *flags],
                          capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def check_lake(folder, s3, bucket, prefix, records):
    """Each record is a row or a dead letter; returns a DuckDB with the datasets as views."""
    lakes.download(s3, bucket, prefix, folder)
    connection = lakes.connect()
    keys = collections.Counter(lakes.row_keys(connection, folder))
    keys.update((letter["stream"], letter["shardId"], letter["sequenceNumber"], letter["subSequenceNumber"])
                for letter in lakes.dead_letters(folder))
    assert len(keys) == records and set(keys.values()) == {1}, (len(keys), records, keys.most_common(3))
    for dataset in lakes.datasets(folder):
        if any((folder / "processed" / dataset).rglob("*.parquet")):
            connection.execute(f"CREATE VIEW {dataset} AS SELECT * FROM read_parquet("
                               f"'{lakes.parquet_glob(folder, dataset)}', hive_partitioning = true)")
    return connection


def check_queries(connection):
    """The named queries, in DuckDB's dialect. Returns how many rows each has."""
    resources = Template(DEPLOY / "analytics.yaml", {"BucketName": "the-lake"}).resolved()
    rows = {}
    for name, content in resources.items():
        if content["Type"] == "AWS::Athena::NamedQuery":
            (query,) = sqlglot.transpile(content["Properties"]["QueryString"], read="athena", write="duckdb")
            rows[name] = len(connection.execute(query).fetchall())
    assert rows["AssessmentsByMonth"] and rows["EventsOfADay"] and rows["HighScores"], rows
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    binary.add_flag(parser)
    parser.add_argument("--records", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder")
    args = parser.parse_args()
    binary.require_endpoint(parser)
    binary.use(parser, args)
    log = session.Log()
    cloudformation, s3, dynamodb = map(boto3.client, ["cloudformation", "s3", "dynamodb"])
    name = f"deployed-{uuid.uuid4().hex[:8]}"

    def work(folder):
        names = {"BucketName": name, "LakePrefix": "prod/", "StreamName": name, "LeaseTableName": name}
        lake = deploy(cloudformation, "lake", f"{name}-lake", {
            **names, "Local": "true", "StreamMode": "PROVISIONED", "Shards": "2", "RawLanding": "firehose"})
        assert lake["BucketName"] == name and lake["LakeUrl"] == f"s3://{name}/prod/", lake
        worker = deploy(cloudformation, "worker", f"{name}-worker", {**names, "CreateService": "false"})
        log(f"CloudFormation made {lake['LakeUrl']}, {lake['StreamArn']} and {worker['WorkerRoleArn']}")
        check_bucket(s3, name, names)

        of_task = {**names, "PseudonymKeySecretArn": worker["PseudonymKeySecretArn"], "CommitInterval": "2s",
                   "DeliveryStreamName": lake["DeliveryStreamName"]}
        config = configuration(folder, of_task)
        shardlake("init", "--config", config, "--checkpoints", f"dynamodb://{name}-made")
        check_table(dynamodb, name, f"{name}-made")

        source = f"kinesis://{name}"
        shardlake("produce", "--to", source, "--count", args.records, "--seed", args.seed, "--start", "2025-01-14T00:00:00Z")
        summary = catch_up(config)
        log(f"a worker with the task's configuration read {args.records} records: {summary['requests']}")
        more = args.records // 5
        shardlake("produce", "--to", source, "--count", more, "--seed", args.seed + 1, "--start", "2025-02-01T00:00:00Z")
        config = configuration(folder, {**of_task, "RawTo": "firehose"})
        catch_up(config)
        report = shardlake("verify", "--config", config)
        assert "no fault found" in report, report
        connection = check_lake(folder / "lake", s3, name, "prod/", args.records + more)
        log(f"each of {args.records + more} records is one row or one dead letter")
        rows = check_queries(connection)
        log(f"the named queries run in DuckDB: rows {rows}")
        landed = 0
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix="landing/"):
            for entry in page.get("Contents", []):
                body = s3.get_object(Bucket=name, Key=entry["Key"])["Body"].read()
                landed += (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).count(b"\n")
        assert landed >= more, f"{landed} of {more} records landed through Data Firehose"
        log(f"{landed} records landed through Data Firehose")

    session.in_folder(args, "stack-template", work)


if __name__ == "__main__":
    main()
