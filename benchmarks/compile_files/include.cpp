#include <circuit/leap.hpp>
