"""Multinomial logistic regression, its penalty chosen on a held-out part."""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Shaped

from vit_jax.evaluators.linear import BLOCK, Fitted, Linear, hold_out, moments

GRID = tuple((10 ** np.linspace(-6, 5, 45)).tolist())
ALONE = 1.0  # C where nothing can be held out to choose it.

# Relative error of the weights: of the result, and while the sweep only ranks values of C.
TOLERANCE, ROUGH = 3e-3, 3e-2
MAX_ITERATIONS = 1000

FLOAT64_BYTES = 4 * 2**30
NUMBERS = 2**20  # logits, or features, in a block of pictures

Head = dict[str, Array]
# Blocks of pictures: features, labels, and how often each picture counts.
Blocks = tuple[
    Float[Array, "blocks block dim"],
    Int[Array, "blocks block"],
    Float[Array, "blocks block"],
]


def fit_logistic(
    features: Float[np.ndarray, "n dim"],
    labels: Int[np.ndarray, " n"],
    num_classes: int,
    grid: Sequence[float] = GRID,
    seed: int = 0,
    watch: Callable[[Iterable], Iterable] = iter,
) -> Fitted:
    """Fit a classifier by multinomial logistic regression on standardised features.

    It minimises C * (the sum of the cross-entropies) + |W|^2 / 2, where the intercept is free: the objective of
    scikit-learn's `LogisticRegression` for three or more classes. (For two, scikit-learn has one vector of weights
    instead of two, and twice this C gives the same classifier.) Features are standardised by the mean and the deviation
    (+ 1e-5) of all given pictures.

    L-BFGS on all pictures at once runs until |gradient by W| < 3e-3 * |W|. As the penalty makes the objective strongly
    convex, W is then at most 3e-3 * |W| from the best for this intercept, and the objective less than 1e-5 above it.
    The sum of |gradient by the intercept| must be below 9e-6 * |W|^2. It ends before that after 1,000 iterations, or
    where rounding stops the descent.

    Memory: the device holds the standardised features, in float64 if they take at most 4 GiB, else (and on TPUs) in
    float32; 24 times the weights; and 2^20 logits at a time. The host holds the features once more in that dtype.

    Args:
        grid: values of C, each solved from the solution of the one before, to 3e-2 instead of 3e-3. The one with the
            most right answers on a held-out tenth, then the one with the smaller loss there, is fitted to all pictures;
            1 if none can be held out. A single value is used as it is.
        seed: of the held-out tenth.
        watch: wraps `grid`, for example to abort.
    """
    mean, deviation = moments(features)
    float64 = jax.local_devices()[0].platform != "tpu" and 8 * features.size <= FLOAT64_BYTES
    dtype = np.float64 if float64 else np.float32
    # x64 is a matter of these computations alone: the model's arrays stay as they are.
    precise = functools.partial(jax.enable_x64, float64)
    cut = functools.partial(_cut, rows=min(len(labels), max(1, NUMBERS // max(num_classes, features.shape[1]))))
    inputs = np.empty(features.shape, dtype)
    for first in range(0, len(features), BLOCK):
        part = slice(first, first + BLOCK)
        inputs[part] = (features[part] - mean) / deviation
    held_out = hold_out(labels, seed)
    with precise():
        pictures = jnp.asarray(cut(inputs)), jnp.asarray(cut(labels))
        every, fitted, tested = (
            (*pictures, jnp.asarray(cut(counts.astype(dtype))))
            for counts in (np.ones(len(labels)), ~held_out, held_out)
        )
        start = {
            "weights": jnp.zeros((inputs.shape[1], num_classes), dtype),
            "intercept": jnp.zeros(num_classes, dtype),
        }
    head, chosen, sweep = start, ALONE if len(grid) > 1 else grid[0], []
    for c in watch(grid if len(grid) > 1 and held_out.any() else ()):
        with precise():
            head, iterations = _minimise(head, fitted, dtype(c), dtype(ROUGH))
            loss, right = (float(total) / int(held_out.sum()) for total in _score(head, tested))
        sweep.append({"C": c, "accuracy": right, "loss": loss, "iterations": int(iterations)})
        if max(sweep, key=lambda row: (row["accuracy"], -row["loss"])) is sweep[-1]:
            start, chosen = head, c
    with precise():
        head, iterations = _minimise(start, every, dtype(chosen), dtype(TOLERANCE))
    weights, intercept = (np.asarray(head[name], np.float64) for name in ("weights", "intercept"))
    facts = {"C": chosen, "iterations": int(iterations)}
    return Fitted(Linear(mean, deviation, weights, intercept), facts, sweep)


def _cut(array: Shaped[np.ndarray, "n *rest"], rows: int) -> Shaped[np.ndarray, "blocks block *rest"]:
    # Blocks of equal length, the last one padded by zeros.
    missing = -len(array) % rows
    if missing:
        array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
    return array.reshape(-1, rows, *array.shape[1:])


@jax.jit
def _minimise(start: Head, blocks: Blocks, c: Float[Array, ""], tolerance: Float[Array, ""]) -> tuple[Head, Array]:
    """Return the solution and the number of iterations.

    On the device by Optax, not by SciPy on the host: the same number of evaluations, but no copies of the weights and
    their twenty vectors between the two, which would be most of the time on a GPU.
    """

    def objective(head: Head) -> Array:
        fixed = jax.lax.stop_gradient(head)
        value, grads = _objective(fixed, blocks, c)
        # The gradient comes with the value, at the price of no second pass.
        return value + optax.tree.vdot(grads, optax.tree.sub(head, fixed))

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def unfinished(carry: tuple) -> Array:
        head, _, _, grads, iteration, falls = carry
        enough = tolerance**2 * jnp.square(head["weights"]).sum()
        far = (jnp.square(grads["weights"]).sum() > enough) | (jnp.abs(grads["intercept"]).sum() > enough)
        return far & falls & (iteration < MAX_ITERATIONS)

    def step(carry: tuple) -> tuple:
        head, state, value, grads, iteration, _ = carry
        updates, state = solver.update(grads, state, head, value=value, grad=grads, value_fn=objective)
        head = optax.apply_updates(head, updates)
        new, grads = value_and_grad(head, state=state)
        return head, state, new, grads, iteration + 1, new < value

    value, grads = jax.value_and_grad(objective)(start)
    found = jax.lax.while_loop(unfinished, step, (start, solver.init(start), value, grads, 0, True))
    return found[0], found[4]


def _objective(head: Head, blocks: Blocks, c: Float[Array, ""]) -> tuple[Array, Head]:
    """Return the objective and its gradient."""

    def add(sums: tuple[Array, Head], block: tuple) -> tuple[tuple[Array, Head], None]:
        inputs, labels, counts = block
        logits, losses = _losses(head, inputs, labels)
        # From the losses up, so that nothing overflows: the probabilities less 1 for the class.
        errors = jnp.exp(logits - logsumexp(logits, axis=1, keepdims=True)) - jax.nn.one_hot(labels, logits.shape[1])
        errors *= c * counts[:, None]
        # A transposed copy: on CPUs, XLA takes twice as long for the product otherwise.
        columns = jax.lax.optimization_barrier(inputs.T)
        grads = {"weights": jnp.matmul(columns, errors, precision="highest"), "intercept": errors.sum(axis=0)}
        return optax.tree.add(sums, (c * (losses * counts).sum(), grads)), None

    penalty = jnp.square(head["weights"]).sum() / 2
    start = penalty, {"weights": head["weights"], "intercept": jnp.zeros_like(head["intercept"])}
    return jax.lax.scan(add, start, blocks)[0]


@jax.jit
def _score(head: Head, blocks: Blocks) -> tuple[Array, Array]:
    """Return the sums of the losses and of the right answers."""

    def add(sums: tuple[Array, Array], block: tuple) -> tuple[tuple[Array, Array], None]:
        inputs, labels, counts = block
        logits, losses = _losses(head, inputs, labels)
        right = (logits.argmax(axis=1) == labels) * counts
        return (sums[0] + (losses * counts).sum(), sums[1] + right.sum()), None

    zero = jnp.zeros((), head["intercept"].dtype)
    return jax.lax.scan(add, (zero, zero), blocks)[0]


def _losses(head: Head, inputs: Float[Array, "block dim"], labels: Int[Array, " block"]) -> tuple[Array, Array]:
    logits = jnp.matmul(inputs, head["weights"], precision="highest") + head["intercept"]
    return logits, logsumexp(logits, axis=1) - jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
