// Float types an operand can have, as Python names them.
#pragma once

namespace halfbyte {

enum class Dtype : int { kHalf, kBfloat, kFloat };

}  // namespace halfbyte
