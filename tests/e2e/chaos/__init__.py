"""Disks that run full, networks that cut, workers that are killed all the while, and a soak. README.md has the commands."""
