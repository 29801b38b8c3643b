// A thread's 16 columns of an operand that may be absent.
#pragma once

#include "packed_run.h"

namespace halfbyte {

template <class T>
struct OptionalRun {
    const T* source;  // or null
    uint32_t words[8] = {};  // zero: a register written on one path only would stay occupied on all

    DEVICE explicit OptionalRun(const T* source) : source(source) {}
    DEVICE OptionalRun(const void* source, size_t offset) : source(static_cast<const T*>(source)) { load(offset); }

    DEVICE void load(size_t offset) {
        if (source) load_words(source + offset, words);
    }

    // operation(value, the run's element) for each value, if the operand is there.
    template <class Operation>
    DEVICE void apply(float (&values)[kRun], Operation operation) const {
        if (!source) return;
        float elements[kRun];
        unpack_run<T>(words, elements);
        UNROLL
        for (int i = 0; i < kRun; ++i) values[i] = operation(values[i], elements[i]);
    }
};

// As OptionalRun, of a matrix with one row for every `rows_each` rows of x.
template <class T>
struct OptionalRowRun {
    OptionalRun<T> run;
    int rows_each, row = -1;

    DEVICE OptionalRowRun(const void* source, int rows_each) : run{static_cast<const T*>(source)}, rows_each(rows_each) {}

    DEVICE void load(int row_of_x, int columns, int column) {
        if (!run.source || row_of_x / rows_each == row) return;
        row = row_of_x / rows_each;
        run.load(size_t(row) * columns + column);
    }
};

}  // namespace halfbyte
