#define SECOND_SEARCH (keep::TopPerTarget{.n = 10})
#include "sample.cpp"
