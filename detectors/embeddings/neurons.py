"""Shifts of the model's own neurons: for triggers of any kind, however they look."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.embeddings.ascent import along_gradient
from detectors.embeddings.protocol import Ask, Embedding
from modelaudit.classifier import Classifier
from modelaudit.inner_layers import inner_layers
from modelaudit.shifted import Layer, Shifted, channels_of


class Neurons(Embedding):
    """``z_l + σ_l v_l`` in every inner layer l instead of a change of the image; size: ``‖v‖₂``.

    Not in the L-RED paper: its search (Algorithm 1) in the space of the perturbations of Wu, Wang,
    "Adversarial neuron pruning purifies backdoored deep models" (NeurIPS 2021), who saw that under
    adversarial perturbations of its neurons a backdoored model says the target class. Theirs change
    weights and biases by factors and have no target; these are added to the output z of a
    convolution or a matrix product, one number per channel, for all images and places alike, in
    units of the layer's spread σ over the clean images.

    However the trigger looks, whether it is a patch, a warp or made from the image: what the model
    has learnt is that some neurons, when it is there, outvote all the others.

    Args:
        layers: of the model that it was fitted to.
    """

    name = "neurons"
    unit = "L2 norm, in the spreads of the layers"
    sees = "triggers of any kind, by the neurons that they excite"
    first_step = 0.25
    clean_shape = 15.0
    in_images = False

    def __init__(self, layers: tuple[Layer, ...] = ()) -> None:
        self._layers = layers

    def fit(self, pixels: Tensor, generator: torch.Generator, classifier: Classifier) -> Neurons:
        """The embedding for the layers of a model, and their spreads over clean images."""
        return Neurons(inner_layers(classifier, pixels))

    def init(self, rows: int, input_shape: tuple[int, int, int]) -> Tensor:
        """``v = 0`` ``[rows, D]``, D channels of all inner layers together."""
        return torch.zeros(rows, channels_of(self._layers))

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The images as they are: the change is in the model."""
        return x

    def ask(self, classifier: Classifier, pixels: Tensor) -> Ask:
        """What the model says of images ``[n, C, H, W]`` with its neurons shifted."""
        shifted = Shifted(classifier, self._layers)
        return lambda theta, row, image, bfloat16: shifted(pixels[image], theta[row], bfloat16)

    def step(self, theta: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
        """``v + δ ∇J / ‖∇J‖₂`` (Eq. 5)."""
        return along_gradient(theta, gradient, delta, self.size(gradient))

    def size(self, theta: Tensor) -> Tensor:
        """``‖v‖₂``, ``[R]``."""
        return theta.norm(dim=1)

    def largest(self, input_shape: tuple[int, int, int]) -> float:
        """6; shifts that turn all classes of an all-to-all attack are below 3."""
        return 6.0
