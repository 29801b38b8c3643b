// From the float32 tile in registers to the output: bias, activation or gated linear unit, gate and residual, one rounding.
#pragma once

#include "gemm_quantize.h"

namespace halfbyte {

DEVICE float activate(float y, Activation activation) {
    switch (activation) {
        case Activation::kGeluErf:
            return 0.5f * y * (1.0f + ptx::erf(y * 0.70710678118654752f));
        case Activation::kGeluTanh:
            return 0.5f * y * (1.0f + ptx::tanh(0.79788456080286536f * ptx::fma(0.044715f * y * y, y, y)));
        case Activation::kSilu:
            return ptx::divide(y, 1.0f + ptx::exp(-y));
        default:
            return y;
    }
}

// Eight neighbouring values: what one thread reads and writes at once.
constexpr int kVector = 8;

template <class T>
DEVICE void unpack_vector(float (&values)[kVector], const Words4& words) {
    ptx::unpack2<T>(words.x, values[0], values[1]);
    ptx::unpack2<T>(words.y, values[2], values[3]);
    ptx::unpack2<T>(words.z, values[4], values[5]);
    ptx::unpack2<T>(words.w, values[6], values[7]);
}

template <class T>
DEVICE void load_vector(float (&values)[kVector], const void* from, size_t index) {
    unpack_vector<T>(values, ptx::load_readonly(reinterpret_cast<const Words4*>(static_cast<const T*>(from) + index)));
}

template <class T>
DEVICE Words4 rounded_vector(const float (&values)[kVector]) {
    return {ptx::pack2<T>(values[0], values[1]), ptx::pack2<T>(values[2], values[3]), ptx::pack2<T>(values[4], values[5]),
            ptx::pack2<T>(values[6], values[7])};
}

// Rows: of floats in shared memory, of which each four stand together.
template <class Rows>
DEVICE void load_floats(float (&values)[kVector], const Rows& rows, int row, int column) {
    UNROLL
    for (int half = 0; half < 2; ++half) {
        const Words4 words = ptx::load_shared<Words4>(rows.at(row, column + 4 * half));
        values[4 * half] = ptx::bits_float(words.x);
        values[4 * half + 1] = ptx::bits_float(words.y);
        values[4 * half + 2] = ptx::bits_float(words.z);
        values[4 * half + 3] = ptx::bits_float(words.w);
    }
}

DEVICE Words4 float_words(const float (&values)[kVector], int first) {
    return {ptx::float_bits(values[first]), ptx::float_bits(values[first + 1]), ptx::float_bits(values[first + 2]),
            ptx::float_bits(values[first + 3])};
}

// Where a warp lays out rows of kWidth columns of its part, so that a thread finds eight neighbouring values. Eight floats of
// padding keep the rows of a fragment column in different banks.
template <int kWidth>
struct StagedRows {
    static constexpr int kStride = kWidth + 8;
    uint8_t* rows;

    DEVICE uint8_t* at(int row, int column) const { return rows + (row * kStride + column) * 4; }

    DEVICE void get(float (&values)[kVector], int row, int column) const {
        load_floats(values, *this, row, column);
    }
};

template <class Tile>
struct Staging : StagedRows<Tile::kWarpN> {
    static constexpr int kRows = 8;
    static constexpr int kBytes = Tile::kWarps * kRows * Staging::kStride * 4;

    DEVICE Staging(uint8_t* shared, int warp) : StagedRows<Tile::kWarpN>{shared + warp * kRows * Staging::kStride * 4} {}

    // The upper (0) or lower (1) eight rows of a row of fragments.
    template <int kHalf>
    DEVICE void put(const float (&fragments)[Tile::kTilesN][4], const Place<Tile>& place) const {
        UNROLL
        for (int j = 0; j < Tile::kTilesN; ++j) {
            const Words2 pair = {ptx::float_bits(fragments[j][2 * kHalf]), ptx::float_bits(fragments[j][2 * kHalf + 1])};
            ptx::store_shared(this->at(place.row_in_group, 8 * j + 2 * place.quad), pair);
        }
    }
};

template <class T>
DEVICE void add_bias(float (&values)[kVector], const void* bias, int column) {
    if (!bias) return;
    float added[kVector];
    load_vector<T>(added, bias, column);
    UNROLL
    for (int e = 0; e < kVector; ++e) values[e] += added[e];
}

// The eight outputs that begin at `column` of a row in the staging area: bias and activation, or the gated linear unit.
template <class T, class Tile>
DEVICE void activated(float (&values)[kVector], const Staging<Tile>& staging, int row, int column, const Columns<Tile>& columns,
                      int product_column, const EpilogueArguments& epilogue) {
    staging.get(values, row, column);
    add_bias<T>(values, epilogue.bias, product_column);
    if (!columns.pairs) {
        UNROLL
        for (int e = 0; e < kVector; ++e) values[e] = activate(values[e], epilogue.activation);
        return;
    }
    float gates[kVector];
    staging.get(gates, row, column + Tile::kWarpN / 2);
    add_bias<T>(gates, epilogue.bias, product_column + (columns.gate_first ? -columns.pairs : columns.pairs));
    UNROLL
    for (int e = 0; e < kVector; ++e) values[e] *= activate(gates[e], epilogue.activation);
}

template <class T>
DEVICE void add_residual(float (&values)[kVector], const EpilogueArguments& epilogue, int row, int column, int width) {
    if (!epilogue.residual) return;
    float residual[kVector];
    load_vector<T>(residual, epilogue.residual, size_t(row) * width + column);
    if (epilogue.gate) {
        float gate[kVector];
        load_vector<T>(gate, epilogue.gate, size_t(row / epilogue.rows_per_gate) * width + column);
        UNROLL
        for (int e = 0; e < kVector; ++e) values[e] *= gate[e];
    }
    UNROLL
    for (int e = 0; e < kVector; ++e) values[e] += residual[e];
}

template <class T>
DEVICE void write_vector(const float (&values)[kVector], const EpilogueArguments& epilogue, size_t index) {
    if (epilogue.out_dtype == Dtype::kFloat) {
        auto* out = reinterpret_cast<Words4*>(static_cast<float*>(epilogue.out) + index);
        ptx::store(out, float_words(values, 0));
        ptx::store(out + 1, float_words(values, 4));
    } else {
        ptx::store(reinterpret_cast<Words4*>(static_cast<T*>(epilogue.out) + index), rounded_vector<T>(values));
    }
}

// y holds the warp's fragments. The staging area lies where the pipeline's stages were: all warps must be through with them.
template <class T, bool kQuantizes, class Tile>
DEVICE void write_tile(const float (&y)[Tile::kTilesM][Tile::kTilesN][4], uint8_t* shared, const Place<Tile>& place,
                       const Columns<Tile>& columns, const GemmArguments& arguments) {
    const EpilogueArguments& epilogue = arguments.epilogue;
    const Staging<Tile> staging(shared, place.warp);
    const HiddenTile<Tile> hidden{shared + Staging<Tile>::kBytes};
    const bool quantized = kQuantizes && epilogue.next.qx;
    const int width = columns.pairs ? columns.pairs : arguments.n;
    const int vectors = (columns.pairs ? Tile::kWarpN / 2 : Tile::kWarpN) / kVector;
    // Rolled, so that the code of all activations exists once; which fragments are put then takes a comparison.
    ROLLED
    for (int part = 0; part < 2 * Tile::kTilesM; ++part) {
        ptx::warp_sync();
        UNROLL
        for (int i = 0; i < Tile::kTilesM; ++i) {
            if (part == 2 * i) {
                staging.template put<0>(y[i], place);
                KEEP_APART();
            }
            if (part == 2 * i + 1) {
                staging.template put<1>(y[i], place);
                KEEP_APART();
            }
        }
        ptx::warp_sync();
        ROLLED
        for (int vector = place.lane; vector < Staging<Tile>::kRows * vectors; vector += 32) {
            const int staged_row = vector / vectors, column_in_warp = vector % vectors * kVector;
            const int row_in_tile = place.warp_row + Staging<Tile>::kRows * part + staged_row, row = place.first_row() + row_in_tile;
            const int product_column = columns.of(place.warp_column + column_in_warp);
            const bool inside = row < arguments.m && product_column >= 0;
            const int column = columns.pairs && product_column >= columns.pairs ? product_column - columns.pairs : product_column;
            float values[kVector] = {};
            if (inside) {
                activated<T>(values, staging, staged_row, column_in_warp, columns, product_column, epilogue);
                add_residual<T>(values, epilogue, row, column, width);
            }
            if (quantized) {
                const int first = columns.pairs ? place.warp_column / 2 : place.warp_column;
                ptx::store_shared(hidden.at(row_in_tile, first + column_in_warp), rounded_vector<T>(values));
            } else if (inside) {
                write_vector<T>(values, epilogue, size_t(row) * epilogue.out_stride + column);
            }
        }
    }
    if constexpr (kQuantizes) {
        if (!quantized) return;
        ptx::barrier();
        QuantizeHidden<T, Tile>(arguments, place, hidden).run();
    }
}

}  // namespace halfbyte
