#include "circuit/version.hpp"

#include <sstream>

#include "catch.hpp"

using namespace circuit;

TEST_CASE("the version prints as its three numbers, the ones the preprocessor sees") {
  std::ostringstream text;
  text << Version{1, 20, 3};
  CHECK(text.str() == "1.20.3");
  STATIC_REQUIRE(version.major_number == CIRCUIT_VERSION_MAJOR);
  STATIC_REQUIRE(version.minor_number == CIRCUIT_VERSION_MINOR);
}

TEST_CASE("versions are ordered by number, not by text") {
  STATIC_REQUIRE(Version{0, 9, 0} < Version{0, 10, 0});
  STATIC_REQUIRE(Version{0, 9, 9} < Version{1, 0, 0});
}
