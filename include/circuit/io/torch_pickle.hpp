#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/io/pickle.hpp"
#include "circuit/io/tensor_file.hpp"
#include "circuit/io/zip.hpp"

namespace circuit {

/// What a file of `torch.save` holds.
struct TorchFile {
  TensorFile tensors;     ///< names of nested dicts joined by dots: "state_dict.W_enc"
  nlohmann::json values;  ///< everything else; an unknown class is an object of its fields with its name as "__class__"
};

namespace detail::torch_pickle {

[[nodiscard]] inline std::optional<DType> storage_dtype(std::string_view name) {
  constexpr std::pair<std::string_view, DType> storages[] = {
      {"torch.HalfStorage", DType::f16},    {"torch.BFloat16Storage", DType::bf16}, {"torch.FloatStorage", DType::f32},
      {"torch.DoubleStorage", DType::f64},  {"torch.CharStorage", DType::i8},       {"torch.ByteStorage", DType::u8},
      {"torch.ShortStorage", DType::i16},   {"torch.IntStorage", DType::i32},       {"torch.LongStorage", DType::i64},
      {"torch.BoolStorage", DType::boolean}};
  for (const auto& [storage, dtype] : storages) {
    if (storage == name) return dtype;
  }
  return {};
}

/// A tensor over a storage, as pickled: sizes and strides in elements.
struct Strided {
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  std::int64_t offset = 0;
};

/// return  one more than the largest element index in use, or nothing when it does not fit or something is negative
[[nodiscard]] inline std::optional<std::uint64_t> elements_needed(const Strided& tensor) {
  if (tensor.offset < 0) return {};
  auto last = static_cast<std::uint64_t>(tensor.offset);
  for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    if (tensor.shape[axis] < 0 || tensor.strides[axis] < 0) return {};
    if (tensor.shape[axis] == 0) return 0;
    std::uint64_t reach = 0;
    if (__builtin_mul_overflow(static_cast<std::uint64_t>(tensor.shape[axis] - 1),
                               static_cast<std::uint64_t>(tensor.strides[axis]), &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return {};
    }
  }
  if (__builtin_add_overflow(last, std::uint64_t{1}, &last)) return {};
  return last;
}

[[nodiscard]] inline bool is_row_major(const Strided& tensor) {
  std::int64_t expected = 1;
  for (auto axis = tensor.shape.size(); axis-- > 0;) {
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != expected) return false;
    expected *= tensor.shape[axis];
  }
  return true;
}

/// The elements in row-major order.
[[nodiscard]] inline std::vector<std::byte> gather(std::span<const std::byte> storage, const Strided& tensor,
                                                   std::size_t item, std::size_t count) {
  std::vector<std::byte> bytes(count * item);
  std::vector<std::int64_t> index(tensor.shape.size(), 0);
  auto source = tensor.offset;
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(bytes.data() + i * item, storage.data() + static_cast<std::size_t>(source) * item, item);
    for (auto axis = index.size(); axis-- > 0;) {
      if (++index[axis] < tensor.shape[axis]) {
        source += tensor.strides[axis];
        break;
      }
      source -= tensor.strides[axis] * (tensor.shape[axis] - 1);
      index[axis] = 0;
    }
  }
  return bytes;
}

/// Turns a pickle's values into named tensors and plain data.
class Reader : MappedReader {
 public:
  Reader(std::shared_ptr<const Mapping> mapping, std::vector<ZipEntry> entries)
      : MappedReader{std::move(mapping)},
        entries_{sorted_by(std::move(entries), [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; })} {
    for (std::size_t i = 1; i < entries_.size(); ++i) {
      if (entries_[i - 1].name == entries_[i].name) throw bad(entries_[i].name, "this zip entry is there twice");
    }
    find_prefix();
    if (const auto* order = entry("byteorder"); order != nullptr && as_text(order->bytes) != "little") {
      throw bad("byteorder", "big-endian files are not supported");
    }
  }

  [[nodiscard]] TorchFile read() {
    pickle_ = read_pickle(entry("data.pkl")->bytes, mapping_->path());
    open_.assign(pickle_.nodes.size(), 0);
    auto values = convert("", pickle_.root, 0);
    if (values.is_discarded()) values = nullptr;
    return {TensorFile{mapping_, std::move(tensors_)}, std::move(values)};
  }

 private:
  using Kind = PickleKind;
  static constexpr int deepest = 64;
  static constexpr std::size_t most_values = 2'000'000;
  static constexpr std::size_t most_text = std::size_t{128} << 20U;
  static constexpr std::size_t longest_key = 4096;
  static constexpr std::size_t most_axes = 16;

  [[nodiscard]] static std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// Entries lie in one folder, whose name is the file's when it was saved.
  void find_prefix() {
    constexpr std::string_view index = "/data.pkl";
    for (const auto& e : entries_) {
      if (!e.name.ends_with(index) || e.name.find('/') != e.name.size() - index.size()) continue;
      prefix_ = e.name.substr(0, e.name.size() - index.size() + 1);
      return;
    }
    throw bad({}, "not a file of torch.save", "a zip entry data.pkl");
  }

  [[nodiscard]] const ZipEntry* entry(std::string_view name) const {
    const auto full = prefix_ + std::string{name};
    const auto found = std::lower_bound(entries_.begin(), entries_.end(), full,
                                        [](const ZipEntry& e, const std::string& key) { return e.name < key; });
    return found == entries_.end() || found->name != full ? nullptr : &*found;
  }

  [[nodiscard]] std::span<const std::uint32_t> arguments(const PickleNode& object) const {
    return pickle_[object.items.front()].items;
  }

  [[nodiscard]] nlohmann::json convert(const std::string& name, std::uint32_t ref, int depth) {
    if (++converted_ > most_values) throw bad(name, "the pickle repeats its values too often");
    const auto& node = pickle_[ref];
    switch (node.kind) {
      case Kind::none: return nullptr;
      case Kind::boolean: return node.integer != 0;
      case Kind::integer: return node.integer;
      case Kind::number: return node.number;
      case Kind::text: return counted(name, node.text);
      case Kind::bytes: return nlohmann::json::object_t{{"__class__", "bytes"}, {"size", node.text.size()}};
      case Kind::global: return counted(name, node.text);
      case Kind::persistent: return nlohmann::json::object_t{{"__class__", "storage"}};
      default: break;
    }
    if (depth >= deepest) throw bad(name, "values nest too deep");
    if (open_[ref] != 0) throw bad(name, "a value holds itself");
    open_[ref] = 1;
    auto value = node.kind == Kind::object ? convert_object(name, node, depth) : convert_container(name, node, depth);
    open_[ref] = 0;
    return value;
  }

  [[nodiscard]] nlohmann::json convert_container(const std::string& name, const PickleNode& node, int depth) {
    if (node.kind != Kind::dict) {
      nlohmann::json::array_t list;
      for (std::size_t i = 0; i < node.items.size(); ++i) {
        auto value = convert(join(name, std::to_string(i)), node.items[i], depth + 1);
        list.push_back(value.is_discarded() ? nlohmann::json{} : std::move(value));
      }
      return list;
    }
    nlohmann::json::object_t object;
    convert_dict(name, node, depth, object);
    return object;
  }

  void convert_dict(const std::string& name, const PickleNode& node, int depth, nlohmann::json::object_t& object) {
    for (std::size_t i = 0; i + 1 < node.items.size(); i += 2) {
      const auto& key = pickle_[node.items[i]];
      if (key.kind != Kind::text && key.kind != Kind::integer) continue;  // tuples and classes name nothing of ours
      const auto text = key.kind == Kind::text ? counted(name, key.text) : std::to_string(key.integer);
      if (text.size() > longest_key) throw bad(name, "a key is too long");
      auto value = convert(join(name, text), node.items[i + 1], depth + 1);
      if (!value.is_discarded()) object[text] = std::move(value);
    }
  }

  /// The pickle stores a text once and may name it often; copies of it must not fill the memory.
  [[nodiscard]] const std::string& counted(const std::string& name, const std::string& text) {
    text_ += text.size();
    if (text_ > most_text) throw bad(name, "the pickle repeats its texts too often");
    return text;
  }

  [[nodiscard]] static std::string join(const std::string& name, const std::string& key) {
    return name.empty() ? key : name + '.' + key;
  }

  /// return  a discarded value for a tensor
  [[nodiscard]] nlohmann::json convert_object(const std::string& name, const PickleNode& node, int depth) {
    const auto args = arguments(node);
    if (node.text == "torch._utils._rebuild_tensor_v2") {
      add_tensor(name, args);
      return nlohmann::json::value_t::discarded;
    }
    const bool parameter =
        node.text == "torch._utils._rebuild_parameter" || node.text == "torch._utils._rebuild_parameter_with_state";
    if (parameter && !args.empty()) return convert(name, args[0], depth + 1);
    if (node.text == "torch._tensor._rebuild_from_type_v2" && args.size() == 4) {
      add_tensor(name, built_by(name, args));
      return nlohmann::json::value_t::discarded;
    }
    if (node.text == "torch.device" && args.size() == 1) return convert(name, args[0], depth + 1);
    const bool rebuilds =
        node.text.starts_with("torch._utils._rebuild") || node.text.starts_with("torch._tensor._rebuild");
    const bool stored =
        std::ranges::any_of(args, [&](std::uint32_t arg) { return pickle_[arg].kind == Kind::persistent; });
    if (rebuilds || stored) throw unsupported(name, node.text);
    nlohmann::json::object_t object{{"__class__", node.text}};
    nlohmann::json::array_t given;
    for (std::size_t i = 0; i < args.size(); ++i) {
      auto value = convert(join(name, std::to_string(i)), args[i], depth + 1);
      if (!value.is_discarded()) given.push_back(std::move(value));
    }
    if (!given.empty()) object["__args__"] = std::move(given);
    for (const auto state : std::span{node.items}.subspan(1)) convert_state(name, state, depth, object);
    return object;
  }

  [[nodiscard]] FormatError unsupported(const std::string& name, const std::string& function) const {
    return bad(name, "a tensor of an unsupported kind", "torch._utils._rebuild_tensor_v2", function,
               "save it as a plain dense tensor");
  }

  /// (function, class, its arguments, state): a tensor of a subclass, or one with attributes, which are dropped.
  [[nodiscard]] std::span<const std::uint32_t> built_by(const std::string& name,
                                                        std::span<const std::uint32_t> args) const {
    const auto& function = pickle_[args[0]];
    const auto& own = pickle_[args[2]];
    if (function.text != "torch._utils._rebuild_tensor_v2" || own.kind != Kind::tuple) {
      throw unsupported(name, function.kind == Kind::global ? function.text : "torch._tensor._rebuild_from_type_v2");
    }
    return own.items;
  }

  /// Fields of an unknown class; some pickle a pair of them (attributes and slots).
  void convert_state(const std::string& name, std::uint32_t ref, int depth, nlohmann::json::object_t& object) {
    if (++converted_ > most_values) throw bad(name, "the pickle repeats its values too often");
    const auto& state = pickle_[ref];
    if (depth >= deepest) throw bad(name, "values nest too deep");
    if (state.kind == Kind::dict) {
      if (open_[ref] != 0) throw bad(name, "a value holds itself");
      open_[ref] = 1;
      convert_dict(name, state, depth + 1, object);
      open_[ref] = 0;
    } else if (state.kind == Kind::tuple) {
      for (const auto item : state.items) convert_state(name, item, depth + 1, object);
    }
  }

  [[nodiscard]] std::vector<std::int64_t> integers(const std::string& name, std::uint32_t ref) const {
    const auto& node = pickle_[ref];
    std::vector<std::int64_t> values;
    if (node.kind != Kind::tuple || node.items.size() > most_axes) throw bad(name, "bad tensor size or stride");
    for (const auto item : node.items) values.push_back(integer(name, item));
    return values;
  }
  [[nodiscard]] std::int64_t integer(const std::string& name, std::uint32_t ref) const {
    if (pickle_[ref].kind != Kind::integer) throw bad(name, "bad tensor size, stride or offset");
    return pickle_[ref].integer;
  }

  struct Storage {
    DType dtype;
    std::span<const std::byte> bytes;
    std::uint64_t count;
  };

  /// ("storage", class, key, device, elements)
  [[nodiscard]] Storage storage(const std::string& name, std::uint32_t ref) const {
    const auto& persistent = pickle_[ref];
    const auto shape_error = [&] { return bad(name, "bad storage reference"); };
    if (persistent.kind != Kind::persistent) throw shape_error();
    const auto& id = pickle_[persistent.items.front()];
    if (id.kind != Kind::tuple || id.items.size() < 5 || pickle_[id.items[0]].text != "storage" ||
        pickle_[id.items[1]].kind != Kind::global || pickle_[id.items[2]].kind != Kind::text ||
        pickle_[id.items[4]].kind != Kind::integer) {
      throw shape_error();
    }
    const auto& type = pickle_[id.items[1]].text;
    const auto dtype = storage_dtype(type);
    if (!dtype) {
      throw DTypeError{{.file = mapping_->path(), .tensor = name, .problem = "unsupported element type", .got = type}};
    }
    const auto* data = entry("data/" + pickle_[id.items[2]].text);
    if (data == nullptr) throw bad(name, "its storage is missing", "zip entry data/" + pickle_[id.items[2]].text);
    const auto count = static_cast<std::uint64_t>(pickle_[id.items[4]].integer);
    if (data->bytes.size() % item_size(*dtype) != 0 || data->bytes.size() / item_size(*dtype) != count) {
      throw bad(name, "its storage has another size", std::to_string(count) + " elements",
                std::to_string(data->bytes.size()) + " bytes");
    }
    return {*dtype, data->bytes, count};
  }

  /// Whether a tensor's numbers are to be negated or conjugated when they are read.
  [[nodiscard]] bool is_lazy(std::span<const std::uint32_t> args) const {
    if (args.size() < 7 || pickle_[args[6]].kind != Kind::dict) return false;
    const auto& metadata = pickle_[args[6]].items;
    return std::ranges::any_of(
        metadata, [&](std::uint32_t ref) { return pickle_[ref].kind == Kind::boolean && pickle_[ref].integer != 0; });
  }

  /// (storage, offset, size, stride, requires_grad, hooks, metadata)
  void add_tensor(const std::string& name, std::span<const std::uint32_t> args) {
    if (args.size() < 4) throw bad(name, "bad tensor");
    if (is_lazy(args)) {
      throw bad(name, "a tensor that is negated or conjugated when it is read", {}, {},
                "save tensor.resolve_neg().resolve_conj()");
    }
    const auto source = storage(name, args[0]);
    const Strided tensor{integers(name, args[2]), integers(name, args[3]), integer(name, args[1])};
    if (tensor.shape.size() != tensor.strides.size()) throw bad(name, "size and stride disagree");
    const auto needed = elements_needed(tensor);
    const auto count = element_count(tensor.shape);
    const auto item = item_size(source.dtype);
    std::uint64_t size = 0;
    if (!needed || *needed > source.count || !count || __builtin_mul_overflow(*count, item, &size)) {
      throw bad(name, "the tensor leaves its storage", "at most " + std::to_string(source.count) + " elements",
                needed ? std::to_string(*needed) : "a size, stride or offset out of range");
    }
    TensorView view{
        .name = name.empty() ? "tensor" : counted(name, name), .dtype = source.dtype, .shape = tensor.shape};
    if (*count == 0 || is_row_major(tensor)) {
      const auto begin = *count == 0 ? std::size_t{0} : static_cast<std::size_t>(tensor.offset) * item;
      view.bytes = source.bytes.subspan(begin, size);
      view.owner = mapping_;
    } else {
      // Views of one storage may overlap or repeat its numbers; a small file must not ask for much memory.
      const auto most = 4 * mapping_->bytes().size();
      if (size > most - copied_) throw bad(name, "tensors share their storages too often");
      copied_ += size;
      auto copy = std::make_shared<const std::vector<std::byte>>(gather(source.bytes, tensor, item, *count));
      view.bytes = *copy;
      view.owner = std::move(copy);
    }
    tensors_.push_back(std::move(view));
  }

  std::vector<ZipEntry> entries_;
  std::string prefix_;
  Pickle pickle_;
  std::vector<std::uint8_t> open_;  // by node: being converted, so meeting it again is a cycle
  std::size_t converted_ = 0;
  std::size_t text_ = 0;
  std::size_t copied_ = 0;
  std::vector<TensorView> tensors_;
};

/// Other files that carry the same extensions.
inline void refuse_others(const Mapping& mapping) {
  const auto starts = [&](std::string_view magic) {
    const auto bytes = mapping.bytes();
    return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
  };
  const auto refuse = [&](std::string problem, std::string hint) {
    throw FormatError{{.file = mapping.path(), .problem = std::move(problem), .hint = std::move(hint)}};
  };
  if (starts("\x1f\x8b")) refuse("is compressed by gzip", "unpack it with gunzip");
  if (starts("\x80")) {
    refuse("is a bare pickle, as PyTorch wrote before 1.6", "load it in PyTorch and torch.save it again");
  }
  if (!starts("PK")) refuse("not a file of torch.save", "expected a zip archive");
}

}  // namespace detail::torch_pickle

/// Reads what `torch.save` wrote (PyTorch 1.6 and later) without executing any of it: calls in the pickle are data, and
/// only those that rebuild dense tensors mean something. Row-major tensors stay mapped; others are copied.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  truncated or malformed archive or pickle, a tensor outside its storage, a tensor of an
///                      unsupported kind (named), cyclic values, the stream format of PyTorch before 1.6
/// throws  DTypeError   a storage of complex or quantized numbers
[[nodiscard]] inline TorchFile read_torch(const std::filesystem::path& path) {
  auto mapping = Mapping::open(path);
  detail::torch_pickle::refuse_others(*mapping);
  auto entries = read_zip(*mapping);
  return detail::torch_pickle::Reader{std::move(mapping), std::move(entries)}.read();
}

/// The tensors of read_torch alone.
[[nodiscard]] inline TensorFile open_torch(const std::filesystem::path& path) { return read_torch(path).tensors; }

}  // namespace circuit
