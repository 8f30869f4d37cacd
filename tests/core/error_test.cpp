#include "circuit/core/error.hpp"

#include "catch.hpp"

using namespace circuit;

TEST_CASE("an error prints every part it has, in reading order") {
  const Error error{{.file = "l3.safetensors",
                     .tensor = "W_enc",
                     .problem = "cannot be used",
                     .expected = "float32",
                     .got = "int8",
                     .hint = "convert it"}};
  CHECK(error.what() ==
        std::string{"l3.safetensors: \"W_enc\": cannot be used: expected float32, got int8; convert it"});
}

TEST_CASE("an error leaves out the parts it lacks") {
  CHECK(Error{{.problem = "nothing to do"}}.what() == std::string{"nothing to do"});
  CHECK(Error{{.file = "a.json", .got = "permission denied"}}.what() == std::string{"a.json: got permission denied"});
}

TEST_CASE("an error keeps its parts readable") {
  try {
    throw NameError{{.file = "a.json", .tensor = "role", .expected = "S1 or S2", .got = "S3"}};
  } catch (const Error& caught) {
    CHECK(caught.details().file == "a.json");
    CHECK(caught.details().tensor == "role");
    CHECK(caught.details().expected == "S1 or S2");
    CHECK(caught.details().got == "S3");
  }
}

TEST_CASE("a shape error prints both shapes and keeps them as numbers") {
  const ShapeError error{{.file = "l3.safetensors",
                          .tensor = "W_enc",
                          .expected = {768, -1},
                          .got = {24576, 768},
                          .hint = "transpose it"}};
  CHECK(error.what() == std::string{"l3.safetensors: \"W_enc\": expected [768, any], got [24576, 768]; transpose it"});
  CHECK(error.expected() == std::vector<std::int64_t>{768, -1});
  CHECK(error.got() == std::vector<std::int64_t>{24576, 768});
}

TEST_CASE("a scalar's shape prints as empty brackets") {
  CHECK(ShapeError{{.expected = {}, .got = {1}}}.what() == std::string{"expected [], got [1]"});
}

TEST_CASE("every error is a circuit::Error and a std::runtime_error") {
  CHECK_THROWS_AS(throw FileError{{}}, Error);
  CHECK_THROWS_AS(throw FormatError{{}}, Error);
  CHECK_THROWS_AS(throw ConfigError{{}}, Error);
  CHECK_THROWS_AS(throw NameError{{}}, Error);
  CHECK_THROWS_AS(throw DTypeError{{}}, Error);
  CHECK_THROWS_AS(throw IndexError{{}}, Error);
  CHECK_THROWS_AS(throw ValueError{{}}, Error);
  CHECK_THROWS_AS(throw ShapeError{{}}, Error);
  CHECK_THROWS_AS(throw Cancelled{"the search"}, std::runtime_error);
}

TEST_CASE("cancelled work names itself") {
  CHECK(Cancelled{"the search"}.what() == std::string{"the search was cancelled"});
}
