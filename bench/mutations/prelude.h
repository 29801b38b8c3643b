// Included before everything in a build of mutants.
#pragma once

// Which mutant runs; 0: the kernels as they are.
extern "C" int halfbyte_mutant;

namespace halfbyte {

struct Half;
struct Bfloat;

template <class T>
struct OtherHalf;
template <>
struct OtherHalf<Half> {
    using Type = Bfloat;
};
template <>
struct OtherHalf<Bfloat> {
    using Type = Half;
};

template <class T>
using Other = typename OtherHalf<T>::Type;

}  // namespace halfbyte
