"""`python -m e2e.kcl`: see `suite.py`. Exit code 77: the packages that the suite needs are not installed."""

import sys

COULD_NOT_RUN = 77

if __name__ == "__main__":
    try:
        from e2e.kcl import suite
    except ImportError as missing:
        print(f"could not run, nothing was checked: {missing}: pip install -r tests/e2e/kcl/requirements.txt", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
    suite.main()
