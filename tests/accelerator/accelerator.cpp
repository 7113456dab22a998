// An accelerator that is none: tensors on the device "privateuseone" lie in ordinary memory and are
// computed by the CPU, but they mix with tensors on the CPU no more than those on a GPU do.

#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

namespace {
using at::Tensor;
using c10::SymIntArrayRef;
constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr auto kKey = c10::DispatchKey::PrivateUse1;
const c10::Device kDevice(kType, 0);

// One device, with number 0 and one stream; all is done at once, so that there is nothing to wait for.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? c10::alloc_cpu(bytes) : nullptr;
    return {data, data, &c10::free_cpu, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};
Memory memory;
REGISTER_ALLOCATOR(kType, &memory);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
};

// The same memory as a tensor on the CPU.
Tensor on_cpu(const Tensor& x) {
  if (!x.defined() || x.device().type() != kType) return x;
  const auto& storage = x.storage();
  auto* data = const_cast<void*>(storage.data());
  c10::Storage same(c10::Storage::use_byte_size_t(), storage.nbytes(),
                    c10::DataPtr(data, c10::Device(c10::kCPU)), nullptr, false);
  Tensor empty = at::empty({0}, x.options().device(c10::kCPU));
  return empty.set_(same, x.storage_offset(), x.sizes(), x.strides());
}
Tensor back(const Tensor& x) { return x.defined() ? x.to(kDevice) : x; }

// What a GPU allows on the CPU: tensors without dimensions, and positions that index.
void require_one_device(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const std::string& name = op.schema().name();
  if (name == "aten::index") return;
  auto require = [&](const Tensor& x) {
    TORCH_CHECK(!x.defined() || x.device().type() == kType || x.dim() == 0,
                "Expected all tensors to be on the same device: ", name, " has one on ", x.device());
  };
  for (auto it = stack.end() - op.schema().arguments().size(); it != stack.end(); ++it) {
    if (it->isTensor()) require(it->toTensor());
    if (it->isTensorList())
      for (const Tensor& x : it->toTensorList()) require(x);
    if (it->isGenerator())
      TORCH_CHECK(it->toGenerator().device().type() == kType, "Expected a generator of the device");
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  require_one_device(op, *stack);
  at::native::cpu_fallback(op, stack);
}

Tensor convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                   SymIntArrayRef stride, SymIntArrayRef padding, SymIntArrayRef dilation,
                   bool transposed, SymIntArrayRef output_padding, c10::SymInt groups) {
  const bool biased = bias && bias->defined();
  TORCH_CHECK(x.device() == weight.device() && (!biased || bias->device() == x.device()),
              "Expected all tensors to be on the same device: convolution");
  std::optional<Tensor> own;
  if (biased) own = on_cpu(*bias);
  return back(at::convolution_symint(on_cpu(x), on_cpu(weight), own, stride, padding, dilation,
                                     transposed, output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, SymIntArrayRef stride,
    SymIntArrayRef padding, SymIntArrayRef dilation, bool transposed,
    SymIntArrayRef output_padding, c10::SymInt groups, std::array<bool, 3> mask) {
  std::vector<c10::SymInt> bias{gradient.sym_size(1)};
  auto [a, b, c] = at::convolution_backward_symint(
      on_cpu(gradient), on_cpu(x), on_cpu(weight), at::OptionalSymIntArrayRef(bias), stride,
      padding, dilation, transposed, output_padding, groups, mask);
  return {back(a), back(b), back(c)};
}

// Its schema does not say that training changes the running statistics: the fallback loses that.
std::tuple<Tensor, Tensor, Tensor> batch_norm(
    const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
    const std::optional<Tensor>& mean, const std::optional<Tensor>& variance, bool training,
    double momentum, double epsilon) {
  const auto own = [&x](const std::optional<Tensor>& one) -> std::optional<Tensor> {
    if (!one || !one->defined()) return std::nullopt;
    TORCH_CHECK(one->device() == x.device(),
                "Expected all tensors to be on the same device: batch_norm");
    return on_cpu(*one);
  };
  auto [a, b, c] = at::native_batch_norm(on_cpu(x), own(weight), own(bias), own(mean),
                                         own(variance), training, momentum, epsilon);
  return {back(a), back(b), back(c)};
}
}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", [](SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                                         std::optional<at::Layout>, std::optional<at::Device>,
                                         std::optional<bool>,
                                         std::optional<at::MemoryFormat> format) {
    return Tensor(at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory,
                                            c10::DispatchKeySet(kKey),
                                            c10::dtype_or_default(dtype), format));
  });
  library.impl("empty_strided", [](SymIntArrayRef size, SymIntArrayRef stride,
                                   std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                                   std::optional<at::Device>, std::optional<bool>) {
    return Tensor(at::detail::empty_strided_generic(
        C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
        c10::DispatchKeySet(kKey), c10::dtype_or_default(dtype)));
  });
  library.impl("_copy_from", [](const Tensor& from, const Tensor& to, bool) {
    at::NoGradGuard guard;
    on_cpu(to).copy_(on_cpu(from));
    return to;
  });
  library.impl("_copy_from_and_resize", [](const Tensor& from, const Tensor& to) {
    at::NoGradGuard guard;
    on_cpu(to.resize_(from.sizes())).copy_(on_cpu(from));
    return to;
  });
  library.impl("_local_scalar_dense",
               [](const Tensor& x) { return at::_local_scalar_dense(on_cpu(x)); });
  library.impl("convolution_overrideable", &convolution);
  library.impl("convolution_backward_overrideable", &convolution_backward);
  library.impl("native_batch_norm", &batch_norm);
  library.impl("unfold", &at::native::unfold);
  library.impl("view", [](const Tensor& x, SymIntArrayRef size) {
    return at::native::view(x, C10_AS_INTARRAYREF_SLOW(size));
  });
  library.impl("_reshape_alias", [](const Tensor& x, SymIntArrayRef size, SymIntArrayRef stride) {
    return at::native::_reshape_alias(x, C10_AS_INTARRAYREF_SLOW(size),
                                      C10_AS_INTARRAYREF_SLOW(stride));
  });
  library.impl("as_strided", [](const Tensor& x, SymIntArrayRef size, SymIntArrayRef stride,
                                std::optional<c10::SymInt> offset) {
    std::optional<int64_t> start;
    if (offset) start = offset->expect_int();
    return at::native::as_strided_tensorimpl(x, C10_AS_INTARRAYREF_SLOW(size),
                                             C10_AS_INTARRAYREF_SLOW(stride), start);
  });
  library.impl("set_.source_Storage_storage_offset",
               [](Tensor& x, at::Storage source, c10::SymInt offset, SymIntArrayRef size,
                  SymIntArrayRef stride) -> Tensor& {
                 return at::native::set_storage_cpu_(x, source, offset.expect_int(),
                                                     C10_AS_INTARRAYREF_SLOW(size),
                                                     C10_AS_INTARRAYREF_SLOW(stride));
               });
  library.impl("resize_", [](const Tensor& x, SymIntArrayRef size,
                             std::optional<at::MemoryFormat> format) -> const Tensor& {
    return at::native::resize_(x, C10_AS_INTARRAYREF_SLOW(size), format);
  });
}
