#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/io/mapping.hpp"

namespace circuit {

/// One file of an archive; its bytes are the archive's own.
struct ZipEntry {
  std::string name{};
  std::span<const std::byte> bytes{};
};

namespace detail::zip {

inline constexpr std::uint32_t end_signature = 0x06054b50;
inline constexpr std::uint32_t end64_signature = 0x06064b50;
inline constexpr std::uint32_t locator_signature = 0x07064b50;
inline constexpr std::uint32_t central_signature = 0x02014b50;
inline constexpr std::uint32_t local_signature = 0x04034b50;
inline constexpr std::size_t end_size = 22;
inline constexpr std::size_t locator_size = 20;
inline constexpr std::size_t end64_size = 56;
inline constexpr std::size_t central_size = 46;
inline constexpr std::size_t local_size = 30;
inline constexpr std::uint32_t in_extra = 0xFFFFFFFF;  // the value stands in the ZIP64 extra field

[[nodiscard]] inline FormatError bad(const Mapping& mapping, std::string problem, std::string name = {},
                                     std::string hint = {}) {
  return FormatError{
      {.file = mapping.path(), .tensor = std::move(name), .problem = std::move(problem), .hint = std::move(hint)}};
}

/// Little-endian fields of a part of the archive that is known to be long enough.
class Fields {
 public:
  Fields(const Mapping& mapping, std::uint64_t begin, std::uint64_t size) : bytes_{mapping.bytes()} {
    if (begin > bytes_.size() || size > bytes_.size() - begin) throw bad(mapping, "zip archive is truncated");
    bytes_ = bytes_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size));
  }

  template <class T>
  [[nodiscard]] T read(std::size_t offset) const {
    T value{};
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }
  [[nodiscard]] std::string text(std::size_t offset, std::size_t size) const {
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, size};
  }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
};

struct Directory {
  std::uint64_t offset;
  std::uint64_t size;
  std::uint64_t entries;
};

[[nodiscard]] inline Directory find_directory(const Mapping& mapping) {
  const auto bytes = mapping.bytes();
  if (bytes.size() < end_size) throw bad(mapping, "too short for a zip archive");
  const auto last = bytes.size() - end_size;
  const auto first = last - std::min<std::size_t>(last, 0xFFFF);  // an archive comment may follow
  for (auto at = last + 1; at-- > first;) {
    const Fields end{mapping, at, end_size};
    if (end.read<std::uint32_t>(0) != end_signature || at + end_size + end.read<std::uint16_t>(20) != bytes.size()) {
      continue;
    }
    Directory directory{end.read<std::uint32_t>(16), end.read<std::uint32_t>(12), end.read<std::uint16_t>(10)};
    if (at >= locator_size) {
      const Fields locator{mapping, at - locator_size, locator_size};
      if (locator.read<std::uint32_t>(0) == locator_signature) {
        const Fields end64{mapping, locator.read<std::uint64_t>(8), end64_size};
        if (end64.read<std::uint32_t>(0) != end64_signature) throw bad(mapping, "bad ZIP64 directory");
        directory = {end64.read<std::uint64_t>(48), end64.read<std::uint64_t>(40), end64.read<std::uint64_t>(32)};
      }
    }
    return directory;
  }
  throw bad(mapping, "there is no zip directory", {}, "truncated, or not a zip archive");
}

struct Record {
  std::string name;
  std::uint64_t size;
  std::uint64_t stored_size;
  std::uint64_t offset;
};

/// Replaces what the 32-bit fields could not hold.
inline void read_extra64(const Fields& fields, std::size_t begin, std::size_t size, Record& record) {
  for (std::size_t at = begin; at + 4 <= begin + size;) {
    const auto id = fields.read<std::uint16_t>(at);
    const std::size_t length = fields.read<std::uint16_t>(at + 2);
    at += 4;
    if (at + length > begin + size) return;
    if (id == 1) {
      std::size_t field = at;
      for (auto* value : {&record.size, &record.stored_size, &record.offset}) {
        if (*value != in_extra || field + 8 > at + length) continue;
        *value = fields.read<std::uint64_t>(field);
        field += 8;
      }
    }
    at += length;
  }
}

[[nodiscard]] inline ZipEntry read_entry(const Mapping& mapping, const Fields& central, std::size_t at) {
  const auto name_size = central.read<std::uint16_t>(at + 28);
  const auto extra_size = central.read<std::uint16_t>(at + 30);
  Record record{.name = central.text(at + central_size, name_size),
                .size = central.read<std::uint32_t>(at + 24),
                .stored_size = central.read<std::uint32_t>(at + 20),
                .offset = central.read<std::uint32_t>(at + 42)};
  read_extra64(central, at + central_size + name_size, extra_size, record);

  if ((central.read<std::uint16_t>(at + 8) & 1U) != 0) throw bad(mapping, "zip entry is encrypted", record.name);
  if (central.read<std::uint16_t>(at + 10) != 0) {
    throw bad(mapping, "zip entry is compressed", record.name,
              "torch.save and numpy.savez store entries uncompressed; save it again");
  }
  if (!is_utf8(record.name)) {
    throw bad(mapping, "the name of a zip entry is not UTF-8", to_valid_utf8(record.name));
  }
  if (record.size != record.stored_size) throw bad(mapping, "zip entry has two sizes", record.name);
  const Fields local{mapping, record.offset, local_size};
  if (local.read<std::uint32_t>(0) != local_signature) throw bad(mapping, "bad zip entry header", record.name);
  const auto skip = local_size + local.read<std::uint16_t>(26) + local.read<std::uint16_t>(28);
  const auto room = mapping.bytes().size() - static_cast<std::size_t>(record.offset);
  if (skip > room || record.size > room - skip) throw bad(mapping, "zip entry leaves the file", record.name);
  return {std::move(record.name), mapping.bytes().subspan(static_cast<std::size_t>(record.offset) + skip,
                                                          static_cast<std::size_t>(record.size))};
}

/// Entries that share bytes are how a small archive claims to hold a huge one.
inline void check_apart(const Mapping& mapping, const std::vector<ZipEntry>& entries) {
  const std::byte* end = nullptr;
  for (const auto i : order_by(entries.size(), [&](std::size_t a, std::size_t b) {
         return entries[a].bytes.data() < entries[b].bytes.data();
       })) {
    const auto& bytes = entries[i].bytes;
    if (bytes.empty()) continue;
    if (end != nullptr && end > bytes.data()) throw bad(mapping, "zip entries overlap", entries[i].name);
    end = bytes.data() + bytes.size();
  }
}

}  // namespace detail::zip

/// The entries of a mapped zip archive, all of them stored without compression, in the directory's order.
/// throws  FormatError  truncated, overlapping, encrypted or compressed entries, or not a zip archive
/// source  PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3
[[nodiscard]] inline std::vector<ZipEntry> read_zip(const Mapping& mapping) {
  namespace zip = detail::zip;
  const auto directory = zip::find_directory(mapping);
  const zip::Fields central{mapping, directory.offset, directory.size};
  std::vector<ZipEntry> entries;
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    if (at + zip::central_size > central.size() || central.read<std::uint32_t>(at) != zip::central_signature) {
      throw zip::bad(mapping, "bad zip directory");
    }
    const auto size = zip::central_size + central.read<std::uint16_t>(at + 28) + central.read<std::uint16_t>(at + 30) +
                      central.read<std::uint16_t>(at + 32);
    if (size > central.size() - at) throw zip::bad(mapping, "bad zip directory");
    entries.push_back(zip::read_entry(mapping, central, at));
    at += size;
  }
  zip::check_apart(mapping, entries);
  return entries;
}

}  // namespace circuit
