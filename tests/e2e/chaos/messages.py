"""What a worker says when something outside it fails: patterns of its last words, and of a line of its log.

Owns: every text of the product that the chaos suites match, except those of `refusals.py`. A test that fails here after a message was
reworded needs its pattern changed here.
"""

# The disks.
NO_SPACE = r"No space left on device|database or disk is full|disk I/O error"
READ_ONLY = r"Read-only file system|the file is read-only; make it writable"
FORBIDDEN = r"Permission denied"
TOO_LARGE = r"File too large"
# The lake's folder is missing, or is not the one in which the checkpoints were committed.
GONE = r"No such file or directory|there is no such folder|does not exist any more|was moved away"
OTHER_LAKE = r"were committed in another lake"
# The network, for longer than requests are retried.
FAILED_BY_THE_NETWORK = r"could not |was stopped before its commits finished|not read to the end"
# In the log of a worker that is asked to stop. One that was asked before it handled signals dies of SIGTERM; it held nothing.
HANDLES_SIGNALS = "stopping: committing what was read"
