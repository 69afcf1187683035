"""The command line: one small module a verb."""

from vae_jax.cli.signals import end_at_once


def main(argv: list[str] | None = None) -> None:
    """Runs a verb and exits.

    Args:
        argv: The arguments after the program's name; those of the process if None.
    """
    if argv is None:
        # Before all that takes long to import, in whose midst a signal would end in a trace.
        end_at_once()
    from vae_jax.cli import app

    app.run(argv)
