"""The real Kinesis Client Library and Shardlake take turns on one lease table. `python -m e2e.kcl` runs it; README.md has results."""
