"""Makes what a demonstration needs, where it is not there: a stream, a lease table, a bucket.

    init.py --stream S --shards N --table T --bucket B
"""

import argparse

import boto3
import botocore.config

import fill


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", required=True)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--table", required=True)
    parser.add_argument("--bucket", required=True)
    args = parser.parse_args()

    fill.create(boto3.client("kinesis"), args.stream, args.shards)

    dynamodb = boto3.client("dynamodb")
    try:
        # The lease table of the Kinesis Client Library.
        dynamodb.create_table(
            TableName=args.table, BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}])
    except dynamodb.exceptions.ResourceInUseException:
        pass
    dynamodb.get_waiter("table_exists").wait(TableName=args.table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    s3 = boto3.client("s3", config=botocore.config.Config(s3={"addressing_style": "path"}))
    if args.bucket not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=args.bucket)
    print(f"stream {args.stream}, table {args.table} and bucket {args.bucket} are there")


if __name__ == "__main__":
    main()
