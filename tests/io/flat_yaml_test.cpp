#include "circuit/io/flat_yaml.hpp"

#include <string>

#include "catch.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

TEST_CASE("keys, values, lists and comments") {
  const auto json = parse_flat_yaml(
      "---\n"
      "# a set\n"
      "model_name: \"google/gemma-2-2b\"\r\n"
      "hook: blocks.0.hook # not this\n"
      "said: it's so # and not 'this'\n"
      "quoted: 'a # b' # c\n"
      "url: hf://org/repo/x?revision=1#2\n"
      "k: 32\nnegative: -1\nyes: true\nno: false\nnothing: null\nempty:\n"
      "\n"
      "transcoders:\n"
      "  - \"layer_0.safetensors\"\n"
      "  - 'layer_1.safetensors'\n"
      "flat:\n"
      "- a\n"
      "- 2\n");
  REQUIRE(json.at("model_name") == "google/gemma-2-2b");
  REQUIRE(json.at("hook") == "blocks.0.hook");
  REQUIRE(json.at("said") == "it's so");
  REQUIRE(json.at("quoted") == "a # b");
  REQUIRE(json.at("url") == "hf://org/repo/x?revision=1#2");
  REQUIRE(json.at("k") == 32);
  REQUIRE(json.at("negative") == -1);
  REQUIRE(json.at("yes") == true);
  REQUIRE(json.at("no") == false);
  REQUIRE(json.at("nothing").is_null());
  REQUIRE(json.at("empty").is_null());
  REQUIRE(json.at("transcoders") == nlohmann::json{"layer_0.safetensors", "layer_1.safetensors"});
  REQUIRE(json.at("flat") == nlohmann::json{"a", 2});
  REQUIRE(parse_flat_yaml("").empty());
}

TEST_CASE("anything else is refused, with its line") {
  for (const std::string text : {"a: 1\n  b: 2\n", "a: 1\nb: [1, 2]\n", "a: 1\nb: {c: 1}\n", "a: 1\nb: &x 1\n",
                                 "a: 1\nb: *x\n", "a: 1\nb: !!int 3\n", "a: 1\nb: |\n", "a: 1\nb: >\n", "a: 1\na: 2\n",
                                 "a: 1\n- b\n", "a: 1\n\tb: 1\n", "a: 1\nb\n", "a: 1\n: 2\n", "a: 1\nb: \"open\n",
                                 "a: 1\nb: \"a\\n\"\n", "a: 1\nb: c: d\n", "a: 1\n---\n", "a: 1\n? b\n"}) {
    INFO(text);
    const auto error = said<FormatError>([&] { (void)parse_flat_yaml(text, "config.yaml"); });
    INFO(error);
    REQUIRE(error.find("config.yaml") != error.npos);
    REQUIRE(error.find("line 2") != error.npos);
  }
  REQUIRE(said<FormatError>([] { (void)parse_flat_yaml("a:\n  c: 2\n"); }).find("nested") != std::string::npos);
  REQUIRE_THROWS_AS(parse_flat_yaml(std::string((1U << 20U) + 1, '#')), FormatError);
  REQUIRE_THROWS_AS(parse_flat_yaml("a: \xC0\n"), FormatError);
  REQUIRE_THROWS_AS(read_flat_yaml("/nowhere/config.yaml"), FileError);
}
