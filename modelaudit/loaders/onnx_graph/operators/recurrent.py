"""Recurrent layers: RNN, GRU, LSTM.

Shapes: T steps, B sequences, H hidden units, D directions. Each direction runs over its own part of
the weights; equations and the order of the gates are those of the specification.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from modelaudit.loaders.onnx_graph.call import Call
from modelaudit.loaders.onnx_graph.registry import Function, op

Activation = Callable[[Tensor], Tensor]
# States before the step, input gates of the step -> states after it; the first one is the output.
Cell = Callable[[list[Tensor], Tensor], list[Tensor]]

_ACTIVATIONS: dict[str, Callable[[Tensor, float | None, float | None], Tensor]] = {
    "relu": lambda x, a, b: torch.relu(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "softsign": lambda x, a, b: F.softsign(x),
    "softplus": lambda x, a, b: F.softplus(x),
    "affine": lambda x, a, b: (1.0 if a is None else a) * x + (b or 0.0),
    "leakyrelu": lambda x, a, b: F.leaky_relu(x, 0.01 if a is None else a),
    "thresholdedrelu": lambda x, a, b: x * (x > (1.0 if a is None else a)),
    "scaledtanh": lambda x, a, b: (1.0 if a is None else a) * torch.tanh((b or 1.0) * x),
    "hardsigmoid": lambda x, a, b: torch.clamp(
        (0.2 if a is None else a) * x + (0.5 if b is None else b), 0, 1
    ),
    "elu": lambda x, a, b: F.elu(x, 1.0 if a is None else a),
}


def _activations(call: Call, defaults: list[str], directions: int) -> list[list[Activation]]:
    """The activation functions of each direction."""
    names = call.attribute("activations") or defaults * directions
    alphas, betas = call.attribute("activation_alpha", []), call.attribute("activation_beta", [])
    clip = call.attribute("clip")

    def activation(index: int) -> Activation:
        function = _ACTIVATIONS[names[index].lower()]
        a = alphas[index] if index < len(alphas) else None
        b = betas[index] if index < len(betas) else None
        return lambda x: function(x if clip is None else x.clamp(-clip, clip), a, b)

    functions = [activation(i) for i in range(len(names))]
    n = len(defaults)
    return [functions[i * n : (i + 1) * n] for i in range(directions)]


def _unroll(
    x: Tensor, states: list[Tensor], cell: Cell, lengths: Tensor | None, backwards: bool
) -> tuple[Tensor, list[Tensor]]:
    """Run a cell over ``x`` ``[T, B, gates]``; steps past a sequence's length change nothing."""
    steps = range(len(x))[::-1] if backwards else range(len(x))
    outputs: list[Tensor] = [x] * len(x)
    for t in steps:
        new = cell(states, x[t])
        outputs[t] = new[0]
        if lengths is not None:
            alive = (t < lengths.to(x.device))[:, None]
            outputs[t] = torch.where(alive, new[0], torch.zeros_like(new[0]))
            new = [torch.where(alive, n, o) for n, o in zip(new, states, strict=True)]
        states = new
    return torch.stack(outputs), states


def _layer(
    call: Call, gates: int, defaults: list[str], build: Callable[..., Cell], states: int
) -> Function:
    """The part that is the same for all: directions, layout, biases, lengths, initial states."""
    direction = call.attribute("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    functions = _activations(call, defaults, count)
    batch_first, outputs = bool(call.attribute("layout", 0)), call.outputs
    hidden = call.shape(2)[2]
    initial_from = 5

    def run(x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
        bias, lengths = [*rest, None, None][:2]
        given = [*rest[initial_from - 3 :], *[None] * (states + 1)]
        peepholes = given[states]
        x = x.transpose(0, 1) if batch_first else x
        ys, lasts = [], []
        for d in range(count):
            b = x.new_zeros(2 * gates * hidden) if bias is None else bias[d]
            start = [_initial(s, d, x, hidden, batch_first) for s in given[:states]]
            p = None if peepholes is None else peepholes[d]
            cell = build(r[d], b[gates * hidden :], functions[d], p)
            backwards = direction == "reverse" or d == 1
            y, last = _unroll(
                F.linear(x, w[d], b[: gates * hidden]), start, cell, lengths, backwards
            )
            ys.append(y)
            lasts.append(last)
        y = torch.stack(ys, 1)
        final = [torch.stack([last[i] for last in lasts]) for i in range(states)]
        if batch_first:
            y, final = y.permute(2, 0, 1, 3), [f.transpose(0, 1) for f in final]
        return (y, *final)[:outputs]

    return run


def _initial(state: Tensor | None, d: int, x: Tensor, hidden: int, batch_first: bool) -> Tensor:
    if state is None:
        return x.new_zeros(x.shape[1], hidden)
    return state[:, d] if batch_first else state[d]


@op("RNN", since=7)
def rnn(call: Call) -> Function:
    def build(r: Tensor, bias: Tensor, f: list[Activation], peepholes: None) -> Cell:
        def cell(states: list[Tensor], x: Tensor) -> list[Tensor]:
            return [f[0](x + F.linear(states[0], r, bias))]

        return cell

    return _layer(call, 1, ["Tanh"], build, 1)


@op("GRU", since=7)
def gru(call: Call) -> Function:
    reset_after = bool(call.attribute("linear_before_reset", 0))

    def build(r: Tensor, bias: Tensor, f: list[Activation], peepholes: None) -> Cell:
        (rz, rr, rh), (bz, br, bh) = r.chunk(3), bias.chunk(3)

        def cell(states: list[Tensor], x: Tensor) -> list[Tensor]:
            (h,), (xz, xr, xh) = states, x.chunk(3, -1)
            z, reset = f[0](xz + F.linear(h, rz, bz)), f[0](xr + F.linear(h, rr, br))
            hidden = reset * F.linear(h, rh, bh) if reset_after else F.linear(reset * h, rh, bh)
            return [(1 - z) * f[1](xh + hidden) + z * h]

        return cell

    return _layer(call, 3, ["Sigmoid", "Tanh"], build, 1)


@op("LSTM", since=7)
def lstm(call: Call) -> Function:
    coupled = bool(call.attribute("input_forget", 0))

    def build(r: Tensor, bias: Tensor, f: list[Activation], peepholes: Tensor | None) -> Cell:
        def cell(states: list[Tensor], x: Tensor) -> list[Tensor]:
            h, c = states
            i, o, forget, candidate = (x + F.linear(h, r, bias)).chunk(4, -1)
            pi, po, pf = (0, 0, 0) if peepholes is None else peepholes.chunk(3)
            i = f[0](i + pi * c)
            forget = 1 - i if coupled else f[0](forget + pf * c)
            c = forget * c + i * f[1](candidate)
            return [f[0](o + po * c) * f[2](c), c]

        return cell

    return _layer(call, 4, ["Sigmoid", "Tanh", "Tanh"], build, 2)
