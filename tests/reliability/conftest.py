"""What tests of reliability share."""

from tiny_runs import finished, run  # noqa: F401
