"""One training step as a pure function."""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch, Variables
from vae_jax.objectives import MODEL, Loss, Player
from vae_jax.shapes import Count, RandomKey, Scalar

Params = Any
LossFunction = Callable[[Variables, Batch, RandomKey, Count], Loss]
# From what is kept of some examples (grey levels or numbers; classes or contexts) and a key to what the model sees.
Preparation = Callable[[Any, Any, RandomKey], Batch]
Metrics = dict[str, Float[Array, "*replicas"] | None]


# A tree may hold anything while it is mapped over (None, strings, shapes), so its fields aren't checked.
@typing.no_type_check
@flax.struct.dataclass
class TrainState:
    """Everything that a checkpoint holds; no key and no position in the data: both follow from `step`.

    With replicas all but the step has an axis for them in front.

    Attributes:
        step: Steps taken.
        params: Parameters of the model, and those of other players in `players`, by name.
        opt_state: State of the optimizer.
        average: Exponential moving average of the parameters, or None.
        model_state: Numbers of the model that change without gradients, or None.
    """

    step: Count
    params: Params
    opt_state: Any
    average: Params | None
    model_state: Any = None

    def variables(self, params: Params) -> Variables:
        """The variables of the model with these parameters."""
        return {"params": params} if self.model_state is None else {"params": params, "state": self.model_state}

    @property
    def evaluated(self) -> Variables:
        """What is evaluated and sampled from: the model's, with the average of the parameters where one is kept."""
        params = self.params if self.average is None else self.average
        has_players = isinstance(params, Mapping) and "players" in params
        return self.variables({part: params[part] for part in params if part != "players"} if has_players else params)


# (state, stored, key, given=None) -> (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]
# Which axis of a state counts the replicas.
REPLICA_AXES: Any = TrainState(step=typing.cast(Any, None), params=0, opt_state=0, average=0, model_state=0)


def create_state(variables: Variables, tx: optax.GradientTransformation, with_average: bool) -> TrainState:
    """The state before the first step.

    Args:
        variables: Fresh variables of the model; with the parameters of all players.
        tx: The optimizer.
        with_average: Whether a moving average of the parameters is kept.
    """
    params = variables["params"]
    average = jax.tree.map(jnp.copy, params) if with_average else None
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average, variables.get("state"))


def with_players(variables: Variables, players: Mapping[str, Player], key: RandomKey) -> Variables:
    """Variables with fresh parameters of other players beside those of the model."""
    if not players:
        return variables
    keys = jax.random.split(jax.random.fold_in(key, len(players)), len(players))
    fresh = {name: player.init(key) for (name, player), key in zip(players.items(), keys, strict=True)}
    return {**variables, "params": {**variables["params"], "players": fresh}}


def with_their_optimizers(tx: optax.GradientTransformation, players: Mapping[str, Player]) -> Any:
    """The optimizer of all players: `tx` for the model, and for each other one its own."""
    if not players:
        return tx

    def owners(params: Params) -> Any:
        def owner(path: Any, _: Any) -> str:
            return path[1].key if path[0].key == "players" else MODEL

        return jax.tree_util.tree_map_with_path(owner, params)

    return optax.partition({MODEL: tx, **{name: player.optimizer for name, player in players.items()}}, owners)


def make_train_step(
    loss_function: LossFunction,
    tx: optax.GradientTransformation,
    prepare: Preparation,
    ema_decay: float = 0.0,
    num_parts: int = 1,
    skip_nonfinite: bool = False,
) -> TrainStep:
    """The step of a model, an objective and an optimizer.

    Args:
        loss_function: `(variables, batch, key, step) -> Loss`.
        tx: The optimizer.
        prepare: `(stored, given, key) -> Batch`: scaling and binarization; a context from what is given.
        ema_decay: Decay of the average of the parameters; 0 where none is kept.
        num_parts: Parts of a batch that are worked off one after the other, to need less memory. Part m has every
            `num_parts`-th image from the m-th on, and noise of its own key `fold_in(key, m)`. For surrogates that are
            means over images the gradient is that of the whole batch.
        skip_nonfinite: Whether a step after which the loss or a parameter isn't finite changes nothing but the number
            of steps. Metrics then have `skipped` too, 1 for such a step, and 0 in place of what isn't finite.

    Returns:
        `train_step(state, stored, key, given=None) -> (state, metrics)`, pure and jit-compiled. `stored` is mostly
        `uint8[B, H, W, C]`, `given` what a conditional model is told. `key` is the key of the run, from which the step
        derives its own by stream and `state.step`. The metrics are means over the examples of the batch, before the
        update: `loss`, that of each other player, and the terms of the bound in nats, None where there is none.
    """
    gradient_of = _in_parts(loss_function, num_parts) if num_parts > 1 else _in_one(loss_function)

    @jax.jit
    def train_step(state: TrainState, stored: Any, key: RandomKey, given: Any = None) -> tuple[TrainState, Metrics]:
        batch = prepare(stored, given, stream_key(key, Stream.BINARIZATION, state.step))
        noise_key = stream_key(key, Stream.POSTERIOR_NOISE, state.step)
        metrics, gradients, model_state = gradient_of(state, batch, noise_key)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            average = optax.incremental_update(params, average, 1.0 - ema_decay)
        after = TrainState(state.step + 1, params, opt_state, average, model_state)
        return _unless_finite(after, state, metrics) if skip_nonfinite else (after, metrics)

    return train_step


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no number in a tree is infinite or not a number."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.array(True)


def _unless_finite(after: TrainState, before: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """A step, or where anything in it isn't finite the state from before it, one step on."""
    finite = all_finite((after, metrics))
    chosen = jax.tree.map(functools.partial(jnp.where, finite), after, before)
    state = dataclasses.replace(chosen, step=after.step)
    sound = {name: None if value is None else jnp.where(finite, value, 0.0) for name, value in metrics.items()}
    return state, {**sound, "skipped": 1.0 - finite.astype(jnp.float32)}


def replicate(train_step: TrainStep, unroll: bool = False) -> TrainStep:
    """The step of many replicas at once, each with parameters, batch, key and labels of its own.

    Args:
        train_step: From `make_train_step`.
        unroll: Whether the program has the replicas' steps one after the other, instead of one `vmap`, whose batched
            convolutions are about four times slower on CPUs.

    Returns:
        The same function of a state, batches `[R, B, H, W, C]`, keys `[R]` and labels `[R, B]` with an axis for the
        replicas in front; all have taken the same number of steps.
    """

    def replicated_step(
        state: TrainState, stored: Any, key: Key[Array, "r"], given: Any = None
    ) -> tuple[TrainState, Metrics]:
        if not unroll:
            over_replicas = jax.vmap(train_step, in_axes=(REPLICA_AXES, 0, 0, 0), out_axes=(REPLICA_AXES, 0))
            return over_replicas(state, stored, key, given)
        done = [
            train_step(replica_of(state, index), *jax.tree.map(lambda leaf, i=index: leaf[i], (stored, key, given)))
            for index in range(len(key))
        ]
        together, metrics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *done)
        return dataclasses.replace(together, step=done[0][0].step), metrics

    return replicated_step


def replica_of(state: TrainState, index: int) -> TrainState:
    """One replica's state, as that of a run by itself."""
    one = jax.tree.map(lambda leaf: leaf[index], dataclasses.replace(state, step=typing.cast(Any, None)))
    return dataclasses.replace(one, step=state.step)


def _in_one(loss_function: LossFunction) -> Callable[..., tuple[Metrics, Params, Any]]:
    def gradient_of(state: TrainState, batch: Batch, key: RandomKey) -> tuple[Metrics, Params, Any]:
        def total(params: Params) -> tuple[Scalar, Loss]:
            loss = loss_function(state.variables(params), batch, key, state.step)
            return functools.reduce(jnp.add, loss.players.values()), loss

        (_, loss), gradients = jax.value_and_grad(total, has_aux=True)(state.params)
        losses = {"loss" if player == MODEL else f"loss_{player}": value for player, value in loss.players.items()}
        return {**losses, **jax.tree.map(jnp.mean, loss.terms._asdict()), **loss.metrics}, gradients, loss.state

    return gradient_of


def _in_parts(loss_function: LossFunction, num_parts: int) -> Callable[..., tuple[Metrics, Params, Any]]:
    whole = _in_one(loss_function)

    def gradient_of(state: TrainState, batch: Batch, key: RandomKey) -> tuple[Metrics, Params, Any]:
        def divided(array: Array) -> Array:
            # Examples are dealt out in turn, so that each device keeps those that it has.
            return jnp.swapaxes(array.reshape(-1, num_parts, *array.shape[1:]), 0, 1)

        def of_part(model_state: Any, part: tuple[Array, Batch]) -> tuple[tuple[Metrics, Params], Any]:
            at = dataclasses.replace(state, model_state=model_state)
            metrics, gradients, model_state = whole(at, part[1], jax.random.fold_in(key, part[0]))
            return (metrics, gradients), model_state

        def add(carry: Any, part: tuple[Array, Batch]) -> tuple[Any, None]:
            found, model_state = of_part(carry[1], part)
            return (jax.tree.map(jnp.add, carry[0], found), model_state), None

        parts = jnp.arange(num_parts), jax.tree.map(divided, batch)
        shapes, _ = jax.eval_shape(lambda: of_part(state.model_state, jax.tree.map(lambda leaf: leaf[0], parts)))
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        (sums, model_state), _ = jax.lax.scan(add, (zeros, state.model_state), parts)
        return *jax.tree.map(lambda total: total / num_parts, sums), model_state

    return gradient_of
