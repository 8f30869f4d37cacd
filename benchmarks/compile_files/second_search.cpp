#define SECOND_SEARCH (keep::TopPerTarget{.count = 10})
#include "sample.cpp"
