#include "circuit/io/json.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

TEST_CASE("json: a broken file names itself, line and column") {
  const Folder folder;
  const auto path = folder.file("config.json", "{\n  \"a\": 1,\n  \"b\": nope\n}");
  CHECK_THAT(said<FormatError>([&] { (void)read_json(path); }),
             ContainsSubstring("config.json") && ContainsSubstring("line 3, column 9"));
}

TEST_CASE("json: truncated, empty and non-UTF-8 texts are refused") {
  CHECK_FALSE(said<FormatError>([] { (void)parse_json(""); }).empty());
  CHECK_FALSE(said<FormatError>([] { (void)parse_json("{\"a\":[1,2"); }).empty());
  CHECK_FALSE(said<FormatError>([] { (void)parse_json("\"\xC3\x28\""); }).empty());
  CHECK_FALSE(said<FormatError>([] { (void)parse_json("1e999"); }).empty());
  CHECK_FALSE(said<FormatError>([] { (void)parse_json("NaN"); }).empty());
}

TEST_CASE("json: keys given twice in one object are refused, in two objects not") {
  CHECK_THAT(said<FormatError>([] { (void)parse_json(R"({"a":1,"b":{"c":1,"c":2}})"); }), ContainsSubstring("\"c\""));
  CHECK(parse_json(R"({"a":{"c":1},"b":{"c":2}})").at("b").at("c") == 2);
}

TEST_CASE("json: nesting is limited") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(parse_json(nested(64)).is_array());
  CHECK_THAT(said<FormatError>([&] { (void)parse_json(nested(65)); }), ContainsSubstring("nested deeper than 64"));
  CHECK_FALSE(said<FormatError>([&] { (void)parse_json(nested(1'000'000)); }).empty());
}

TEST_CASE("json: a required value has exactly the type asked for") {
  const auto json = parse_json(R"({"n":3,"neg":-1,"x":0.5,"s":"a","b":true,"v":[1,2],"big":4294967296,"null":null})");
  CHECK(require<int>(json, "n", "f") == 3);
  CHECK(require<double>(json, "n", "f") == 3.0);
  CHECK(require<double>(json, "x", "f") == 0.5);
  CHECK(require<std::string>(json, "s", "f") == "a");
  CHECK(require<bool>(json, "b", "f"));
  CHECK(require<std::vector<int>>(json, "v", "f") == std::vector{1, 2});
  CHECK(require<std::int64_t>(json, "big", "f") == 4294967296);

  CHECK_THROWS_AS(require<int>(json, "x", "f"), ConfigError);
  CHECK_THROWS_AS(require<int>(json, "big", "f"), ConfigError);
  CHECK_THROWS_AS(require<std::size_t>(json, "neg", "f"), ConfigError);
  CHECK_THROWS_AS(require<bool>(json, "n", "f"), ConfigError);
  CHECK_THROWS_AS(require<int>(json, "b", "f"), ConfigError);
  CHECK_THROWS_AS(require<std::vector<std::string>>(json, "v", "f"), ConfigError);
  CHECK_THROWS_AS(require<int>(json, "null", "f"), ConfigError);
}

TEST_CASE("json: the error of a required value names file, key, expected type and what came") {
  const auto json = parse_json(R"({"n_layer":"twelve"})");
  CHECK_THAT(said<ConfigError>([&] { (void)require<int>(json, "n_layer", "gpt2/config.json"); }),
             ContainsSubstring("gpt2/config.json") && ContainsSubstring("\"n_layer\"") &&
                 ContainsSubstring("expected a whole number") && ContainsSubstring("\"twelve\""));
  CHECK_THAT(said<ConfigError>([&] { (void)require<int>(json, "n_head", "gpt2/config.json"); }),
             ContainsSubstring("\"n_head\"") && ContainsSubstring("is missing"));
  CHECK_THROWS_AS(require<int>(parse_json("[1]"), "a", "f"), ConfigError);
}

TEST_CASE("json: an optional value may be absent or null, but not of another type") {
  const auto json = parse_json(R"({"a":null,"b":"x"})");
  CHECK(value_or(json, "a", "f", 7) == 7);
  CHECK(value_or(json, "c", "f", 7) == 7);
  CHECK_THROWS_AS(value_or(json, "b", "f", 7), ConfigError);
}

TEST_CASE("json: a field is found in objects alone") {
  const auto root = parse_json(R"({"a":{"b":null},"c":[1]})");
  REQUIRE(find_field(root, "a") != nullptr);
  REQUIRE(find_field(*find_field(root, "a"), "b") != nullptr);
  CHECK(find_field(*find_field(root, "a"), "b")->is_null());
  CHECK(find_field(root, "b") == nullptr);
  CHECK(find_field(*find_field(root, "c"), "a") == nullptr);
  CHECK(find_field(nlohmann::json{}, "a") == nullptr);
  CHECK(detail::items(root).empty());
  CHECK(detail::members(*find_field(root, "c")).empty());
  CHECK(detail::members(root).size() == 2);
  CHECK(detail::items(*find_field(root, "c")).size() == 1);
}

TEST_CASE("json: errors show values shortly and on one line") {
  const auto shown = [](std::string_view text) { return detail::short_dump(parse_json(text)); };
  CHECK(shown("null") == "null");
  CHECK(shown("true") == "true");
  CHECK(shown("-7") == "-7");
  CHECK(shown("18446744073709551615") == "18446744073709551615");
  CHECK(shown("0.1") == "0.1");
  CHECK(shown("1e300") == "1e+300");
  CHECK(shown(R"("a\nb\u00e9")") == "\"a\\nb\xC3\xA9\"");
  CHECK(shown("[]") == "[]");
  CHECK(shown(R"([1, [2, "x"], {"k" : null}])") == R"([1,[2,"x"],{"k":null}])");
  CHECK(shown('"' + std::string(1000, 'x') + '"') == '"' + std::string(59, 'x') + "...");
  std::string accents;
  for (int i = 0; i < 40; ++i) accents += "\xC3\xA9";
  CHECK(is_utf8(shown('"' + accents + '"')));
  std::string list = "0";
  for (int i = 0; i < 60; ++i) list += ",0";
  CHECK(shown('[' + list + ']') == "array of 61 items");
}
