// Every public header in two files of every test program: a function that lacks `inline` is then defined twice.
#include "every_header.hpp"
