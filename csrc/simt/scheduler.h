// Runs the threads of one block until all have returned.
#pragma once

#include <cstdint>
#include <random>

#include "machine.h"

namespace halfbyte::simt {

// machine.block, .shared and .options are set. Throws the Fault that ended it.
void run_block(const Body& body, int threads, std::mt19937_64& random);

}  // namespace halfbyte::simt
