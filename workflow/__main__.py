"""`python -m workflow` is `tunemake`."""

from workflow.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
