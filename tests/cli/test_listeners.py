"""Warnings about what a run's rows show."""

from vae_jax.cli.listeners import CollapseWatch


def row(active: int, kl: float) -> dict:
    return {"split": "test", "step": 1, "active_units": active, "kl": kl}


def warnings_of(*rows: dict, earlier: tuple[dict, ...] = ()) -> list[str]:
    lines: list[str] = []
    watch = CollapseWatch(list(earlier), lines.append)
    for each in rows:
        watch.write(each)
    return lines


def test_collapse_is_reported_once() -> None:
    (warning,) = warnings_of(row(10, 8.0), row(7, 5.0), row(3, 1.0))
    assert "fell from 10 to 7, and KL from 8.00 to 5.00" in warning and "free_bits" in warning


def test_collapse_across_a_restart_is_reported() -> None:
    assert warnings_of(row(3, 1.0), earlier=(row(10, 8.0),))


def test_rising_kl_is_no_collapse() -> None:
    assert not warnings_of(row(10, 0.5), row(5, 4.0), row(5, 6.0))


def test_rows_without_active_units_are_ignored() -> None:
    assert not warnings_of(row(10, 8.0), {**row(0, 0.0), "active_units": None})
