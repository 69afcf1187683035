"""Every part as small as it can be."""

_SMALL = {
    "mlp": "mlp(hidden=(4,))",
    "conv": "conv(channels=(4,))",
    "resnet": "resnet(channels=(4,))",
    "discretized_logistic_mixture": "discretized_logistic_mixture(components=2)",
    "planar": "planar(flows=2)",
    "iaf": "iaf(flows=2, hidden=(4,))",
    "hierarchical": "hierarchical(upper=2, hidden=(4,))",
    "mixture": "mixture(components=2)",
    "vampprior": "vampprior(components=2)",
    "conditional_gaussian": "conditional_gaussian(hidden=(4,))",
    "realnvp": "realnvp(flows=2, hidden=(4,))",
}


def small(name: str) -> str:
    """The text of a part with small settings."""
    return _SMALL.get(name, name)
