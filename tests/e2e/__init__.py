"""End-to-end suites: they run the product's binary and check the lake with tools of other projects.

`tests/README.md` lists the suites and their commands. Put `tests` on the module path and run one as a module:

    PYTHONPATH=tests python -m e2e.readers

Modules that several suites use are in `e2e.common`; the tests of the checks themselves are in `e2e.unit`.
"""
