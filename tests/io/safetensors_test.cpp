#include "circuit/io/safetensors.hpp"

#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

template <class T>
TensorView view(std::string name, DType dtype, std::vector<std::int64_t> shape, std::span<const T> values) {
  return {.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .bytes = std::as_bytes(values)};
}

std::string open_error(const std::string& bytes) {
  const Folder folder;
  const auto path = folder.file("bad.safetensors", bytes);
  return said<FormatError>([&] { (void)open_safetensors(path); });
}

const std::string two_floats(8, '\0');

}  // namespace

TEST_CASE("safetensors: what is written is read back, with its order by data, names, shapes and metadata") {
  const Folder folder;
  const auto path = folder.path / "a.safetensors";
  const std::array<float, 6> matrix{1, -2, 3, 4.5F, std::numeric_limits<float>::infinity(), -0.0F};
  const std::array<double, 1> scalar{0.1};
  const std::array<std::uint8_t, 3> flags{1, 0, 1};
  const std::array<std::int64_t, 0> none{};
  const std::vector tensors{
      view<std::uint8_t>("flags", DType::boolean, {3}, flags), view<float>("m/\xC3\xA9", DType::f32, {2, 3}, matrix),
      view<std::int64_t>("none", DType::i64, {0, 4}, none), view<double>("scalar", DType::f64, {}, scalar)};
  write_safetensors(path, tensors, {{"format", "pt"}, {"by", "a test"}});

  const auto file = open_safetensors(path);
  REQUIRE(file.tensors().size() == tensors.size());
  for (const auto& expected : tensors) {
    const auto& got = file.get(expected.name);
    CHECK(got.dtype == expected.dtype);
    CHECK(got.shape == expected.shape);
    CHECK(std::equal(got.bytes.begin(), got.bytes.end(), expected.bytes.begin(), expected.bytes.end()));
    CHECK(reinterpret_cast<std::uintptr_t>(got.bytes.data()) % item_size(got.dtype) == 0);
  }
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"by", "a test"}});
  CHECK(file.find("nothing") == nullptr);
}

TEST_CASE("safetensors: every element type keeps its name and size") {
  const Folder folder;
  const std::vector<std::byte> bytes(8, std::byte{7});
  std::vector<TensorView> tensors;
  for (const auto dtype : {DType::f16, DType::bf16, DType::f32, DType::f64, DType::i8, DType::u8, DType::i16,
                           DType::i32, DType::i64, DType::boolean}) {
    tensors.push_back({.name = std::string{dtype_name(dtype)},
                       .dtype = dtype,
                       .shape = {static_cast<std::int64_t>(8 / item_size(dtype))},
                       .bytes = bytes});
  }
  write_safetensors(folder.path / "a", tensors);
  const auto file = open_safetensors(folder.path / "a");
  REQUIRE(file.tensors().size() == 10);
  for (const auto& tensor : file.tensors()) CHECK(tensor.name == dtype_name(tensor.dtype));
}

TEST_CASE("safetensors: files of the reference implementation are read") {
  const auto file = open_safetensors(std::filesystem::path{CIRCUIT_TEST_DATA} / "golden/model/model.safetensors");
  CHECK(file.get("transformer.wte.weight").shape == std::vector<std::int64_t>{101, 32});
  CHECK(file.get("transformer.wte.weight").dtype == DType::f32);
}

TEST_CASE("safetensors: a tensor outlives its file object") {
  const Folder folder;
  const std::array<float, 2> values{1.5F, 2.5F};
  const std::vector tensors{view<float>("x", DType::f32, {2}, values)};
  write_safetensors(folder.path / "a", tensors);
  TensorView kept;
  {
    const auto file = open_safetensors(folder.path / "a");
    kept = file.get("x");
  }
  float second = 0;
  std::memcpy(&second, kept.bytes.data() + 4, sizeof second);
  CHECK(second == 2.5F);
}

TEST_CASE("safetensors: a name that is missing is answered with the nearest ones") {
  const Folder folder;
  const std::array<float, 1> value{1};
  const std::vector tensors{view<float>("W_enc", DType::f32, {1}, value), view<float>("b_enc", DType::f32, {1}, value)};
  write_safetensors(folder.path / "a", tensors);
  const auto file = open_safetensors(folder.path / "a");
  const auto text = said<NameError>([&] { (void)file.get("W_ecn"); });
  CHECK_THAT(text, ContainsSubstring("W_ecn") && ContainsSubstring("did you mean \"W_enc\""));
}

TEST_CASE("safetensors: a missing file and a folder are file errors") {
  const Folder folder;
  CHECK_THAT(said<FileError>([&] { (void)open_safetensors(folder.path / "none"); }), ContainsSubstring("No such file"));
  CHECK_THAT(said<FileError>([&] { (void)open_safetensors(folder.path); }), ContainsSubstring("not a regular file"));
}

TEST_CASE("safetensors: truncation is refused, wherever it falls") {
  const auto whole =
      safetensors(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", std::string("\0\0\x80?\0\0\0@", 8));
  const Folder folder;
  REQUIRE(open_safetensors(folder.file("whole", whole)).tensors().size() == 1);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO("first " << size << " bytes");
    CHECK_FALSE(open_error(whole.substr(0, size)).empty());
  }
}

TEST_CASE("safetensors: a header that is too long, not an object or not JSON is refused") {
  CHECK_THAT(open_error(std::string(8, '\xFF') + "{}"), ContainsSubstring("the header does not fit"));
  CHECK_THAT(open_error(safetensors("[]", "")), ContainsSubstring("not a JSON object"));
  CHECK_THAT(open_error(safetensors("{\"x\":", "")), ContainsSubstring("not valid JSON at line 1"));
  CHECK_THAT(open_error(safetensors("{\"x\":" + std::string(5000, '[') + std::string(5000, ']') + "}", "")),
             ContainsSubstring("nested deeper"));
}

TEST_CASE("safetensors: tensors that leave the data, overlap or leave gaps are refused") {
  CHECK_THAT(open_error(safetensors(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", two_floats)),
             ContainsSubstring("\"x\"") && ContainsSubstring("data_offsets leave the file"));
  CHECK_THAT(open_error(safetensors(R"({"x":{"dtype":"F32","shape":[0],"data_offsets":[8,4]}})", two_floats)),
             ContainsSubstring("data_offsets leave the file"));
  CHECK_THAT(open_error(safetensors(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                    R"("y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                                    two_floats)),
             ContainsSubstring("\"y\"") && ContainsSubstring("overlaps"));
  CHECK_THAT(open_error(safetensors(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", two_floats)),
             ContainsSubstring("unused bytes before"));
  CHECK_THAT(open_error(safetensors(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", two_floats)),
             ContainsSubstring("unused bytes after"));
}

TEST_CASE("safetensors: shapes that disagree with their length, are negative or overflow are refused") {
  const auto with_shape = [](const std::string& shape) {
    return open_error(
        safetensors(R"({"x":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,8]}})", two_floats));
  };
  CHECK_THAT(with_shape("[3]"), ContainsSubstring("expected 12 bytes for [3], got 8"));
  CHECK_THAT(with_shape("[-2]"), ContainsSubstring("impossible shape"));
  CHECK_THAT(with_shape("[4294967296,4294967296,4294967296]"), ContainsSubstring("impossible shape"));
  CHECK_THAT(with_shape("[9223372036854775807,2]"), ContainsSubstring("impossible shape"));
  CHECK_THAT(with_shape("[2,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), ContainsSubstring("impossible shape"));
  CHECK_THAT(with_shape("[2.0]"), ContainsSubstring("\\\"shape\\\"") || ContainsSubstring("\"shape\""));
  CHECK_THAT(with_shape("\"2\""), ContainsSubstring("\"shape\""));
}

TEST_CASE("safetensors: a tensor or field given twice is refused") {
  const std::string entry = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  CHECK_THAT(open_error(safetensors("{" + entry + "," + entry + "}", two_floats)), ContainsSubstring("twice"));
  CHECK_THAT(
      open_error(safetensors(R"({"x":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", two_floats)),
      ContainsSubstring("twice"));
}

TEST_CASE("safetensors: an unknown element type names itself") {
  const Folder folder;
  const auto path =
      folder.file("a", safetensors(R"({"x":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", two_floats));
  CHECK_THAT(said<DTypeError>([&] { (void)open_safetensors(path); }),
             ContainsSubstring("\"x\"") && ContainsSubstring("F8_E4M3"));
}

TEST_CASE("safetensors: metadata must be strings") {
  CHECK_THAT(open_error(safetensors(R"({"__metadata__":{"a":1}})", "")), ContainsSubstring("__metadata__"));
}

TEST_CASE("safetensors: nothing is left behind by a write that is refused") {
  const Folder folder;
  const std::array<float, 2> values{1, 2};
  const std::vector wrong{view<float>("x", DType::f32, {3}, values)};
  CHECK_THROWS_AS(write_safetensors(folder.path / "a", wrong), ShapeError);
  const std::vector twice{view<float>("x", DType::f32, {2}, values), view<float>("x", DType::f32, {2}, values)};
  CHECK_THROWS_AS(write_safetensors(folder.path / "a", twice), NameError);
  CHECK(std::filesystem::is_empty(folder.path));
}

TEST_CASE("safetensors: texts that are not UTF-8 cannot be written") {
  const Folder folder;
  const std::vector<std::byte> data(4);
  const auto named = [&](const std::string& name) {
    return std::vector<TensorView>{{.name = name, .dtype = DType::f32, .shape = {1}, .bytes = data}};
  };
  REQUIRE_THROWS_AS(write_safetensors(folder.path / "a.safetensors", named("a\xFF")), NameError);
  REQUIRE_THROWS_AS(write_safetensors(folder.path / "a.safetensors", named("a"), {{"key", "\xFF"}}), NameError);
  CHECK_FALSE(std::filesystem::exists(folder.path / "a.safetensors"));
}

TEST_CASE("safetensors: a named pipe is refused, not waited for") {
  const Folder folder;
  const auto path = folder.path / "pipe";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  REQUIRE_THROWS_AS(open_safetensors(path), FileError);
}

TEST_CASE("safetensors: pages given back are read from the file again") {
  const Folder folder;
  const std::vector<float> values(100'000, 3.0F);
  const std::vector tensors{view<float>("x", DType::f32, {100'000}, values)};
  write_safetensors(folder.path / "a", tensors);
  const auto file = open_safetensors(folder.path / "a");
  const auto& x = file.get("x");
  auto* const written = const_cast<std::byte*>(x.bytes.data()) + x.bytes.size() / 2;  // pages are private and writable
  const auto before = *written;
  *written = ~before;
  file.release(x);
  CHECK(*written == before);
  CHECK(std::memcmp(bytes_of(folder.path / "a").data() + bytes_of(folder.path / "a").size() - x.bytes.size(),
                    values.data(), x.bytes.size()) == 0);
}
