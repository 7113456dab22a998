"""A clean twin: a small network that a suspect teaches what it knows of clean images.

How easily a class is reached by a pattern depends on the class above all: in models trained apart
on the same data the same classes are easy. A twin has these classes and no backdoor: it learns the
suspect's logits on mixtures of clean images (distillation: Hinton, Vinyals, Dean, arXiv:1503.02531;
mixtures: Zhang et al., arXiv:1710.09412), and as none of these carries the trigger, what the
suspect does with it is not passed on (Yoshida, Fujino, "Disabling backdoor and identifying poison
data by using knowledge distillation", AISec 2020). So what a detector finds in the twin is what it
would have found without an attack, as far as the twin is like the suspect.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from detectors.stamping import images_per_batch
from detectors.types import Progress
from modelaudit.classifier import Classifier
from modelaudit.memory import BatchSize

#: Mixtures per step of the training.
BATCH = 64
#: Share of the images that are left unmixed.
_UNMIXED = 0.3
#: Largest standard deviation of the noise in them.
_NOISE = 0.1
_LEARNING_RATE = 3e-3
_WIDTH = 24
#: The twin looks at larger images with pixels as coarse as those of images of this side.
_SIDE = 64
#: Clean images that the unit of the logits is measured on.
_SCALED_BY = 256


def distil(
    suspect: Classifier,
    pixels: Tensor,
    steps: int,
    generator: torch.Generator,
    progress: Progress = lambda share: None,
) -> Classifier:
    """A clean twin of a suspect.

    Args:
        pixels: clean images ``[n, C, H, W]`` in [0, 1].
        steps: of Adam, with ``BATCH`` mixtures each, every one of them used once. Each costs the
            suspect a forward pass.
        generator: of the mixtures, and by its seed of the twin's first weights.
        progress: called with the share of the work done.

    Returns:
        A classifier whose logits are the suspect's, centred, in units of their standard deviation
        over the clean images.
    """
    device, pixels = suspect.device, pixels.cpu()
    batch = BatchSize(images_per_batch(suspect))
    few = pixels[:: max(1, len(pixels) // _SCALED_BY)]
    scale = _centred(suspect.logits(few, batch)).std().clamp_min(1e-12)
    own = torch.Generator().manual_seed(generator.initial_seed())
    network = _network(suspect.input_shape, suspect.num_classes, own).to(device)
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    network.train()
    for step in range(steps):
        x = _mixtures(pixels, BATCH, generator)
        taught = _centred(suspect.logits(x, batch)) / scale
        finite = taught.isfinite().all(1)
        if not finite.any():
            continue
        with torch.enable_grad():
            loss = functional.mse_loss(network(x.to(device))[finite], taught[finite])
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
        progress((step + 1) / steps)
    return Classifier(network, suspect.num_classes, suspect.input_shape, device=suspect.device)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)


def _mixtures(pixels: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """``λ a + (1 - λ) b`` of random pairs of images, with a little noise ``[number, C, H, W]``."""
    first, second = torch.randint(0, len(pixels), (2, number), generator=generator)
    share = torch.rand(number, 1, 1, 1, generator=generator)
    unmixed = torch.rand(number, 1, 1, 1, generator=generator) < _UNMIXED
    share = share.masked_fill(unmixed, 1.0)
    mixed = share * pixels[first] + (1 - share) * pixels[second]
    noise = torch.randn(mixed.shape, generator=generator)
    strength = _NOISE * torch.rand(number, 1, 1, 1, generator=generator)
    return (mixed + strength * noise).clamp_(0, 1)


def _network(
    input_shape: tuple[int, int, int], num_classes: int, generator: torch.Generator
) -> nn.Sequential:
    """Three convolutions and a linear layer: 2.2 million multiplications per 3x32x32 image.

    Args:
        generator: of the weights. Torch's own is left alone: other models may be using it.
    """
    channels, height, width = input_shape
    coarser = max(1, max(height, width) // _SIDE)
    pool = nn.AvgPool2d((min(coarser, height), min(coarser, width)))
    network = nn.Sequential(
        pool if coarser > 1 else nn.Identity(),
        *_layer(channels, _WIDTH, stride=2),
        *_layer(_WIDTH, 2 * _WIDTH, stride=2),
        *_layer(2 * _WIDTH, 2 * _WIDTH, stride=1),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        skip_init(nn.Linear, 32 * _WIDTH, num_classes),
    )
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _start(layer, generator)
    return network


def _start(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """The weights that torch would draw: uniform, as far from 0 as 1 / sqrt(inputs)."""
    bound = layer.weight[0].numel() ** -0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _layer(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = skip_init(nn.Conv2d, inputs, outputs, 3, stride, padding=1)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
