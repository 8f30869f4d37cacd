#include "circuit/io/sharded.hpp"

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/io/torch_pickle.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

constexpr const char* index_name = "model.safetensors.index.json";

/// Two shards in a folder: "one" holds a and b, "two" holds c; every tensor is one float.
struct Model {
  Folder folder{};

  Model() {
    shard("one.safetensors", {{"a", 1.0F}, {"b", 2.0F}});
    shard("two.safetensors", {{"c", 3.0F}});
  }
  void shard(const std::string& name, const std::vector<std::pair<std::string, float>>& values) const {
    std::vector<TensorView> tensors;
    for (const auto& [tensor, value] : values) {
      tensors.push_back({.name = tensor, .shape = {1}, .bytes = std::as_bytes(std::span{&value, 1})});
    }
    write_safetensors(folder.path / name, tensors, {{"format", "pt"}});
  }
  [[nodiscard]] std::filesystem::path index(const std::string& text) const { return folder.file(index_name, text); }
  [[nodiscard]] TensorFile open(const std::string& weight_map) const {
    return open_sharded_safetensors(index(R"({"metadata":{"total_size":12},"weight_map":)" + weight_map + "}"));
  }
};

float value(const TensorView& tensor) {
  float v = 0;
  REQUIRE(tensor.bytes.size() == sizeof v);
  std::memcpy(&v, tensor.bytes.data(), sizeof v);
  return v;
}

constexpr const char* whole = R"({"a":"one.safetensors","c":"two.safetensors","b":"one.safetensors"})";

}  // namespace

TEST_CASE("sharded: the tensors of all shards are one file's") {
  const Model model;
  const auto file = model.open(whole);
  CHECK(file.tensors().size() == 3);
  CHECK(value(file.get("a")) == 1);
  CHECK(value(file.get("b")) == 2);
  CHECK(value(file.get("c")) == 3);
  CHECK(file.mappings().size() == 2);
  CHECK(file.path().filename() == index_name);
  CHECK(file.metadata().at("format") == "pt");
  CHECK_THAT(said<NameError>([&] { (void)file.get("aa"); }), ContainsSubstring("did you mean \"a\""));
  for (const auto& tensor : file.tensors()) file.release(tensor);
  CHECK(value(file.get("c")) == 3);
}

TEST_CASE("sharded: tensors outlive the file object, and what the index does not list is left out") {
  const Model model;
  TensorView kept;
  {
    const auto file = model.open(R"({"a":"one.safetensors"})");
    CHECK(file.find("b") == nullptr);
    kept = file.get("a");
  }
  CHECK(value(kept) == 1);
}

TEST_CASE("sharded: shards of PyTorch are read with open_torch") {
  const Model model;
  const auto golden = std::filesystem::path{CIRCUIT_TEST_DATA} / "state_dict";
  std::filesystem::copy(golden / "pytorch_model.bin", model.folder.path / "pytorch_model-00001-of-00001.bin");
  const auto file =
      open_sharded(model.index(R"({"weight_map":{"ln.weight":"pytorch_model-00001-of-00001.bin"}})"), open_torch);
  REQUIRE(file.tensors().size() == 1);
  CHECK(file.get("ln.weight").shape == std::vector<std::int64_t>{4});
}

TEST_CASE("sharded: a missing shard is refused by its name") {
  const Model model;
  CHECK_THAT(said<FileError>([&] { (void)model.open(R"({"a":"three.safetensors"})"); }),
             ContainsSubstring("three.safetensors") && ContainsSubstring("No such file"));
}

TEST_CASE("sharded: a tensor in a shard that lacks it is refused by both names") {
  const Model model;
  CHECK_THAT(said<FormatError>([&] { (void)model.open(R"({"a":"one.safetensors","d":"two.safetensors"})"); }),
             ContainsSubstring("two.safetensors: \"d\"") && ContainsSubstring("lacks"));
}

TEST_CASE("sharded: file names that leave the folder are refused") {
  const Model model;
  for (const std::string name : {"../one.safetensors", "/etc/passwd", "a/../one.safetensors", "..", ".", "", "a\\\\b",
                                 "C:x", "one.safetensors\\u0000"}) {
    INFO(name);
    CHECK_THAT(said<FormatError>([&] { (void)model.open("{\"a\":\"" + name + "\"}"); }),
               ContainsSubstring("\"a\"") && ContainsSubstring("a plain file name"));
  }
}

TEST_CASE("sharded: an index that is no index is refused") {
  const Model model;
  const auto wrong = [&](const std::string& text) {
    const auto path = model.index(text);
    return said<ConfigError>([&] { (void)open_sharded_safetensors(path); });
  };
  CHECK_THAT(wrong("{}"), ContainsSubstring("\"weight_map\"") && ContainsSubstring("is missing"));
  CHECK_THAT(wrong("[1]"), ContainsSubstring("expected an object"));
  CHECK_THAT(wrong(R"({"weight_map":{}})"), ContainsSubstring("an object of tensor names and file names"));
  CHECK_THAT(wrong(R"({"weight_map":["a"]})"), ContainsSubstring("an object of tensor names and file names"));
  CHECK_THAT(wrong(R"({"weight_map":{"a":3}})"), ContainsSubstring("\"a\"") && ContainsSubstring("got 3"));
  CHECK_THAT(said<FormatError>([&] { (void)model.open(R"({"a":"one.safetensors","a":"two.safetensors"})"); }),
             ContainsSubstring("there twice"));
  const auto torn = model.index(R"({"weight_map":)");
  CHECK_THROWS_AS(open_sharded_safetensors(torn), FormatError);
  CHECK_THROWS_AS(open_sharded_safetensors(model.folder.path / "none.json"), FileError);
}

TEST_CASE("sharded: a shard that is no safetensors file is refused by its name") {
  const Model model;
  (void)model.folder.file("one.safetensors", "nonsense");
  CHECK_THAT(said<FormatError>([&] { (void)model.open(whole); }), ContainsSubstring("one.safetensors"));
}
