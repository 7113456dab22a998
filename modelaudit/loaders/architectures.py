"""``--arch``: a torchvision classification model, or a factory in the user's own code."""

from __future__ import annotations

import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import nn

from modelaudit.errors import UsageError


@dataclass(frozen=True)
class Architecture:
    """Something that builds a network without weights.

    Attributes:
        name: as given to ``--arch``.
        factory: called with ``num_classes=K`` if it takes that, else without.
        takes_num_classes: whether it does.
        from_torchvision: or the user's own.
    """

    name: str
    factory: Callable[..., nn.Module]
    takes_num_classes: bool
    from_torchvision: bool

    def build(self, num_classes: int | None) -> nn.Module:
        """The network, with ``num_classes`` outputs where it is given and taken.

        Raises:
            UsageError: the factory fails or returns something else.
        """
        arguments = (
            {"num_classes": num_classes}
            if self.takes_num_classes and num_classes is not None
            else {}
        )
        try:
            with warnings.catch_warnings():
                # Inception and GoogLeNet announce another random start; weights replace it.
                warnings.filterwarnings("ignore", "The default weight initialization of")
                module = self.factory(**arguments)
        # The factory is the user's own code and can raise anything.
        except Exception as error:
            raise UsageError(
                f"--arch {self.name} cannot be built with {arguments or 'no arguments'}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"--arch {self.name} returned {type(module).__name__}; expected a torch.nn.Module."
            )
        return module

    def head_shape(self) -> tuple[str, int] | None:
        """Key and axis of the last tensor whose extent is the number of classes.

        Found by building the network twice, without memory for weights, with different numbers.
        ``None`` if it takes no number of classes or cannot be built that way.
        """
        if not self.takes_num_classes:
            return None
        try:
            with torch.device("meta"):
                one, other = self.build(7).state_dict(), self.build(11).state_dict()
        except UsageError:
            return None
        found = [
            (key, axis)
            for key, value in one.items()
            if key in other and value.ndim == other[key].ndim
            for axis, extent in enumerate(value.shape)
            if (extent, other[key].shape[axis]) == (7, 11)
        ]
        return found[-1] if found else None


def resolve_architecture(name: str) -> Architecture:
    """What ``--arch`` names.

    Args:
        name: a torchvision classification model (``resnet18``), or ``package.module:factory``;
            the module is imported, which runs the user's own code as the user asked.

    Raises:
        UsageError: there is no such model, module or factory.
    """
    if ":" in name:
        return _own(name)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise UsageError(
            f"--arch {name} is not a torchvision classification model.{hint} For your own code "
            "give package.module:factory."
        )

    def factory(**arguments: int) -> nn.Module:
        return torchvision.models.get_model(name, weights=None, **arguments)

    return Architecture(name, factory, takes_num_classes=True, from_torchvision=True)


def _own(name: str) -> Architecture:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    # Importing runs the user's module, which can raise anything.
    except Exception as error:
        raise UsageError(
            f"--arch {name}: cannot import {module_name!r} ({type(error).__name__}: {error}). It "
            "must be installed or on PYTHONPATH."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=3, cutoff=0.5)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise UsageError(f"--arch {name}: {module_name} has no callable {attribute!r}.{hint}")
    return Architecture(name, factory, _takes_num_classes(factory), from_torchvision=False)


def _takes_num_classes(factory: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return "num_classes" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
