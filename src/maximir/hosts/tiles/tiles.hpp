// Restore photographs of any size with a file of `maximir export --tile`. The same as tiles.py; see there.
//
//   maximir::Network network;                       // as in enhance.json
//   network.whole = 409600; network.view = 640;
//   network.run = [&](std::vector<float> planes, int h, int w) { … };   // Ort::Session::Run, [1, 3, h, w]
//   maximir::Image restored = maximir::restore(image, network);
//
// C++17, header only. Images are planes [3, height, width] of float in [0, 1]; results are not clipped.

#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

namespace maximir {

struct Image {
    int height = 0, width = 0;
    std::vector<float> data;  // [3, height, width]

    Image() = default;
    Image(int height, int width) : height(height), width(width), data(3 * std::size_t(height) * width) {}
    float &at(int c, int y, int x) { return data[(std::size_t(c) * height + y) * width + x]; }
    float at(int c, int y, int x) const { return data[(std::size_t(c) * height + y) * width + x]; }
};

struct Network {
    std::function<std::vector<float>(std::vector<float>, int, int)> run;  // planes, h, w → the same, restored
    std::function<void(double)> report = [](double) {};                   // the part that is done, 0 … 1
    int multiple = 64, tile = 512, overlap = 64, whole = 409600;
    int view = 0, large = 1024;  // view 0: the facts say "light": null
    float smooth = 4;
};

using Axis = std::vector<std::pair<int, std::vector<float>>>;  // start and weights of each tile

// Position k of a padded side holds the image's pixel source(k, size, multiple); the image begins at before(…).
inline int fold(int i, int n) {
    const int period = n > 1 ? 2 * (n - 1) : 1;
    i = ((i % period) + period) % period;
    return i < n ? i : period - i;
}
// Padding to multiples of 64 is centred; other multiples are padded at the end.
inline int even(int size) { return size + size % 2; }
inline int more(int size, int multiple) { return (multiple - even(size) % multiple) % multiple; }
inline int before(int size, int multiple) { return multiple == 64 ? more(size, 64) / 2 : 0; }
inline int side(int size, int multiple) { return even(size) + more(size, multiple); }
inline int source(int k, int size, int multiple) { return fold(fold(k - before(size, multiple), even(size)), size); }

// Halves to even, as Python does.
inline int rounded(double x) {
    const double down = std::floor(x);
    return int(x - down == 0.5 ? down + std::fmod(down, 2) : std::floor(x + 0.5));
}

inline Image restore_at_once(const Image &image, const Network &network) {
    const int multiple = network.multiple, h = side(image.height, multiple), w = side(image.width, multiple);
    const int top = before(image.height, multiple), left = before(image.width, multiple);
    Image padded(h, w), result(image.height, image.width);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                padded.at(c, y, x) = image.at(c, source(y, image.height, multiple), source(x, image.width, multiple));
    padded.data = network.run(std::move(padded.data), h, w);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < image.height; y++)
            for (int x = 0; x < image.width; x++)
                result.at(c, y, x) = padded.at(c, y + top, x + left);
    return result;
}

// Evenly spaced tiles that overlap by at least `overlap`, where the later one fades in.
inline Axis tiles(int length, int tile, int overlap) {
    if (length <= tile) return {{0, std::vector<float>(length, 1.f)}};
    const int count = (length - overlap + tile - overlap - 1) / (tile - overlap);
    Axis axis;
    for (int i = 0; i < count; i++)
        axis.push_back({rounded(double(i) * (length - tile) / (count - 1)), std::vector<float>(tile, 1.f)});
    for (int i = 1; i < count; i++) {
        const int faded = axis[i - 1].first + tile - axis[i].first;
        for (int k = 0; k < faded; k++) axis[i].second[k] = float(k + 1) / float(faded + 1);
        for (int j = 0; j < i; j++) {  // earlier tiles keep what this one leaves
            const int shared = axis[j].first + tile - axis[i].first;
            for (int k = 0; k < shared; k++) axis[j].second[tile - shared + k] *= 1 - axis[i].second[k];
        }
    }
    return axis;
}

// Average areas.
inline Image shrink(const Image &image, int h, int w) {
    Image result(h, w);
    const auto first = [](long i, int length, int count) { return int(i * length / count); };
    const auto last = [](long i, int length, int count) { return int(((i + 1) * length + count - 1) / count); };
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++) {
                const int top = first(i, image.height, h), bottom = last(i, image.height, h);
                const int left = first(j, image.width, w), right = last(j, image.width, w);
                double sum = 0;
                for (int y = top; y < bottom; y++)
                    for (int x = left; x < right; x++) sum += image.at(c, y, x);
                result.at(c, i, j) = float(sum / (double(bottom - top) * (right - left)));
            }
    return result;
}

// Blur by a Gaussian, rows then columns.
inline Image blur(const Image &image, float sigma) {
    const int reach = int(3 * sigma);
    std::vector<double> gaussian;
    double total = 0;
    for (int k = -reach; k <= reach; k++) {
        gaussian.push_back(std::exp(-0.5 * (k / sigma) * (k / sigma)));
        total += gaussian.back();
    }
    Image one = image, both = image;
    const auto along = [&](const Image &from, Image &to, int down, int across) {
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < from.height; y++)
                for (int x = 0; x < from.width; x++) {
                    double sum = 0;
                    for (int k = -reach; k <= reach; k++)
                        sum += gaussian[k + reach] * from.at(c, std::clamp(y + k * down, 0, from.height - 1),
                                                             std::clamp(x + k * across, 0, from.width - 1));
                    to.at(c, y, x) = float(sum / total);
                }
    };
    along(image, one, 1, 0);
    along(one, both, 0, 1);
    return both;
}

// Add a small difference, enlarged linearly.
inline void add_light(Image &image, const Image &light) {
    const auto at = [](int i, int length, int count) {
        return std::clamp((i + 0.5) * count / length - 0.5, 0.0, double(count - 1));
    };
    for (int y = 0; y < image.height; y++) {
        const double v = at(y, image.height, light.height);
        const int top = int(v), bottom = std::min(top + 1, light.height - 1);
        for (int x = 0; x < image.width; x++) {
            const double u = at(x, image.width, light.width);
            const int left = int(u), right = std::min(left + 1, light.width - 1);
            for (int c = 0; c < 3; c++) {
                const auto mix = [&](int row) {
                    return light.at(c, row, left) * (1 - (u - left)) + light.at(c, row, right) * (u - left);
                };
                image.at(c, y, x) += float(mix(top) * (1 - (v - top)) + mix(bottom) * (v - top));
            }
        }
    }
}

inline Image restore(const Image &image, const Network &network) {
    const int height = image.height, width = image.width;
    const bool fits = long(side(height, network.multiple)) * side(width, network.multiple) <= network.whole;
    const bool viewed = network.view && (std::max(height, width) >= network.large || !fits);
    if (fits && !viewed) return restore_at_once(image, network);
    const Axis rows = tiles(height, network.tile, network.overlap);
    const Axis columns = tiles(width, network.tile, network.overlap);
    const double count = double(rows.size() * columns.size() + viewed);
    Image result(height, width);
    int done = 0;
    for (const auto &[top, down] : rows)
        for (const auto &[left, across] : columns) {
            Image part(int(down.size()), int(across.size()));
            for (int c = 0; c < 3; c++)
                for (int y = 0; y < part.height; y++)
                    for (int x = 0; x < part.width; x++) part.at(c, y, x) = image.at(c, top + y, left + x);
            part = restore_at_once(part, network);
            for (int c = 0; c < 3; c++)
                for (int y = 0; y < part.height; y++)
                    for (int x = 0; x < part.width; x++)
                        result.at(c, top + y, left + x) += down[y] * across[x] * part.at(c, y, x);
            network.report(++done / count);
        }
    if (viewed) {
        const double scale = double(network.view) / std::max(height, width);
        const int h = std::max(1, rounded(height * scale)), w = std::max(1, rounded(width * scale));
        Image difference = restore_at_once(shrink(image, h, w), network);
        const Image tiled = shrink(result, h, w);
        for (std::size_t i = 0; i < tiled.data.size(); i++) difference.data[i] -= tiled.data[i];
        add_light(result, blur(difference, network.smooth));
        network.report(1);
    }
    return result;
}

}  // namespace maximir
