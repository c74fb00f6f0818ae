"""What several suites share: the binary, workers, streams, reading a lake, checking it, and running a suite."""
