"""A fleet of workers on a stream: killed, stalled, stopped and resharded. `python -m e2e.fleet` runs it."""
