#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/utf8.hpp"

namespace circuit {

/// What one pickled value is. Nothing is ever called: a class or function is its name, and what Python would make by
/// calling it is an `object` that keeps the name, the arguments and the state.
enum class PickleKind : std::uint8_t {
  none,
  boolean,     ///< integer
  integer,     ///< integer
  number,      ///< number
  text,        ///< text, valid UTF-8
  bytes,       ///< text
  list,        ///< items
  tuple,       ///< items
  set,         ///< items
  dict,        ///< items: key, value, key, value, ...
  global,      ///< text: "module.name"
  object,      ///< text: "module.name"; items: arguments tuple, then states
  persistent,  ///< items: the id, which says what lies outside the pickle
};

/// A value of a Pickle; others are named by their place in it, so that shared and cyclic values need no care.
struct PickleNode {
  PickleKind kind = PickleKind::none;
  std::int64_t integer = 0;
  double number = 0;
  std::string text{};
  std::vector<std::uint32_t> items{};
};

struct PickleLimits {
  std::size_t bytes = std::size_t{64} << 20U;
  std::size_t values = 4'000'000;
  std::size_t stack = 1'000'000;
  std::size_t text = std::size_t{256} << 20U;  ///< of all values; a name is kept by each that uses it
};

/// A pickle as data.
struct Pickle {
  std::vector<PickleNode> nodes{};
  std::uint32_t root = 0;

  [[nodiscard]] const PickleNode& at_root() const { return nodes[root]; }
  [[nodiscard]] const PickleNode& operator[](std::uint32_t node) const { return nodes[node]; }
};

namespace detail {

/// Interprets the opcodes of Python's pickle protocols 2 to 5 that hold data.
class PickleReader {
 public:
  PickleReader(std::span<const std::byte> bytes, const std::filesystem::path& file, const PickleLimits& limits)
      : bytes_{reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file_{file}, limits_{limits} {
    if (bytes.size() > limits.bytes) throw bad("is too large");
  }

  [[nodiscard]] Pickle read() {
    while (!stopped_) step(static_cast<std::uint8_t>(take(1).front()));
    return std::move(pickle_);
  }

 private:
  using Ref = std::uint32_t;
  using Kind = PickleKind;

  [[nodiscard]] FormatError bad(std::string what) const {
    return FormatError{{.file = file_, .problem = "the pickle at byte " + std::to_string(at_) + ' ' + std::move(what)}};
  }

  // Bytes.
  [[nodiscard]] std::string_view take(std::uint64_t size) {
    if (size > bytes_.size() - at_) throw bad("is truncated");
    const auto part = bytes_.substr(at_, static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return part;
  }
  template <class T>
  [[nodiscard]] T fixed() {
    T value{};
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  [[nodiscard]] std::string_view line() {
    const auto end = bytes_.find('\n', at_);
    if (end == bytes_.npos) throw bad("is truncated");
    const auto text = take(end - at_);
    ++at_;
    return text;
  }
  template <class T>
  [[nodiscard]] T line_number() {
    auto text = line();
    if (text.ends_with('L')) text.remove_suffix(1);
    T value{};
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc{} || end != text.data() + text.size()) throw bad("has a bad number");
    return value;
  }

  // Stack.
  Ref make(PickleNode node) {
    if (pickle_.nodes.size() >= limits_.values) throw bad("holds too many values");
    text_ += node.text.size();
    if (text_ > limits_.text) throw bad("repeats its texts too often");
    pickle_.nodes.push_back(std::move(node));
    return static_cast<Ref>(pickle_.nodes.size() - 1);
  }
  void push(Ref ref) {
    if (stack_.size() >= limits_.stack) throw bad("nests too deep");
    stack_.push_back(ref);
  }
  void push(PickleNode node) { push(make(std::move(node))); }
  [[nodiscard]] std::size_t floor() const noexcept { return marks_.empty() ? 0 : marks_.back(); }
  [[nodiscard]] Ref pop() {
    if (stack_.size() <= floor()) throw bad("takes from an empty stack");
    const auto ref = stack_.back();
    stack_.pop_back();
    return ref;
  }
  [[nodiscard]] Ref top() {
    if (stack_.size() <= floor()) throw bad("takes from an empty stack");
    return stack_.back();
  }
  [[nodiscard]] std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) throw bad("lacks a mark");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  [[nodiscard]] PickleNode& node(Ref ref) { return pickle_.nodes[ref]; }

  void push_text(std::string_view text) { push({.kind = Kind::text, .text = to_valid_utf8(text)}); }
  void push_bytes(std::string_view text) { push({.kind = Kind::bytes, .text = std::string{text}}); }
  void push_integer(std::int64_t value) { push({.kind = Kind::integer, .integer = value}); }

  void push_long(std::string_view bytes) {
    const bool negative = !bytes.empty() && static_cast<std::uint8_t>(bytes.back()) >= 0x80;
    if (bytes.size() <= 8) {
      auto value = negative ? ~std::uint64_t{0} : std::uint64_t{0};
      std::memcpy(&value, bytes.data(), bytes.size());
      return push_integer(static_cast<std::int64_t>(value));
    }
    double value = 0;  // too large for any size or index of ours, so its nearest number will do
    for (auto i = bytes.size(); i-- > 0;) value = value * 256 + static_cast<std::uint8_t>(bytes[i]);
    if (negative) value -= std::pow(256.0, static_cast<double>(bytes.size()));
    push({.kind = Kind::number, .number = value});
  }

  void push_tuple(std::size_t size) {
    std::vector<Ref> items(size);
    for (auto i = size; i-- > 0;) items[i] = pop();
    push({.kind = Kind::tuple, .items = std::move(items)});
  }

  void put(std::uint64_t key) { memo_[key] = top(); }
  void get(std::uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) throw bad("names a value it has not stored");
    push(found->second);
  }

  void count_items(std::size_t more) {
    kept_ += more;
    if (kept_ > limits_.values) throw bad("holds too many values");
  }
  void extend(Ref target, std::span<const Ref> items, bool pairs) {
    auto& container = node(target);
    const bool fits =
        pairs ? container.kind == Kind::dict || container.kind == Kind::object
              : container.kind == Kind::list || container.kind == Kind::set || container.kind == Kind::object;
    if (!fits || (pairs && items.size() % 2 != 0)) throw bad("adds items to what is no container");
    // Items of an unknown class's object are dropped: only that class knows what they mean.
    if (container.kind == Kind::object) return;
    count_items(items.size());
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  void push_global(std::string_view module, std::string_view name) {
    push({.kind = Kind::global, .text = to_valid_utf8(std::string{module} + '.' + std::string{name})});
  }
  void stack_global() {
    const auto name = pop();
    const auto module = pop();
    if (node(name).kind != Kind::text || node(module).kind != Kind::text) throw bad("names a class by no text");
    push_global(std::string{node(module).text}, std::string{node(name).text});
  }

  /// What Python would make by calling `callee` with `arguments`.
  void call(Ref callee, Ref arguments) {
    if (node(callee).kind != Kind::global || node(arguments).kind != Kind::tuple) {
      throw bad("calls what is no class or function");
    }
    const auto name = node(callee).text;
    const auto& items = node(arguments).items;
    if (name == "collections.OrderedDict" && items.empty()) return push({.kind = Kind::dict});
    if (name == "torch.Size" && items.size() == 1) return push(items.front());
    const bool is_set = name == "__builtin__.set" || name == "builtins.set" || name == "__builtin__.frozenset" ||
                        name == "builtins.frozenset";
    if (is_set && items.size() == 1 && node(items.front()).kind == Kind::list) {
      count_items(node(items.front()).items.size());
      return push({.kind = Kind::set, .items = node(items.front()).items});
    }
    push({.kind = Kind::object, .text = name, .items = {arguments}});
  }

  void build() {
    const auto state = pop();
    const auto target = top();
    if (node(target).kind == Kind::object) {
      node(target).items.push_back(state);
    } else if (node(target).kind != Kind::dict) {  // attributes of a dict, such as a state dict's versions, are dropped
      throw bad("gives a state to what is no object");
    }
  }

  void object_from_mark() {
    auto items = pop_to_mark();
    if (items.empty()) throw bad("lacks a class");
    const auto callee = items.front();
    items.erase(items.begin());
    call(callee, make({.kind = Kind::tuple, .items = std::move(items)}));
  }

  void stop() {
    pickle_.root = pop();
    stopped_ = true;
  }

  void step(std::uint8_t opcode);
  [[nodiscard]] bool step_scalar(std::uint8_t opcode);
  [[nodiscard]] bool step_container(std::uint8_t opcode);
  [[nodiscard]] bool step_object(std::uint8_t opcode);
  [[nodiscard]] bool step_stack(std::uint8_t opcode);

  std::string_view bytes_;
  const std::filesystem::path& file_;
  PickleLimits limits_;
  std::size_t at_ = 0;
  std::size_t kept_ = 0;  // items in lists, sets and dicts
  std::size_t text_ = 0;  // bytes in all nodes
  bool stopped_ = false;
  Pickle pickle_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Ref> memo_;
};

inline void PickleReader::step(std::uint8_t opcode) {
  if (step_scalar(opcode) || step_container(opcode) || step_object(opcode) || step_stack(opcode)) return;
  throw bad("has an unsupported opcode (" + std::to_string(opcode) + ")");
}

inline bool PickleReader::step_scalar(std::uint8_t opcode) {
  switch (opcode) {
    case 'N': push(PickleNode{}); return true;
    case 0x88: push({.kind = Kind::boolean, .integer = 1}); return true;
    case 0x89: push({.kind = Kind::boolean, .integer = 0}); return true;
    case 'J': push_integer(fixed<std::int32_t>()); return true;
    case 'K': push_integer(fixed<std::uint8_t>()); return true;
    case 'M': push_integer(fixed<std::uint16_t>()); return true;
    case 'I':
    case 'L': push_integer(line_number<std::int64_t>()); return true;
    case 0x8a: push_long(take(fixed<std::uint8_t>())); return true;
    case 0x8b: push_long(take(fixed<std::uint32_t>())); return true;
    case 'F': push({.kind = Kind::number, .number = line_number<double>()}); return true;
    case 'G': {  // the only big-endian number of the format
      auto text = std::string{take(8)};
      std::reverse(text.begin(), text.end());
      double value = 0;
      std::memcpy(&value, text.data(), sizeof value);
      push({.kind = Kind::number, .number = value});
      return true;
    }
    case 'X': push_text(take(fixed<std::uint32_t>())); return true;
    case 0x8c: push_text(take(fixed<std::uint8_t>())); return true;
    case 0x8d: push_text(take(fixed<std::uint64_t>())); return true;
    case 'T': push_text(take(fixed<std::uint32_t>())); return true;
    case 'U': push_text(take(fixed<std::uint8_t>())); return true;
    case 'B': push_bytes(take(fixed<std::uint32_t>())); return true;
    case 'C': push_bytes(take(fixed<std::uint8_t>())); return true;
    case 0x8e: push_bytes(take(fixed<std::uint64_t>())); return true;
    default: return false;
  }
}

inline bool PickleReader::step_container(std::uint8_t opcode) {
  switch (opcode) {
    case ']': push({.kind = Kind::list}); return true;
    case '}': push({.kind = Kind::dict}); return true;
    case ')': push({.kind = Kind::tuple}); return true;
    case 0x8f: push({.kind = Kind::set}); return true;
    case 'l': push({.kind = Kind::list, .items = pop_to_mark()}); return true;
    case 't': push({.kind = Kind::tuple, .items = pop_to_mark()}); return true;
    case 0x91: push({.kind = Kind::set, .items = pop_to_mark()}); return true;
    case 'd': {
      const auto items = pop_to_mark();
      const auto dict = make({.kind = Kind::dict});
      extend(dict, items, /*pairs=*/true);
      push(dict);
      return true;
    }
    case 0x85: push_tuple(1); return true;
    case 0x86: push_tuple(2); return true;
    case 0x87: push_tuple(3); return true;
    case 'a': {
      const auto item = pop();
      extend(top(), {&item, 1}, /*pairs=*/false);
      return true;
    }
    case 'e':
    case 0x90: {
      const auto items = pop_to_mark();
      extend(top(), items, /*pairs=*/false);
      return true;
    }
    case 's': {
      const auto value = pop();
      const Ref pair[] = {pop(), value};
      extend(top(), pair, /*pairs=*/true);
      return true;
    }
    case 'u': {
      const auto items = pop_to_mark();
      extend(top(), items, /*pairs=*/true);
      return true;
    }
    default: return false;
  }
}

inline bool PickleReader::step_object(std::uint8_t opcode) {
  switch (opcode) {
    case 'c': {
      const auto module = line();
      push_global(module, line());
      return true;
    }
    case 0x93: stack_global(); return true;
    case 'R':
    case 0x81: {
      const auto arguments = pop();
      call(pop(), arguments);
      return true;
    }
    case 0x92: {
      const auto keywords = pop();
      const auto arguments = pop();
      call(pop(), arguments);
      if (node(top()).kind == Kind::object) node(top()).items.push_back(keywords);
      return true;
    }
    case 'o': object_from_mark(); return true;
    case 'b': build(); return true;
    case 'Q': {
      const auto id = pop();
      push({.kind = Kind::persistent, .items = {id}});
      return true;
    }
    default: return false;
  }
}

inline bool PickleReader::step_stack(std::uint8_t opcode) {
  switch (opcode) {
    case 0x80:
      if (const auto protocol = fixed<std::uint8_t>(); protocol < 2 || protocol > 5)
        throw bad("has an unknown protocol");
      return true;
    case 0x95: (void)take(8); return true;  // a frame's length only helps streaming
    case '(':
      if (marks_.size() >= limits_.stack) throw bad("nests too deep");
      marks_.push_back(stack_.size());
      return true;
    case '0': (void)pop(); return true;
    case '1': (void)pop_to_mark(); return true;
    case '2': push(top()); return true;
    case 'q': put(fixed<std::uint8_t>()); return true;
    case 'r': put(fixed<std::uint32_t>()); return true;
    case 0x94: put(memo_.size()); return true;
    case 'h': get(fixed<std::uint8_t>()); return true;
    case 'j': get(fixed<std::uint32_t>()); return true;
    case '.': stop(); return true;
    default: return false;
  }
}

}  // namespace detail

/// Reads a pickle without executing anything: calls become data (PickleKind::object) and nothing is imported.
/// throws  FormatError  truncated, malformed, over `limits`, or an opcode that plain data does not need
/// source  the opcode list in Python's Lib/pickletools.py
[[nodiscard]] inline Pickle read_pickle(std::span<const std::byte> bytes, const std::filesystem::path& file = {},
                                        const PickleLimits& limits = {}) {
  return detail::PickleReader{bytes, file, limits}.read();
}

}  // namespace circuit
