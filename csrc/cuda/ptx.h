// Everything a kernel may use of the machine: each instruction with its host twin (csrc/simt) beside it.
#pragma once

#include "arithmetic.h"
#include "functions.h"
#include "numbers.h"
#include "platform.h"
#include "ptx_memory.h"
#include "ptx_mma.h"
#include "ptx_nvfp4.h"
#include "ptx_warp.h"
