// Finds accesses of different threads to the same bytes that nothing puts in order, whatever the schedule was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "machine.h"
#include "memory.h"

namespace halfbyte::simt {

void start_launch_races();
void start_block_races();

void check_shared_race(size_t offset, size_t bytes, Access access, Site site);
void check_global_race(uintptr_t address, size_t bytes, Access access, const std::string& name, size_t offset, Site site);

// A cp.async, whose bytes nobody may touch until its thread has waited for it.
void begin_copy(size_t offset, size_t bytes);
void end_copy(size_t offset, size_t bytes);

}  // namespace halfbyte::simt
