"""Which operators a graph of torch.export may use."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

# Operators that compute tensors from tensors and numbers. None reads or writes files (as
# aten::from_file does), takes storage or raw memory, or leaves memory uninitialised in a result.
_COMPUTE = """
abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d add addbmm addcdiv addcmul addmm alias all alpha_dropout
amax amin any arange argmax argmin argsort as_strided asin asinh atan atan2 atanh avg_pool1d
avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor bmm
broadcast_tensors broadcast_to bucketize cat ceil celu channel_shuffle chunk clamp clamp_max
clamp_min clip clone col2im concat constant_pad_nd contiguous conv1d conv2d conv3d
conv_transpose1d conv_transpose2d convolution copy cos cosh cosine_similarity count_nonzero cross
cumprod cumsum detach detach_ diag diagonal diff dist div divide dot dropout einsum elu embedding
eq erf erfc exp exp2 expand expand_as expm1 eye feature_dropout fft_fft2 fft_ifft2 fft_irfft2
fft_rfft2 fill flatten flip float_power floor floor_divide fmod frac full full_like gather ge gelu
glu greater greater_equal grid_sampler grid_sampler_2d group_norm gt hann_window hardshrink
hardsigmoid hardswish hardtanh hypot im2col imag index index_add index_put index_select inner
instance_norm isfinite isinf isnan item kron layer_norm le leaky_relu lerp less less_equal
lift_fresh_copy linalg_matmul linalg_norm linalg_vector_norm linear linspace log log10 log1p log2
log_sigmoid log_sigmoid_forward log_softmax logical_and logical_not logical_or logical_xor logit
logsumexp lt masked_fill masked_scatter masked_select matmul max max_pool1d max_pool2d
max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean median meshgrid min
minimum mish mm moveaxis movedim mse_loss mul multiply mv nan_to_num narrow native_batch_norm
native_dropout native_group_norm native_layer_norm ne neg negative new_full new_ones new_zeros
nonzero norm normal_functional not_equal numel numpy_T one_hot ones ones_like outer pad permute
pixel_shuffle pixel_unshuffle pow prelu prod ravel real reciprocal reflection_pad1d
reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad2d reshape
reshape_as rms_norm roll rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter
scatter_add scatter_reduce select select_scatter selu sigmoid sign silu sin sinc sinh slice
slice_scatter softmax softmin softplus softshrink sort special_erf special_expit split
split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes swapdims
sym_numel sym_size sym_storage_offset sym_stride t tan tanh tensor_split tensordot threshold tile
to topk trace transpose tril triu true_divide trunc type_as unbind unflatten unfold unsafe_chunk
unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d var var_mean vdot view view_as view_as_complex view_as_real where xlogy zero
zeros zeros_like _adaptive_avg_pool2d _fft_c2r _fft_r2c _fused_rms_norm _local_scalar_dense
_log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training _safe_softmax
_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
_scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_index _unsafe_view
_upsample_bicubic2d_aa _upsample_bilinear2d_aa _weight_norm
"""
_NAMES = frozenset(_COMPUTE.split())

_OPERATOR = """
add sub mul truediv floordiv mod pow neg pos eq ne lt le gt ge and_ or_ not_ getitem
"""
_SYMBOLIC = "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt"
_NUMBERS: Mapping[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _OPERATOR.split()},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{f"torch.{n}": getattr(torch, n) for n in _SYMBOLIC.split() if hasattr(torch, n)},
}

# What they check was known when the model was exported and says nothing about its scores.
_CHECKS = """
_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
_functional_assert_scalar sym_constrain_range sym_constrain_range_for_size
"""
_CHECK_NAMES = frozenset(_CHECKS.split())

_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_WITH_GRAPH = re.compile(
    r"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)"
)


def is_check(target: str) -> bool:
    """Whether the operator only checks something and returns nothing."""
    found = _ATEN.fullmatch(target)
    return found is not None and found[1] in _CHECK_NAMES


def resolve(target: str) -> Callable[..., Any] | None:
    """The function behind the serialised name of an operator; ``None`` if it is not allowed."""
    if target in _NUMBERS:
        return _NUMBERS[target]
    if _WITH_GRAPH.fullmatch(target):
        return _inline
    found = _ATEN.fullmatch(target)
    packet = getattr(torch.ops.aten, found[1], None) if found else None
    overload = getattr(packet, found[2], None) if found and found[2] in _overloads(packet) else None
    if found is None or not isinstance(overload, torch._ops.OpOverload):
        return None
    # An operator that works in place is called like the one that does not, and an underscore.
    known = found[1] in _NAMES or found[1].removesuffix("_") in _NAMES
    return overload if known else None


def _overloads(packet: object) -> tuple[str, ...]:
    return tuple(packet.overloads()) if isinstance(packet, torch._ops.OpOverloadPacket) else ()


def _inline(*arguments: Any) -> Any:
    """Call the graph among the arguments with those after it.

    The regions in which the exported program has gradients off or autocast on: the scan needs
    gradients and computes in float32.
    """
    index = next(i for i, value in enumerate(arguments) if callable(value))
    return arguments[index](*arguments[index + 1 :])
