#include "circuit/core/host_array.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "tensors.hpp"

using namespace circuit;

TEST_CASE("a tensor and a host array hold the same elements in the same places, both ways") {
  const auto tensor = at::arange(24, at::kDouble).view({2, 3, 4}).transpose(0, 2);  // not contiguous
  const auto array = to_host(tensor);
  REQUIRE(array.dimension() == 3);
  REQUIRE(array.shape(0) == 4);
  REQUIRE(array(3, 1, 0) == tensor[3][1][0].item<double>());
  REQUIRE_CLOSE(from_host(array), tensor, 0.0);
}

TEST_CASE("a host array is a copy: changing it leaves the tensor alone") {
  const auto tensor = at::ones({3});
  auto array = to_host<float>(tensor);
  array(1) = 5;
  REQUIRE(tensor[1].item<float>() == 1);
}

TEST_CASE("scalars, empty tensors and integers cross the border") {
  REQUIRE(to_host(at::full({}, 2.5)).dimension() == 0);
  REQUIRE(to_host(at::full({}, 2.5))() == 2.5);
  REQUIRE(to_host(at::zeros({0, 3})).size() == 0);
  REQUIRE(to_host<std::int64_t>(at::arange(3, at::kLong))(2) == 2);
}
