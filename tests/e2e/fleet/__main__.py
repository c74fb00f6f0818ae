"""`python -m e2e.fleet`: see `suite.py`."""

from e2e.fleet import suite

if __name__ == "__main__":
    suite.main()
