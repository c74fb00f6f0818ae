"""A record processor of the Kinesis Client Library, started by its MultiLangDaemon: one process for each shard.

    python -m e2e.kcl.consumer FOLDER        (FOLDER has `plan.json`: {shard: plan, "": plan of all other shards})

Each event is a line of `FOLDER/<shard>-<process>.jsonl`, written before the library learns of it. A record is reported before any
checkpoint after it, so every checkpointed record is reported.

| plan | checkpoint of each batch |
|---|---|
| `middle` | in the middle of its last aggregate; none if it has no aggregate |
| `plain` | at its last plain record; none if it has only aggregates |
| `all` | after its last record |
| `never` | none |

Every shard's end is checkpointed. Otherwise the library never starts the child shards.
"""

import hashlib
import json
import os
import pathlib
import sys

from amazon_kclpy import kcl
from amazon_kclpy.v3 import processor


class Processor(processor.RecordProcessorBase):
    def __init__(self, folder):
        self.folder = folder

    def report(self, **event):
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def initialize(self, given):
        plan = json.loads((self.folder / "plan.json").read_text())
        self.plan = plan.get(given.shard_id, plan[""])
        self.file = open(self.folder / f"{given.shard_id}-{os.getpid()}.jsonl", "a")
        self.report(event="begins", shard=given.shard_id, sequence=given.sequence_number, sub=given.sub_sequence_number)

    def process_records(self, given):
        for record in given.records:
            self.report(event="record", sequence=record.sequence_number, sub=record.sub_sequence_number,
                      sha256=hashlib.sha256(record.binary_data).hexdigest())
        if place := self.place([(record.sequence_number, record.sub_sequence_number) for record in given.records]):
            given.checkpointer.checkpoint(*place)
            self.report(event="checkpoint", sequence=place[0], sub=place[1])

    def place(self, places):
        """Where to checkpoint among the places of a batch."""
        subs = {}
        for sequence, sub in places:
            subs.setdefault(sequence, []).append(sub)
        if self.plan == "all" and places:
            return places[-1]
        if self.plan == "middle":
            return next(((sequence, found[len(found) // 2 - 1]) for sequence, found in reversed(subs.items())
                         if len(found) > 1), None)
        if self.plan == "plain":
            return next(((sequence, found[0]) for sequence, found in reversed(subs.items()) if len(found) == 1), None)
        return None

    def shard_ended(self, given):
        self.report(event="end")
        given.checkpointer.checkpoint()

    def lease_lost(self, given):
        self.report(event="lost")

    def shutdown_requested(self, given):
        self.report(event="stops")


if __name__ == "__main__":
    kcl.KCLProcess(Processor(pathlib.Path(sys.argv[1]))).run()
