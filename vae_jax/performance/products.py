"""The matrix products and convolutions of a program: which there are, how often, their FLOPs, and their time alone.

They are read off the jaxpr, so that gradients, objectives and networks of one's own are counted as they are. Not
counted are factorizations (Cholesky, triangular solves) and what works element by element.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval
from jax.sharding import Mesh, PartitionSpec

from vae_jax.sharding import BATCH_AXIS

_PRODUCTS = ("dot_general", "conv_general_dilated")
_MOST_REPETITIONS = 2000


@dataclasses.dataclass(frozen=True)
class Product:
    """One kind of product: operands of these shapes, contracted in this way.

    Attributes:
        primitive: That of JAX, `dot_general` or `conv_general_dilated`.
        params: What the primitive is told: dimension numbers, precision, strides.
        operands: Shape and type of both.
        output: Shape and type of the result.
        flops: Floating-point operations of one such product; a multiplication and an addition are two.
        count: How often the program computes it.
    """

    primitive: core.Primitive
    params: dict[str, Any]
    operands: tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]
    output: jax.ShapeDtypeStruct
    flops: int
    count: int

    @property
    def kind(self) -> tuple[str, ...]:
        """The same for products that do the same work."""
        return str(self.primitive), str(self.operands), str(self.output), str(sorted(self.params.items()))

    def __str__(self) -> str:
        left, right = (f"{operand.dtype}{list(operand.shape)}" for operand in self.operands)
        return f"{left} · {right} -> {list(self.output.shape)}"


def products_of(function: Callable[..., Any], *arguments: Any, platform: str | None = None) -> list[Product]:
    """The products that a function computes.

    Args:
        function: What is traced, gradients and all; what doesn't reach its result is left out, as compilers do.
        arguments: Arrays, or their shapes and types.
        platform: Whose products, where it is not the same on all: `cpu`, `gpu` or `tpu`; None for that of the
            devices in use.

    Returns:
        Each kind once, with its count; a loop counts as often as it runs, of the branches of a condition the most
        expensive one counts. A `while` whose length isn't known counts as one turn.
    """
    platform = jax.default_backend() if platform is None else platform
    closed = jax.make_jaxpr(function)(*arguments)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    kinds: dict[tuple[str, ...], Product] = {}
    for product in _walk(jaxpr, platform):
        before = kinds.get(product.kind)
        count = product.count + (0 if before is None else before.count)
        kinds[product.kind] = dataclasses.replace(product, count=count)
    return list(kinds.values())


def total_flops(products: list[Product]) -> int:
    """Floating-point operations of all of them."""
    return sum(product.flops * product.count for product in products)


def _walk(jaxpr: core.Jaxpr, platform: str) -> list[Product]:
    found: list[Product] = []
    for equation in jaxpr.eqns:
        if str(equation.primitive) in _PRODUCTS:
            found.append(_product(equation))
            continue
        within = [_walk(inner, platform) for inner in core.jaxprs_in_params(equation.params)]
        if str(equation.primitive) == "cond":
            within = [_branch(within, equation.params.get("branches_platforms"), platform)]
        times = equation.params["length"] if str(equation.primitive) == "scan" else 1
        for product in (product for inner in within for product in inner):
            found.append(dataclasses.replace(product, count=product.count * times))
    return found


def _branch(
    branches: list[list[Product]], platforms: tuple[tuple[str, ...] | None, ...] | None, platform: str
) -> list[Product]:
    """The products of the branch that counts; `platforms` says whose each is (None: everyone else's)."""
    if platforms is None:
        return max(branches, key=total_flops)
    named = {"cuda", "rocm"} if platform == "gpu" else {platform}
    pairs = zip(branches, platforms, strict=True)
    return next(branch for branch, names in pairs if names is None or not named.isdisjoint(names))


def _product(equation: core.JaxprEqn) -> Product:
    variables: list[Any] = [*equation.invars, *equation.outvars]
    left, right, output = (jax.ShapeDtypeStruct(each.aval.shape, each.aval.dtype) for each in variables)
    flops_of = _flops_of_dot if str(equation.primitive) == "dot_general" else _flops_of_convolution
    flops = flops_of(left.shape, right.shape, output.shape, equation.params)
    return Product(equation.primitive, dict(equation.params), (left, right), output, flops, 1)


def _flops_of_dot(
    left: tuple[int, ...], right: tuple[int, ...], output: tuple[int, ...], params: dict[str, Any]
) -> int:
    (contracted, _), _ = params["dimension_numbers"]
    return 2 * math.prod(output) * math.prod(left[axis] for axis in contracted)


def _flops_of_convolution(
    left: tuple[int, ...], right: tuple[int, ...], output: tuple[int, ...], params: dict[str, Any]
) -> int:
    """As XLA counts them: neither padding nor the holes that dilation leaves in the input are multiplied."""
    numbers = params["dimension_numbers"]
    batch, features = output[numbers.out_spec[0]], output[numbers.out_spec[1]]
    # The features of the kernel are already those of one group.
    per_position = batch * features * right[numbers.rhs_spec[1]]
    valid = 1
    for index, axis in enumerate(numbers.lhs_spec[2:]):
        valid *= _valid_positions(
            left[axis],
            right[numbers.rhs_spec[2 + index]],
            output[numbers.out_spec[2 + index]],
            params["window_strides"][index],
            params["padding"][index][0],
            params["lhs_dilation"][index],
            params["rhs_dilation"][index],
        )
    return 2 * per_position * valid


def _valid_positions(
    size: int, kernel: int, output: int, stride: int, padding: int, input_dilation: int, kernel_dilation: int
) -> int:
    """Pairs of a position in the output and one in the kernel that meet a number of the input, along one axis."""
    meets = stride * np.arange(output)[:, None] + kernel_dilation * np.arange(kernel)[None, :] - padding
    inside = (meets >= 0) & (meets <= (size - 1) * input_dilation)
    return int(np.sum(inside & (meets % input_dilation == 0)))


def repetitions(product: Product, flops_per_second: float, seconds: float) -> int:
    """How often to repeat a product so that it takes about so long.

    Args:
        product: Which.
        flops_per_second: What the device reaches where it is fast.
        seconds: How long.
    """
    return int(np.clip(seconds * flops_per_second / max(1, product.flops), 4, _MOST_REPETITIONS))


def repeated(product: Product, mesh: Mesh, times: int, in_one_call: bool = True) -> Callable[[], jax.Array]:
    """A function that computes a product many times, one after the other, on each device of a mesh.

    The operands are normal random numbers. A number of each result goes into the left operand of the next product, so
    that the compiler can neither leave any out nor take them out of the loop.

    Args:
        product: Its shapes are those of one device.
        mesh: All its devices work at once, as they do in training.
        times: How often.
        in_one_call: In one compiled loop, so that what a call costs doesn't count; else by as many calls. On CPUs
            convolutions are far slower in a loop than otherwise.

    Returns:
        What returns the last results, of all devices, before they are there.
    """
    spec = PartitionSpec(BATCH_AXIS)

    def once(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        result = product.primitive.bind(left, right, **product.params)
        one = result[(0,) * result.ndim]
        small = one * 1e-9 if jnp.issubdtype(one.dtype, jnp.floating) else one & 1
        return left.at[(0,) * left.ndim].set(small.astype(left.dtype)), result

    def on_each(left: jax.Array, right: jax.Array, result: jax.Array) -> tuple[jax.Array, jax.Array]:
        left, right, result = left[0], right[0], result[0]
        if in_one_call:
            left, result = jax.lax.fori_loop(0, times, lambda _, carry: once(carry[0], right), (left, result))
        else:
            left, result = once(left, right)
        return left[None], result[None]

    call = jax.jit(
        jax.shard_map(on_each, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False), donate_argnums=(0, 2)
    )
    left, right = (_operand(shape, mesh, index) for index, shape in enumerate(product.operands))
    result = jnp.zeros((mesh.size, *product.output.shape), product.output.dtype, device=_on(mesh))

    def run() -> jax.Array:
        nonlocal left, result
        for _ in range(1 if in_one_call else times):
            left, result = call(left, right, result)
        return result

    return run


def _on(mesh: Mesh) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def _operand(shape: jax.ShapeDtypeStruct, mesh: Mesh, index: int) -> jax.Array:
    def make() -> jax.Array:
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            return jnp.ones((mesh.size, *shape.shape), shape.dtype)
        return jax.random.normal(jax.random.key(index), (mesh.size, *shape.shape)).astype(shape.dtype)

    return jax.jit(make, out_shardings=_on(mesh))()
