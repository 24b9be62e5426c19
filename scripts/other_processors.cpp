// Runs all kernels of src/maximir/ops/native on numbers from a fixed formula and writes the results, as
// float32, to standard output: first those with float32 feature maps, then those with bfloat16.
// other_processors.py builds this for several processors and compares the outputs.

#include "../src/maximir/ops/native/kernels.cpp"

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace {

uint32_t state = 1;
float next() { return float((state = state * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1; }  // [-1, 1)

std::vector<std::unique_ptr<std::vector<float>>> parameters;
const float* parameter(int64_t count, float scale, float mean = 0) {
    parameters.push_back(std::make_unique<std::vector<float>>(count));
    for (float& value : *parameters.back()) value = mean + scale * next();
    return parameters.back()->data();
}
const float* weight(int64_t outputs, int64_t inputs) {
    return parameter(outputs * inputs, 1 / std::sqrt(float(inputs)));
}

// A map in both forms of feature maps.
struct Map {
    std::vector<float> full;
    std::vector<uint16_t> half;
    explicit Map(int64_t size) : full(size), half(size) {
        for (int64_t i = 0; i < size; ++i) full[i] = next();
        for (int64_t i = 0; i < size; i += W) store(&half[i], load(&full[i]));
    }
    void* in(bool features_bf16) { return features_bf16 ? static_cast<void*>(half.data()) : full.data(); }
    void print(bool features_bf16) {
        if (features_bf16)
            for (size_t i = 0; i < full.size(); i += W) store(&full[i], load(&half[i]));
        std::fwrite(full.data(), sizeof(float), full.size(), stdout);
    }
};

GateWeights gate_weights(int64_t c, int64_t p) {
    return {parameter(c, 0.3f, 1), parameter(c, 0.3f), weight(c, c), parameter(c, 0.3f),
            parameter(c, 0.3f, 1), parameter(c, 0.3f), weight(c, c), parameter(c, 0.3f),
            weight(p, p),          parameter(p, 0.3f), weight(c, c), parameter(c, 0.3f), c};
}

void must(int status) {
    if (status != OK) std::exit(1);
}

}  // namespace

int main() {
    if (!supported()) return 2;
    const int64_t cases[][5] = {{2, 16, 32, 32, 16}, {1, 16, 16, 128, 8}, {1, 16, 16, 96, 8}};
    for (int32_t half = 0; half < 2; ++half)
        for (auto& [n, h, w, c, side] : cases)
            for (int32_t axis = 0; axis < 2; ++axis) {
                const int64_t p = side * side;
                Sweep s{n, h, w, c, side, 0, n * (h / side) * (w / side), axis, half, 1};
                Map x(n * h * w * c), y(n * h * w * c), share(n * h * w * c), other(n * h * w * c);
                MabWeights mab{parameter(c, 0.3f, 1), parameter(c, 0.3f), weight(c, c),     parameter(c, 0.3f),
                               parameter(c, 0.3f, 1), parameter(c, 0.3f), weight(2 * c, c), parameter(2 * c, 0.3f),
                               parameter(c, 0.3f, 1), parameter(c, 0.3f), weight(p, p),     parameter(p, 0.3f),
                               weight(c, c),          parameter(c, 0.3f), weight(c, c),     nullptr,
                               c};
                CrossWeights both{gate_weights(c, p), gate_weights(c, p), weight(c, c), parameter(c, 0.3f),
                                  weight(c, c),       parameter(c, 0.3f)};
                must(mab_sweep(&s, &mab, x.full.data(), nullptr, share.in(half)));
                share.print(half);
                must(mab_sweep(&s, &mab, x.full.data(), share.in(half), other.full.data()));
                other.print(false);
                must(gate_sweep(&s, &both.x, x.in(half), share.in(half)));
                share.print(half);
                must(cross_gate_sweep(&s, &both, x.in(half), y.in(half), share.in(half), share.in(half)));
                x.print(half);
                y.print(half);
                Convolution shape{n, h, w, c, 64, axis, 1, half, 1, 0.2f};  // float32 in both rounds
                Map rows(n * h * w * c), convolved(n * (h + axis - 1) * w * 64);
                const float* taps = parameter(64 * c * 9, 1 / std::sqrt(9.0f * float(c)));
                const float* bias = parameter(64, 0.3f);
                must(convolution(&shape, rows.full.data(), taps, bias, convolved.full.data()));
                convolved.print(false);
                MapRows rows_of{n, h, w, c, 0, h, half, axis, 1};
                RcabWeights rcab{parameter(c, 0.3f, 1), parameter(c, 0.3f), parameter(9 * c * c, 0.1f),
                                 parameter(c, 0.3f),    parameter(9 * c * c, 0.1f), parameter(c, 0.3f)};
                Map sums(n * h * c), picture(n * h * w * 3), level(n * h * w * c), smaller(n * h * w * c / 4);
                must(rcab_sweep(&rows_of, &rcab, rows.full.data(), share.in(half), sums.full.data()));
                share.print(half);
                sums.print(false);
                PictureWeights to_picture{parameter(27 * c, 0.1f), parameter(3, 0.3f), 3};
                must(picture_sweep(&rows_of, &to_picture, level.in(half), picture.full.data()));
                picture.print(false);
                SamWeights sam{parameter(9 * c * c, 0.1f), parameter(c, 0.3f), parameter(27 * c, 0.3f),
                               parameter(c, 0.3f), 3};
                must(sam_sweep(&rows_of, &sam, level.in(half), picture.full.data(), share.in(half)));
                share.print(half);
                must(attend_sweep(&rows_of, rows.full.data(), level.in(half), parameter(n * c, 1), nullptr,
                                  other.full.data()));
                other.print(false);
                Shrink shrink{n, h / 2, w / 2, c, h, h * w * c, 0, 2, half, 1};
                must(shrink_rows(&shrink, level.in(half), smaller.in(half)));
                smaller.print(half);
                if (w % 32 == 0) {
                    Projection sum{n, h, w, c, h * w * c, half, half, 3, 1};
                    const Term terms[] = {
                        {level.in(half), weight(c, c), h * w * c, c, h, 0, PRODUCT, 1, half},
                        {smaller.in(half), weight(4 * c, c), h * w * c / 4, c, h / 2, 0, TRANSPOSED, 1, half},
                        {smaller.in(half), nullptr, h * w * c / 4, c, h / 2, 0, ENLARGED, 2, half}};
                    must(project_rows(&sum, terms, parameter(c, 0.3f), share.in(half), nullptr));
                    share.print(half);
                }
                must(layer_norm(x.full.data(), both.x.n0_gamma, both.x.n0_beta, other.full.data(), n * h * w, c, 1));
                other.print(false);
            }
}
