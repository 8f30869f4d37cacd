#include "circuit/io/torch_pickle.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/io/ggml/dequantize.hpp"
#include "circuit/io/safetensors.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

// Pieces of a pickle, by opcode (Python's Lib/pickletools.py).
std::string text(const std::string& s) { return "X" + raw(static_cast<std::uint32_t>(s.size())) + s; }
std::string integer(std::int32_t value) { return "J" + raw(value); }
std::string name(const std::string& module, const std::string& n) { return "c" + module + "\n" + n + "\n"; }
std::string tuple(const std::string& items) { return "(" + items + "t"; }
std::string pickle(const std::string& value) { return "\x80\x02" + value + "."; }
std::string dict(const std::string& items) { return "}(" + items + "u"; }

std::string storage(const std::string& type, const std::string& key, std::int32_t count) {
  return tuple(text("storage") + name("torch", type) + text(key) + text("cpu") + integer(count)) + "Q";
}
std::string tensor(const std::string& where, std::int32_t offset, const std::string& size, const std::string& stride) {
  return name("torch._utils", "_rebuild_tensor_v2") +
         tuple(where + integer(offset) + tuple(size) + tuple(stride) + "\x89" + name("collections", "OrderedDict") +
               ")R") +
         "R";
}

/// An archive with this index and one storage "0" of the floats 0, 1, ..., 11.
std::string archive(const std::string& index) {
  std::string floats;
  for (int i = 0; i < 12; ++i) floats += raw(static_cast<float>(i));
  return zip({{"a/data.pkl", index}, {"a/byteorder", "little"}, {"a/data/0", floats}});
}

TorchFile read(const std::string& bytes) {
  const Folder folder;
  return read_torch(folder.file("a.pt", bytes));
}

std::string error(const std::string& bytes) {
  return said<FormatError>([&] { (void)read(bytes); });
}

std::vector<float> floats(const TensorView& view) {
  std::vector<float> values(view.bytes.size() / sizeof(float));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

const std::string floats12 = storage("FloatStorage", "0", 12);

}  // namespace

TEST_CASE("torch: files that PyTorch saved hold what the safetensors beside them hold") {
  std::size_t compared = 0;
  for (const auto& entry : fs::directory_iterator{fs::path{CIRCUIT_TEST_DATA} / "golden/dictionaries"}) {
    if (entry.path().extension() != ".pt") continue;
    auto twin = entry.path();
    const auto expected = open_safetensors(twin.replace_extension(".safetensors"));
    const auto got = open_torch(entry.path());
    REQUIRE(got.tensors().size() == expected.tensors().size());
    for (const auto& tensor : expected.tensors()) {
      const auto& other = got.get(tensor.name);
      CHECK(other.dtype == tensor.dtype);
      CHECK(other.shape == tensor.shape);
      CHECK(std::equal(other.bytes.begin(), other.bytes.end(), tensor.bytes.begin(), tensor.bytes.end()));
      ++compared;
    }
  }
  CHECK(compared == 3 * 4 + 3 * 5);
}

TEST_CASE("torch: nested dicts are joined by dots, and other values are kept") {
  const auto file = read(archive(pickle(
      dict(text("cfg") + dict(text("d_in") + integer(32) + text("lr") + "G" + std::string("?\xE0\0\0\0\0\0\0", 8)) +
           text("state_dict") + dict(text("W") + tensor(floats12, 0, integer(12), integer(1)))))));
  CHECK(file.tensors.get("state_dict.W").shape == std::vector<std::int64_t>{12});
  CHECK(file.values.at("cfg").at("d_in") == 32);
  CHECK(file.values.at("cfg").at("lr") == 0.5);
}

TEST_CASE("torch: transposed and offset tensors come out row-major") {
  const auto file =
      read(archive(pickle(dict(text("t") + tensor(floats12, 0, integer(4) + integer(3), integer(1) + integer(4)) +
                               text("part") + tensor(floats12, 5, integer(2) + integer(2), integer(2) + integer(1)) +
                               text("step") + tensor(floats12, 1, integer(3), integer(4))))));
  CHECK(file.tensors.get("t").shape == std::vector<std::int64_t>{4, 3});
  CHECK(floats(file.tensors.get("t")) == std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
  CHECK(floats(file.tensors.get("part")) == std::vector<float>{5, 6, 7, 8});
  CHECK(floats(file.tensors.get("step")) == std::vector<float>{1, 5, 9});
}

TEST_CASE("torch: a tensor that leaves its storage is refused by name") {
  const auto with = [](std::int32_t offset, const std::string& size, const std::string& stride) {
    return error(archive(pickle(dict(text("W") + tensor(floats12, offset, size, stride)))));
  };
  for (const auto& message :
       {with(1, integer(12), integer(1)), with(0, integer(13), integer(1)), with(-1, integer(1), integer(1)),
        with(0, integer(4), integer(-1)), with(0, integer(-4), integer(1)),
        with(0, integer(2147483647) + integer(2147483647) + integer(2147483647), integer(0) + integer(0) + integer(0)),
        with(0, integer(2) + integer(2), integer(2147483647) + integer(2147483647))}) {
    CHECK_THAT(message, ContainsSubstring("\"W\"") && ContainsSubstring("leaves its storage"));
  }
  CHECK_THAT(with(0, integer(12), integer(1) + integer(1)), ContainsSubstring("size and stride disagree"));
}

TEST_CASE("torch: storages that are missing or of another size are refused") {
  const auto with = [](const std::string& where) {
    return error(archive(pickle(dict(text("W") + tensor(where, 0, integer(1), integer(1))))));
  };
  CHECK_THAT(with(storage("FloatStorage", "1", 12)), ContainsSubstring("data/1"));
  CHECK_THAT(with(storage("FloatStorage", "0", 13)), ContainsSubstring("another size"));
  CHECK_THAT(with(storage("FloatStorage", "0", -1)), ContainsSubstring("another size"));
  CHECK_THAT(with(storage("DoubleStorage", "0", 12)), ContainsSubstring("another size"));
  CHECK_THAT(with(text("storage") + "Q"), ContainsSubstring("bad storage reference"));
  CHECK_THAT(said<DTypeError>([] {
               (void)read(archive(pickle(
                   dict(text("W") + tensor(storage("ComplexFloatStorage", "0", 6), 0, integer(1), integer(1))))));
             }),
             ContainsSubstring("ComplexFloatStorage"));
}

TEST_CASE("torch: code in a pickle is data: nothing is executed") {
  const Folder folder;
  const auto mark = folder.path / "executed";
  const auto system = name("os", "system") + tuple(text("touch " + mark.string())) + "R";
  const auto eval = name("builtins", "eval") + tuple(text("open('" + mark.string() + "','w')")) + "R";
  const auto path = folder.file("a.pt", archive(pickle(dict(text("x") + system + text("y") + eval + text("W") +
                                                            tensor(floats12, 0, integer(12), integer(1))))));
  const auto file = read_torch(path);
  CHECK_FALSE(fs::exists(mark));
  CHECK(file.values.at("x").at("__class__") == "os.system");
  CHECK(file.values.at("y").at("__class__") == "builtins.eval");
  CHECK(file.tensors.get("W").shape == std::vector<std::int64_t>{12});
}

TEST_CASE("torch: the fields of an unknown class can be read") {
  const auto config = name("sae_training.config", "Config") + ")\x81" + dict(text("d_in") + integer(768)) + "b";
  const auto file = read(archive(pickle(dict(text("cfg") + config))));
  CHECK(file.values.at("cfg").at("__class__") == "sae_training.config.Config");
  CHECK(file.values.at("cfg").at("d_in") == 768);
}

TEST_CASE("torch: a tensor rebuilt by an unknown function is refused by that function's name") {
  const auto strange = name("torch._utils", "_rebuild_qtensor") + tuple(floats12 + integer(0)) + "R";
  CHECK_THAT(error(archive(pickle(dict(text("W") + strange)))),
             ContainsSubstring("\"W\"") && ContainsSubstring("_rebuild_qtensor"));
  // Its parts are ordinary tensors, which must not come out as if they were the file's.
  const auto dense = tensor(floats12, 0, integer(12), integer(1));
  const auto sparse = name("torch._utils", "_rebuild_sparse_tensor") + tuple("N" + tuple(dense + dense)) + "R";
  CHECK_THAT(error(archive(pickle(dict(text("W") + sparse)))),
             ContainsSubstring("\"W\"") && ContainsSubstring("_rebuild_sparse_tensor"));
}

TEST_CASE("torch: tensors of a subclass, and parameters, with attributes of their own") {
  const auto arguments = tuple(floats12 + integer(0) + tuple(integer(12)) + tuple(integer(1)) + "\x89" + "N");
  const auto typed = [&](const std::string& function, const std::string& args) {
    return name("torch._tensor", "_rebuild_from_type_v2") +
           tuple(name("torch._utils", function) + name("torch", "Tensor") + args + dict(text("note") + integer(1))) +
           "R";
  };
  const auto parameter = name("torch._utils", "_rebuild_parameter_with_state") +
                         tuple(tensor(floats12, 0, integer(12), integer(1)) + "\x88" + "N" + dict("")) + "R";
  const auto file =
      read(archive(pickle(dict(text("W") + typed("_rebuild_tensor_v2", arguments) + text("p") + parameter))));
  CHECK(file.tensors.tensors().size() == 2);
  CHECK(file.tensors.get("W").bytes.size() == 48);
  CHECK(file.tensors.get("p").bytes.size() == 48);
  CHECK_THAT(error(archive(pickle(dict(text("W") + typed("_rebuild_sparse_tensor", arguments))))),
             ContainsSubstring("_rebuild_sparse_tensor"));
}

TEST_CASE("torch: a tensor that is negated when it is read is refused") {
  const auto with = [](const std::string& metadata) {
    return archive(pickle(dict(
        text("W") + name("torch._utils", "_rebuild_tensor_v2") +
        tuple(floats12 + integer(0) + tuple(integer(12)) + tuple(integer(1)) + "\x89" + "N" + dict(metadata)) + "R")));
  };
  CHECK_THAT(error(with(text("neg") + "\x88")), ContainsSubstring("\"W\"") && ContainsSubstring("resolve_neg"));
  CHECK(read(with(text("neg") + "\x89")).tensors.get("W").bytes.size() == 48);
}

TEST_CASE("torch: an expanded tensor is its numbers repeated, if they are not too many") {
  const auto with = [](std::int32_t times) {
    return archive(pickle(dict(text("W") + tensor(floats12, 3, integer(2) + integer(times), integer(1) + integer(0)))));
  };
  CHECK(floats(read(with(3)).tensors.get("W")) == std::vector<float>{3, 3, 3, 4, 4, 4});
  CHECK(read(with(12)).tensors.get("W").shape == std::vector<std::int64_t>{2, 12});
  CHECK_THAT(error(with(2'000'000'000)), ContainsSubstring("share their storages too often"));
  // An axis of one element never takes a step, whatever its stride.
  const auto far = "\x8a\x08" + raw(std::int64_t{9223372036854775807});
  CHECK(floats(read(archive(pickle(dict(text("W") + tensor(floats12, 1, integer(1) + integer(2), far + integer(2))))))
                   .tensors.get("W")) == std::vector<float>{1, 3});
}

TEST_CASE("torch: parameters are their tensors") {
  const auto parameter =
      name("torch._utils", "_rebuild_parameter") +
      tuple(tensor(floats12, 0, integer(12), integer(1)) + "\x88" + name("collections", "OrderedDict") + ")R") + "R";
  CHECK(read(archive(pickle(dict(text("W") + parameter)))).tensors.get("W").bytes.size() == 48);
}

TEST_CASE("torch: values that hold themselves and values that nest too deep are refused") {
  CHECK_THAT(error(archive(pickle("]q" + raw(std::uint8_t{0}) + "h" + raw(std::uint8_t{0}) + "a"))),
             ContainsSubstring("holds itself"));
  const std::string deep = std::string(100, ']') + std::string(99, 'a');
  CHECK_THAT(error(archive(pickle(deep))), ContainsSubstring("nest too deep"));
}

TEST_CASE("torch: a small pickle that stands for a huge value is refused") {
  std::string doubling = "]";  // each list holds the one before it, twice
  for (int i = 0; i < 40; ++i)
    doubling += "q" + raw(std::uint8_t{0}) + "](h" + raw(std::uint8_t{0}) + "h" + raw(std::uint8_t{0}) + "e";
  CHECK_THAT(error(archive(pickle(doubling))), ContainsSubstring("repeats its values too often"));
  std::string tuples = ")";  // of a state, each twice the one before it
  for (int i = 0; i < 60; ++i) tuples += "2\x86";
  CHECK_THAT(error(archive(pickle(name("a", "B") + ")\x81" + tuples + "b"))),
             ContainsSubstring("repeats its values too often"));
  std::string names = tensor(floats12, 0, integer(12), integer(1)) + "q" + raw(std::uint8_t{1});
  const auto key = text(std::string(4000, 'k')) + "q" + raw(std::uint8_t{0});
  std::string nested;  // one key, again and again: the names of the tensors below are long
  for (int i = 0; i < 40; ++i) nested += "}" + (i == 0 ? key : "h" + raw(std::uint8_t{0}));
  nested += "](" + names;
  for (int i = 0; i < 2000; ++i) nested += "h" + raw(std::uint8_t{1});
  nested += "e" + std::string(40, 's');
  CHECK_THAT(error(archive(pickle(nested))), ContainsSubstring("repeats its texts too often"));
  std::string texts = text(std::string(1'000'000, 'x')) + "q" + raw(std::uint8_t{0}) + "0](";
  for (int i = 0; i < 1000; ++i) texts += "h" + raw(std::uint8_t{0});
  CHECK_THAT(error(archive(pickle(texts + "e"))), ContainsSubstring("repeats its texts too often"));
}

TEST_CASE("torch: truncated archives are refused, wherever the cut falls") {
  const auto whole = archive(pickle(dict(text("W") + tensor(floats12, 0, integer(12), integer(1)))));
  REQUIRE(read(whole).tensors.tensors().size() == 1);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO("first " << size << " bytes");
    CHECK_FALSE(error(whole.substr(0, size)).empty());
  }
}

TEST_CASE("torch: truncated pickles are refused, wherever the cut falls") {
  const auto whole = pickle(dict(text("W") + tensor(floats12, 0, integer(12), integer(1))));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO("first " << size << " bytes");
    CHECK_THAT(error(archive(whole.substr(0, size))), ContainsSubstring("the pickle at byte"));
  }
}

TEST_CASE("torch: archives of other kinds say what to do") {
  CHECK_THAT(error("\x80\x02\x8a\x0al\xfc\x9c"
                   "F\xf9 j\xa8P\x19."),
             ContainsSubstring("before 1.6") && ContainsSubstring("torch.save it again"));
  CHECK_THAT(error("\x1f\x8b\x08"), ContainsSubstring("gunzip"));
  CHECK_THAT(error("hello"), ContainsSubstring("not a file of torch.save"));
  CHECK_THAT(error(zip({{"a/b", "c"}})), ContainsSubstring("data.pkl"));
  CHECK_THAT(error(zip({{"a/data.pkl", "N."}}, /*method=*/8)), ContainsSubstring("compressed"));
  CHECK_THAT(error(zip({{"a/data.pkl", pickle("N")}, {"a/byteorder", "big"}})), ContainsSubstring("big-endian"));
  CHECK_THAT(error(zip({{"a/data.pkl", pickle("N")}, {"a/data.pkl", pickle("N")}})), ContainsSubstring("twice"));
}

TEST_CASE("torch: entries that share bytes are refused") {
  auto bytes = archive(pickle(dict(text("W") + tensor(floats12, 0, integer(12), integer(1)))));
  // Point the directory's last entry ("a/data/0") at the first one's data and give it a length that fits there.
  const auto last = bytes.rfind("PK\x01\x02");
  bytes.replace(last + 42, 4, raw(std::uint32_t{0}));
  CHECK_THAT(error(bytes), ContainsSubstring("overlap"));
}

TEST_CASE("torch: the state dict of a module, as models are distributed in .bin files") {
  const auto folder = fs::path{CIRCUIT_TEST_DATA} / "state_dict";
  const auto file = open_torch(folder / "pytorch_model.bin");
  CHECK(file.tensors().size() == 7);
  CHECK(file.get("wte.weight").shape == std::vector<std::int64_t>{5, 4});
  CHECK(floats(file.get("wte.weight")).at(19) == 19);
  CHECK(file.get("head.weight").bytes.data() == file.get("wte.weight").bytes.data());  // tied
  CHECK(floats(file.get("ln.bias")) == std::vector<float>{0, 10, 20, 30});
  const auto& half = file.get("proj.weight");  // [2, 4], stored as its transpose
  CHECK(half.shape == std::vector<std::int64_t>{2, 4});
  std::vector<float> values(8);
  dequantize(GgmlType::f16, half.bytes, values);
  CHECK(values == std::vector<float>{0, 2, 4, 6, 1, 3, 5, 7});
  CHECK(file.get("proj.bias").dtype == DType::bf16);
  CHECK(file.get("mask").dtype == DType::boolean);
  CHECK_THAT(said<FormatError>([&] { (void)open_torch(folder / "legacy.bin"); }),
             ContainsSubstring("legacy.bin") && ContainsSubstring("before 1.6"));
}
