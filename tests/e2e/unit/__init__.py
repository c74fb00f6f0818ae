"""The suites' own checks find the faults that they exist for: each is shown one fault and must report it.

    python -m unittest discover -t tests -s tests/e2e/unit
"""

import pathlib
import tempfile
import unittest


class FolderTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
