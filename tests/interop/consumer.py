"""A record processor of the Kinesis Client Library, started by its MultiLangDaemon: one process for each shard.

    consumer.py FOLDER        (in FOLDER: `plan.json`, {shard: how to checkpoint, "": how to in all others})

Everything that happens is a line of `FOLDER/<shard>-<process>.jsonl`, written before the library hears of it: a record that
was given is told before a checkpoint behind it, so what is told is never less than what was checkpointed.

| plan | checkpoints of each batch |
|---|---|
| `middle` | in the middle of its last aggregate; none if it holds none |
| `plain` | at its last record that is no aggregate; none if it holds none |
| `all` | behind its last record |
| `never` | none |

Every shard's end is checkpointed: without it the library never starts the children.
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

    def tell(self, **event):
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    def initialize(self, given):
        plan = json.loads((self.folder / "plan.json").read_text())
        self.plan = plan.get(given.shard_id, plan[""])
        self.file = open(self.folder / f"{given.shard_id}-{os.getpid()}.jsonl", "a")
        self.tell(event="begins", shard=given.shard_id, sequence=given.sequence_number, sub=given.sub_sequence_number)

    def process_records(self, given):
        for record in given.records:
            self.tell(event="record", sequence=record.sequence_number, sub=record.sub_sequence_number,
                      sha256=hashlib.sha256(record.binary_data).hexdigest())
        if place := self.place([(record.sequence_number, record.sub_sequence_number) for record in given.records]):
            given.checkpointer.checkpoint(*place)
            self.tell(event="checkpoint", sequence=place[0], sub=place[1])

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
        self.tell(event="end")
        given.checkpointer.checkpoint()

    def lease_lost(self, given):
        self.tell(event="lost")

    def shutdown_requested(self, given):
        self.tell(event="stops")


if __name__ == "__main__":
    kcl.KCLProcess(Processor(pathlib.Path(sys.argv[1]))).run()
