"""FLOPs and collectives as read from compiled programs, against counts by hand and XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.performance.hlo import Collective, read_program


def module(*computations: str, devices: int = 1) -> str:
    return "\n\n".join([f"HloModule test, is_scheduled=true, num_partitions={devices}", *computations])


def entry(*lines: str) -> str:
    return "\n".join(["ENTRY %main (p: f32[]) -> f32[] {", *(f"  {line}" for line in lines), "}"])


PARAMETERS = ("%a = f32[4,6]{1,0:T(8,128)} parameter(0)", "%b = f32[6,5]{0,1} parameter(1)")
DOT = "ROOT %c = f32[4,5]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}"


def test_matrix_product() -> None:
    assert read_program(module(entry(*PARAMETERS, DOT))).product_flops == 2 * 4 * 6 * 5


def test_product_with_batch_axes() -> None:
    lines = (
        "%a = bf16[3,4,6]{2,1,0} parameter(0)",
        "%b = bf16[3,6,5]{2,1,0} parameter(1)",
        "ROOT %c = f32[3,4,5]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
        'rhs_contracting_dims={1}, metadata={op_name="dot(a, b)"}',
    )
    assert read_program(module(entry(*lines))).product_flops == 2 * 3 * 4 * 6 * 5


@pytest.mark.parametrize("labels", ["bf_io->bf", "bf_oi->bf", "fb_io->bf"])
def test_matrix_product_as_tpus_write_it(labels: str) -> None:
    shapes = {"bf": "32,784", "fb": "784,32", "io": "784,400", "oi": "400,784"}
    left, right = labels.split("->")[0].split("_")
    lines = (
        f"%a = f32[{shapes[left]}]{{1,0:T(8,128)}} parameter(0)",
        f"%b = f32[{shapes[right]}]{{1,0:T(8,128)S(1)}} parameter(1)",
        f"ROOT %c = f32[32,400]{{1,0:T(8,128)}} convolution(%a, %b), dim_labels={labels}",
    )
    assert read_program(module(entry(*lines))).product_flops == 2 * 32 * 784 * 400


def test_product_with_batch_axes_as_tpus_write_it() -> None:
    # The 7 matrices are places of an image whose dilated kernel meets one of them at a time.
    lines = (
        "%a = f32[7,4,6]{2,1,0} parameter(0)",
        "%b = f32[7,6,5]{2,1,0} parameter(1)",
        "ROOT %c = f32[7,4,5]{2,1,0} convolution(%a, %b), window={size=7 stride=6 pad=0_0 lhs_dilate=7}, "
        "dim_labels=0bf_0io->0bf",
    )
    assert read_program(module(entry(*lines))).product_flops == 2 * 7 * 4 * 6 * 5


def test_padding_of_a_convolution_does_not_count() -> None:
    # A kernel of 3 over 5 places: the first and the last miss one each.
    lines = (
        "%a = f32[2,5,3]{2,1,0} parameter(0)",
        "%b = f32[3,3,8]{2,1,0} parameter(1)",
        "ROOT %c = f32[2,5,8]{2,1,0} convolution(%a, %b), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f",
    )
    assert read_program(module(entry(*lines))).product_flops == 2 * 2 * 3 * 8 * (3 * 5 - 2)


FUSED = "\n".join(
    ["%fused (a: f32[4,6], b: f32[6,5]) -> f32[4,5] {", *(f"  {line}" for line in (*PARAMETERS, DOT)), "}"]
)
CALL = "f32[4,5]{1,0} fusion(%a, %b), kind=kOutput, calls=%fused"


def test_products_in_fusions_count_as_often_as_these() -> None:
    text = module(FUSED, entry(*PARAMETERS, f"%d = {CALL}", f"ROOT %e = {CALL}"))
    assert read_program(text).product_flops == 2 * 240


def test_an_operation_that_runs_beside_others_counts_once() -> None:
    start = "%s = ((f32[4,6], f32[6,5]), f32[4,5], u32[]) async-start(%a, %b), calls=%fused"
    done = "ROOT %d = f32[4,5]{1,0} async-done(%s), calls=%fused"
    assert read_program(module(FUSED, entry(*PARAMETERS, start, done))).product_flops == 240


def loop(bound: str, attributes: str = "") -> str:
    state = "(s32[], f32[4,6], /*index=2*/f32[6,5])"
    condition = "\n".join(
        [
            f"%condition (p: {state}) -> pred[] {{",
            f"  %p = {state} parameter(0)",
            "  %i = s32[] get-tuple-element(%p), index=0",
            f"  %n = s32[]{{:T(128)}} {bound}",
            "  ROOT %lt = pred[] compare(%i, %n), direction=LT",
            "}",
        ]
    )
    body = FUSED.replace("%fused", "%body")
    start = f"ROOT %w = {state} while(%t), condition=%condition, body=%body{attributes}"
    return module(condition, body, entry(f"%t = {state} parameter(0)", start))


@pytest.mark.parametrize(
    ("bound", "attributes", "times"),
    [
        ("constant(4)", "", 4),
        ("get-tuple-element(%p), index=0", "", 1),
        ("constant(4)", ', backend_config={"known_trip_count":{"n":"3"},"init":{}}', 3),
    ],
)
def test_loops(bound: str, attributes: str, times: int) -> None:
    program = read_program(loop(bound, attributes))
    assert (program.product_flops, program.product_flops_once) == (times * 240, 240)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("mesh['x'=2,'y'=4] {'y'}", 4),
        ("mesh['x'=2,'y'=4] {'x','y'}", 8),
        ("mesh['x'=8] {'x':(1)2}", 2),
        ("[2,4]<=[8]", 4),
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("{}", 8),
    ],
)
def test_groups_of_devices(groups: str, size: int) -> None:
    reduced = f"ROOT %r = f32[10]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, to_apply=%add"
    text = module(entry("%p = f32[10]{0} parameter(0)", reduced), devices=8)
    assert read_program(text).collectives == (Collective("all-reduce", size, 1, 40),)


@pytest.mark.parametrize(
    ("line", "kind", "num_bytes"),
    [
        ("(f32[10]{0:T(128)S(1)}, /*index=1*/bf16[3,2]{1,0}) all-reduce(%p, %q)", "all-reduce", 52),
        ("f32[10]{0} all-reduce-start(%p)", "all-reduce", 40),
        ("f32[80]{0} all-gather(%p), dimensions={0}", "all-gather", 320),
        ("(f32[10]{0}, f32[80]{0}) all-gather-start(%p), dimensions={0}", "all-gather", 320),
        ("((f32[10]{0}, pred[2]{0}), (f32[80]{0}, pred[16]{0})) all-gather-start(%p, %q)", "all-gather", 336),
        ("f32[10]{0} reduce-scatter(%p), dimensions={0}", "reduce-scatter", 320),
        ("f32[10]{0} all-to-all(%p), dimensions={0}", "all-to-all", 40),
    ],
)
def test_bytes_of_exchanges(line: str, kind: str, num_bytes: int) -> None:
    text = module(entry("%p = f32[10]{0} parameter(0)", f"ROOT %r = {line}, replica_groups={{}}"), devices=8)
    assert read_program(text).collectives == (Collective(kind, 8, 1, num_bytes),)


def test_an_exchange_that_is_written_into_several_fusions_is_one() -> None:
    gather = "f32[80]{0} all-gather(%p), channel_id=7, replica_groups={}, dimensions={0}"
    fused = "\n".join(
        ["%fused (p: f32[10]) -> f32[80] {", "  %p = f32[10]{0} parameter(0)", f"  ROOT %g = {gather}", "}"]
    )
    calls = [f"%{name} = f32[80]{{0}} fusion(%p), kind=kCustom, calls=%fused" for name in "abc"]
    text = module(fused, entry("%p = f32[10]{0} parameter(0)", *calls), devices=8)
    assert read_program(text).collectives == (Collective("all-gather", 8, 1, 320),)


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no HLO module"):
        read_program("hello")


def compiled(function, *arguments) -> jax.stages.Compiled:
    return jax.jit(function).lower(*arguments).compile()


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_compiled_gradients_of_two_layers() -> None:
    def loss(weights, x):
        return jnp.sum(jnp.tanh(x @ weights[0]) @ weights[1])

    text = compiled(jax.grad(loss), (array(7, 9), array(9, 5)), array(4, 7)).as_text()
    first, second = 2 * 4 * 7 * 9, 2 * 4 * 9 * 5
    # Forward the first layer only; then the gradients of both weights and of the hidden layer.
    assert read_program(text).product_flops == first + first + 2 * second


def test_compiled_scan_counts_each_turn() -> None:
    def repeated(x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ carry), None), x, None, length=5)[0]

    program = read_program(compiled(repeated, array(16, 16)).as_text())
    assert (program.product_flops, program.product_flops_once) == (5 * 2 * 16**3, 2 * 16**3)


CONVOLUTIONS = [
    {"window_strides": (1, 1), "padding": "SAME"},
    {"window_strides": (2, 2), "padding": "SAME"},
    {"window_strides": (1, 2), "padding": "VALID"},
    {"window_strides": (1, 1), "padding": ((2, 1), (2, 1)), "lhs_dilation": (2, 2)},
    {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 3)},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_compiled_convolutions_have_the_flops_that_xla_counts(options: dict, groups: int) -> None:
    def convolved(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, **options, dimension_numbers=dimensions, feature_group_count=groups
        )

    arguments = array(3, 11, 8, 4), array(3, 3, 4 // groups, 6)
    program = compiled(convolved, *arguments)
    assert read_program(program.as_text()).product_flops == lowered_flops(convolved, *arguments)


def lowered_flops(function, *arguments) -> float:
    """XLA's count before any optimization."""
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_compiled_for_eight_devices() -> None:
    mesh = Mesh(np.asarray(jax.devices()), ("batch",))
    split, same = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ()))

    def gradient(weights, x):
        return jax.grad(lambda weights: jnp.sum(jnp.square(x @ weights)))(weights)

    call = jax.jit(gradient, in_shardings=(same, split), out_shardings=same)
    program = read_program(call.lower(array(6, 5), array(32, 6)).compile().as_text())
    assert program.product_flops == 2 * (2 * 4 * 6 * 5)
    assert program.collectives == (Collective("all-reduce", 8, 1, 4 * 6 * 5),)
