"""What tests of reports share."""

from tiny_runs import finished, run  # noqa: F401
