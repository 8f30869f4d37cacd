#include "circuit/io/to_tensor.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/io/safetensors.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

TEST_CASE("to_tensor: a tensor outlives its file object, and so does a view of it") {
  const Folder folder;
  write_safetensors(folder.path / "a", std::vector{to_view("x", at::arange(6, at::kFloat).reshape({2, 3}))});
  at::Tensor row;
  {
    const auto file = open_safetensors(folder.path / "a");
    row = to_tensor(file.get("x")).select(0, 1);
  }
  std::filesystem::remove(folder.path / "a");
  CHECK(row.sum().item<double>() == 12);
}

TEST_CASE("to_tensor: no bytes are copied when they are aligned, and writing to them changes no file") {
  const Folder folder;
  const auto path = folder.path / "a";
  write_safetensors(path, std::vector{to_view("x", at::arange(6, at::kDouble))});
  const auto before = bytes_of(path);
  const auto file = open_safetensors(path);
  auto x = to_tensor(file.get("x"));
  CHECK(x.data_ptr() == file.get("x").bytes.data());
  x.fill_(7);
  CHECK(to_tensor(file.get("x")).sum().item<double>() == 42);
  CHECK(bytes_of(path) == before);
}

TEST_CASE("to_tensor: bytes that are misaligned for their type are copied") {
  const Folder folder;
  const std::string header = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  REQUIRE((8 + header.size()) % 4 != 0);
  const auto file = open_safetensors(folder.file("a", safetensors(header, raw(1.5F) + raw(-2.5F))));
  const auto x = to_tensor(file.get("x"));
  CHECK(x.data_ptr() != file.get("x").bytes.data());
  CHECK(x[0].item<float>() == 1.5F);
  CHECK(x[1].item<float>() == -2.5F);
}

TEST_CASE("to_tensor: every element type, scalars and empty tensors come back as they were") {
  const Folder folder;
  const std::vector tensors{
      at::arange(4, at::kHalf), at::arange(4, at::kBFloat16), at::arange(4, at::kFloat), at::arange(4, at::kDouble),
      at::arange(4, at::kChar), at::arange(4, at::kByte),     at::arange(4, at::kShort), at::arange(4, at::kInt),
      at::arange(4, at::kLong), at::arange(4).gt(1),          at::arange(4)[3],          at::zeros({3, 0, 2})};
  std::vector<TensorView> views;
  for (std::size_t i = 0; i < tensors.size(); ++i) views.push_back(to_view(std::to_string(i), tensors[i]));
  write_safetensors(folder.path / "a", views);
  const auto file = open_safetensors(folder.path / "a");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    INFO("tensor " << i);
    const auto got = to_tensor(file.get(std::to_string(i)));
    CHECK(got.scalar_type() == tensors[i].scalar_type());
    CHECK(got.sizes() == tensors[i].sizes());
    CHECK(got.equal(tensors[i]));
  }
}

TEST_CASE("to_tensor: a tensor that is not contiguous is written row-major") {
  const Folder folder;
  const auto x = at::arange(6, at::kFloat).reshape({2, 3}).t();
  write_safetensors(folder.path / "a", std::vector{to_view("x", x)});
  CHECK(to_tensor(open_safetensors(folder.path / "a").get("x")).equal(x));
}

TEST_CASE("to_tensor: a type that no file of ours can hold is refused") {
  CHECK_THROWS_AS(to_view("x", at::zeros({1}, at::kComplexFloat)), DTypeError);
}
