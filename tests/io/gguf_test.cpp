#include "circuit/io/gguf.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "files.hpp"
#include "gguf_builder.hpp"

using namespace circuit;
using namespace circuit_test;
using circuit_test::gguf::list;
using circuit_test::gguf::tensor;
using circuit_test::gguf::text;
using circuit_test::gguf::value;
using File = circuit_test::gguf::File;

namespace {

GgufFile open_bytes(const std::string& bytes) {
  const Folder folder;
  return open_gguf(folder.file("a.gguf", bytes));
}

template <class E = FormatError>
std::string gguf_error(const std::string& bytes) {
  return said<E>([&] { (void)open_bytes(bytes); });
}
std::string gguf_error(const File& file) { return gguf_error(file.bytes()); }

std::string float_bytes(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += raw(static_cast<float>(i));
  return bytes;
}

/// One value of every type.
File rich() {
  return {.values = {value("general.architecture", 8, text("llama")), value("u8", 0, raw(std::uint8_t{200})),
                     value("i8", 1, raw(std::int8_t{-3})), value("u16", 2, raw(std::uint16_t{60000})),
                     value("i16", 3, raw(std::int16_t{-300})), value("llama.block_count", 30),
                     value("i32", 5, raw(std::int32_t{-70000})), value("f32", 6, raw(1.5F)), value("yes", 7, raw(true)),
                     value("u64", 10, raw(std::uint64_t{1} << 63U)), value("i64", 11, raw(std::int64_t{-1} << 40U)),
                     value("f64", 12, raw(0.1)),
                     list("tokenizer.ggml.tokens", 8, 3, text("a") + text("") + text("\xC3\xA9")),
                     list("tokenizer.ggml.token_type", 5, 2, raw(std::int32_t{1}) + raw(std::int32_t{3})),
                     list("flags", 7, 2, raw(true) + raw(false)), list("none", 6, 0, "")},
          .tensors = {tensor("w", {3, 2}, 0, 0), tensor("q", {32, 1, 2}, 8, 32), tensor("scalar", {}, 28, 128)},
          .data = float_bytes(6) + std::string(8, '\0') + std::string(68, '\x11') + std::string(28, '\0') + raw(0.25)};
}

}  // namespace

TEST_CASE("gguf: both versions give tensors in row-major shapes, mapped") {
  for (const std::uint32_t version : {2U, 3U}) {
    auto made = rich();
    made.version = version;
    const auto file = open_bytes(made.bytes());
    REQUIRE(file.tensors().size() == 3);
    const auto& w = file.tensors()[0];
    CHECK(w.name == "w");
    CHECK(w.shape == std::vector<std::int64_t>{2, 3});
    CHECK(std::string{reinterpret_cast<const char*>(w.bytes.data()), w.bytes.size()} == float_bytes(6));
    const auto& q = file.get("q");
    CHECK(q.type == GgmlType::q8_0);
    CHECK(q.shape == std::vector<std::int64_t>{2, 1, 32});
    CHECK(q.bytes.size() == 68);
    CHECK(q.rows() == 2);
    CHECK(q.row_range(1, 1).data() == q.bytes.data() + 34);
    const auto& scalar = file.get("scalar");
    CHECK(scalar.shape.empty());
    CHECK(scalar.rows() == 1);
    CHECK(detail::gguf::load<double>(scalar.bytes.data()) == 0.25);
  }
}

TEST_CASE("gguf: a tensor of plain numbers is a view like any other file's, a quantised one is not") {
  const auto file = open_bytes(rich().bytes());
  const auto view = plain_view(file.get("w"));
  REQUIRE(view);
  CHECK(view->dtype == DType::f32);
  CHECK(view->shape == std::vector<std::int64_t>{2, 3});
  CHECK(view->bytes.data() == file.get("w").bytes.data());
  CHECK(plain_view(file.get("scalar"))->dtype == DType::f64);
  CHECK_FALSE(plain_view(file.get("q")));
}

TEST_CASE("gguf: a tensor and a text outlive their file object") {
  GgufTensor kept;
  GgufMetadata metadata;
  {
    const auto file = open_bytes(rich().bytes());
    kept = file.get("w");
    metadata = file.metadata();
  }
  CHECK(metadata.require<std::string_view>("general.architecture") == "llama");
  CHECK(detail::gguf::load<float>(kept.bytes.data() + 20) == 5);
}

TEST_CASE("gguf: metadata of every type is read into every type that holds it") {
  const auto file = open_bytes(rich().bytes());
  const auto& m = file.metadata();
  CHECK(m.values().size() == 16);
  CHECK(m.require<std::string>("general.architecture") == "llama");
  CHECK(m.require<std::int64_t>("u8") == 200);
  CHECK(m.require<int>("i8") == -3);
  CHECK(m.require<std::uint16_t>("u16") == 60000);
  CHECK(m.require<int>("i16") == -300);
  CHECK(m.require<std::size_t>("llama.block_count") == 30);
  CHECK(m.require<double>("llama.block_count") == 30.0);
  CHECK(m.require<int>("i32") == -70000);
  CHECK(m.require<double>("f32") == 1.5);
  CHECK(m.require<bool>("yes"));
  CHECK(m.require<std::uint64_t>("u64") == std::uint64_t{1} << 63U);
  CHECK(m.require<std::int64_t>("i64") == -(std::int64_t{1} << 40U));
  CHECK(m.require<double>("f64") == 0.1);
  CHECK(m.require<std::vector<std::string_view>>("tokenizer.ggml.tokens") ==
        std::vector<std::string_view>{"a", "", "\xC3\xA9"});
  CHECK(m.require<std::vector<std::string>>("tokenizer.ggml.tokens").at(2) == "\xC3\xA9");
  CHECK(m.require<std::vector<int>>("tokenizer.ggml.token_type") == std::vector{1, 3});
  CHECK(m.require<std::vector<bool>>("flags") == std::vector{true, false});
  CHECK(m.require<std::vector<float>>("none").empty());
  CHECK(m.value_or("absent", 7) == 7);
  CHECK(m.value_or("i8", 7) == -3);
  CHECK_FALSE(m.contains("absent"));
}

TEST_CASE("gguf: metadata as the Python package writes it is read") {
  const auto file = open_gguf(std::filesystem::path{CIRCUIT_TEST_DATA} / "gguf/blocks.gguf");
  const auto& m = file.metadata();
  CHECK(m.require<std::string>("general.architecture") == "none");
  CHECK(m.require<std::uint64_t>("test.uint64") == std::numeric_limits<std::uint64_t>::max());
  CHECK(m.require<std::int64_t>("test.int64") == std::numeric_limits<std::int64_t>::max());
  CHECK(m.require<int>("test.int8") == 127);
  CHECK(m.require<float>("test.float32") == 0.1F);
  CHECK(m.require<double>("test.float64") == 0.1);
  CHECK(m.require<bool>("test.bool"));
  CHECK(m.require<std::vector<std::string>>("test.texts") == std::vector<std::string>{"a", "", "\xC3\xA9\xE4\xB8\xAD"});
  CHECK(m.require<std::vector<std::int64_t>>("test.numbers") == std::vector<std::int64_t>{-1, 0, 2147483647});
}

TEST_CASE("gguf: metadata that is missing or of another type is refused by key, with the nearest ones") {
  const auto file = open_bytes(rich().bytes());
  const auto& m = file.metadata();
  const auto wrong = [&]<class T>(T, const char* key) { return said<ConfigError>([&] { (void)m.require<T>(key); }); };
  CHECK_THAT(wrong(0, "llama.block_cuont"),
             ContainsSubstring("a.gguf") && ContainsSubstring("did you mean \"llama.block_count\""));
  CHECK_THAT(wrong(std::uint8_t{}, "i8"), ContainsSubstring("a whole number, 0 or more, got -3"));
  CHECK_THAT(wrong(std::int64_t{}, "u64"), ContainsSubstring("got 9223372036854775808"));
  CHECK_THAT(wrong(0, "f32"), ContainsSubstring("expected a whole number, got 1.5"));
  CHECK_THAT(wrong(0, "yes"), ContainsSubstring("got true"));
  CHECK_THAT(wrong(true, "u8"), ContainsSubstring("expected a boolean, got 200"));
  CHECK_THAT(wrong(0, "general.architecture"), ContainsSubstring("got \"llama\""));
  CHECK_THAT(wrong(std::string{}, "tokenizer.ggml.tokens"), ContainsSubstring("got list of 3 texts"));
  CHECK_THAT(wrong(std::vector<int>{}, "tokenizer.ggml.tokens"), ContainsSubstring("a list, each a whole number"));
  CHECK_THAT(wrong(std::vector<int>{}, "i8"), ContainsSubstring("got -3"));
}

TEST_CASE("gguf: a tensor that is missing is answered with the nearest ones") {
  const auto file = open_bytes(rich().bytes());
  CHECK_THAT(said<NameError>([&] { (void)file.get("scaler"); }), ContainsSubstring("did you mean \"scalar\""));
  CHECK(file.find("scaler") == nullptr);
}

TEST_CASE("gguf: another alignment is kept to") {
  const File made{.values = {value("general.alignment", 64)},
                  .tensors = {tensor("a", {1}, 0, 64), tensor("b", {1}, 0, 0)},
                  .data = raw(2.0F) + std::string(60, '\0') + raw(1.0F),
                  .alignment = 64};
  const auto file = open_bytes(made.bytes());
  CHECK(detail::gguf::load<float>(file.get("a").bytes.data()) == 1);
  CHECK(detail::gguf::load<float>(file.get("b").bytes.data()) == 2);
  CHECK(file.tensors()[0].name == "a");
  for (const std::uint32_t alignment : {0U, 33U, 1U << 30U}) {
    CHECK_THAT(gguf_error(File{.values = {value("general.alignment", alignment)}}),
               ContainsSubstring("general.alignment") && ContainsSubstring("got " + std::to_string(alignment)));
  }
}

TEST_CASE("gguf: truncation is refused, wherever it falls") {
  const auto whole = rich().bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO("first " << size << " bytes");
    CHECK_FALSE(gguf_error(whole.substr(0, size)).empty());
  }
}

TEST_CASE("gguf: other files, versions and byte orders are refused") {
  CHECK_THAT(gguf_error(std::string{"PK\x03\x04 and so on"}), ContainsSubstring("not a GGUF file"));
  CHECK_THAT(gguf_error(std::string{}), ContainsSubstring("not a GGUF file"));
  CHECK_THAT(gguf_error(File{.version = 1}), ContainsSubstring("expected 2 or 3, got 1"));
  CHECK_THAT(gguf_error(File{.version = 4}), ContainsSubstring("got 4"));
  CHECK_THAT(gguf_error(File{.version = 0x03000000}), ContainsSubstring("big-endian"));
  CHECK_THAT(gguf_error(File{.values = {value("split.count", 2, raw(std::uint16_t{3}))}}),
             ContainsSubstring("one part of a model"));
}

TEST_CASE("gguf: counts that cannot be are refused before anything is allocated") {
  constexpr auto huge = std::numeric_limits<std::uint64_t>::max();
  const auto head = "GGUF" + raw(std::uint32_t{3});
  CHECK_THAT(gguf_error(head + raw(huge) + raw(std::uint64_t{0})), ContainsSubstring("impossible counts"));
  CHECK_THAT(gguf_error(head + raw(std::uint64_t{0}) + raw(huge)), ContainsSubstring("impossible counts"));
  for (const std::uint32_t type : {0U, 8U, 12U}) {
    CHECK_THAT(gguf_error(File{.values = {list("long", type, huge / 8 + 1, std::string(64, '\0'))}}),
               ContainsSubstring("\"long\"") && ContainsSubstring("impossible length of a list"));
  }
  CHECK_THAT(gguf_error(File{.values = {value("s", 8, raw(huge) + "abc")}}),
             ContainsSubstring("\"s\"") && ContainsSubstring("ends too early"));
  CHECK_THAT(gguf_error(File{.values = {raw(huge) + std::string(20, '\0')}}),
             ContainsSubstring("length of the next key"));
  CHECK_THAT(gguf_error(File{.tensors = {raw(huge) + std::string(20, '\0')}}),
             ContainsSubstring("length of the next tensor name"));
  CHECK_THAT(gguf_error(File{.tensors = {tensor("t", {1, 1, 1, 1, 1}, 0, 0)}}), ContainsSubstring("too many axes"));
}

TEST_CASE("gguf: metadata that is no metadata is refused by key") {
  CHECK_THAT(gguf_error(File{.values = {value("k", 13, "....")}}),
             ContainsSubstring("\"k\"") && ContainsSubstring("unknown metadata type") && ContainsSubstring("got 13"));
  CHECK_THAT(gguf_error(File{.values = {value("k", 7, "\x02")}}), ContainsSubstring("neither 0 nor 1"));
  CHECK_THAT(gguf_error(File{.values = {list("k", 9, 1, raw(std::uint32_t{0}) + raw(std::uint64_t{0}))}}),
             ContainsSubstring("lists of lists"));
  CHECK_THAT(gguf_error(File{.values = {value("k", 1), value("k", 2)}}),
             ContainsSubstring("\"k\"") && ContainsSubstring("there twice"));
  CHECK_THAT(gguf_error(File{.values = {value("\xFF", 1)}}), ContainsSubstring("not UTF-8"));
}

TEST_CASE("gguf: tensors that overlap, leave the file or cannot be are refused by name") {
  const auto with = [](std::vector<std::string> tensors, std::size_t bytes = 64) {
    return gguf_error(File{.tensors = std::move(tensors), .data = std::string(bytes, '\0')});
  };
  CHECK_THAT(with({tensor("a", {16}, 0, 0), tensor("b", {8}, 0, 32)}),
             ContainsSubstring("\"b\"") && ContainsSubstring("overlaps the tensor \"a\""));
  CHECK_THAT(with({tensor("a", {8}, 0, 0), tensor("b", {8}, 0, 0)}), ContainsSubstring("overlaps"));
  CHECK_THAT(with({tensor("a", {17}, 0, 0)}), ContainsSubstring("\"a\"") && ContainsSubstring("leaves the file"));
  CHECK_THAT(with({tensor("a", {1}, 0, std::uint64_t{1} << 63U)}), ContainsSubstring("leaves the file"));
  CHECK_THAT(with({tensor("a", {1}, 0, 4)}), ContainsSubstring("misaligned data") && ContainsSubstring("got 4"));
  CHECK_THAT(with({tensor("a", {8}, 0, 0), tensor("a", {8}, 0, 32)}), ContainsSubstring("there twice"));
  CHECK_THAT(with({tensor("a", {~std::uint64_t{0}}, 0, 0)}), ContainsSubstring("impossible shape"));
  CHECK_THAT(with({tensor("a", {1U << 31U, 1U << 31U, 1U << 31U}, 0, 0)}), ContainsSubstring("impossible shape"));
  CHECK_THAT(with({tensor("a", {33}, 8, 0)}),
             ContainsSubstring("a row of Q8_0 must be whole blocks") && ContainsSubstring("divisible by 32"));
}

TEST_CASE("gguf: an element type that nobody knows is refused by its number") {
  for (const std::uint32_t type : {4U, 1000U}) {
    const File made{.tensors = {tensor("a", {32}, type, 0)}, .data = std::string(64, '\0')};
    CHECK_THAT(gguf_error<DTypeError>(made.bytes()),
               ContainsSubstring("\"a\"") && ContainsSubstring("got " + std::to_string(type)));
  }
}

TEST_CASE("gguf: a missing file and a folder are file errors") {
  const Folder folder;
  CHECK_THAT(said<FileError>([&] { (void)open_gguf(folder.path / "none"); }), ContainsSubstring("No such file"));
  CHECK_THAT(said<FileError>([&] { (void)open_gguf(folder.path); }), ContainsSubstring("not a regular file"));
}
