// The camera's image to the network's input.
#include "enlarge.hpp"

namespace kernels {
namespace {

using Four = float __attribute__((vector_size(16), aligned(4), may_alias));

// Which places of the larger grid a place of the smaller one covers, and with which weights (OpenCV's INTER_AREA).
struct AreaAxis {
  std::vector<int32_t> first, last;  // [first, last) of `weights` and, shifted by `start`, of the larger grid
  std::vector<int32_t> start;
  std::vector<float> weights;

  AreaAxis(int from, int to) {
    const double scale = static_cast<double>(from) / to;
    for (int place = 0; place < to; ++place) {
      const double left = place * scale, right = left + scale, size = std::min(scale, from - left);
      int inner_right = std::min(static_cast<int>(std::floor(right)), from - 1);
      const int inner_left = std::min(static_cast<int>(std::ceil(left)), inner_right);
      const bool has_left = inner_left - left > 1e-3, has_right = right - inner_right > 1e-3;
      first.push_back(static_cast<int32_t>(weights.size()));
      start.push_back(has_left ? inner_left - 1 : inner_left);
      if (has_left) weights.push_back(static_cast<float>((inner_left - left) / size));
      for (int i = inner_left; i < inner_right; ++i) weights.push_back(static_cast<float>(1.0 / size));
      if (has_right) weights.push_back(static_cast<float>(std::min(std::min(right - inner_right, 1.0), size) / size));
      last.push_back(static_cast<int32_t>(weights.size()));
    }
  }
};

FOR_EACH_PROCESSOR
void set_row(const uint8_t* ALONE pixels, float weight, float* ALONE sums, int count) {
  for (int i = 0; i < count; ++i) sums[i] = static_cast<float>(pixels[i]) * weight;
}

FOR_EACH_PROCESSOR
void add_row(const uint8_t* ALONE pixels, float weight, float* ALONE sums, int count) {
  for (int i = 0; i < count; ++i) sums[i] += static_cast<float>(pixels[i]) * weight;
}

FOR_EACH_PROCESSOR
void add_two_rows(const uint8_t* ALONE upper, const uint8_t* ALONE lower, float a, float b, float* ALONE sums, int count) {
  for (int i = 0; i < count; ++i)
    sums[i] += static_cast<float>(upper[i]) * a + static_cast<float>(lower[i]) * b;
}

// An image and the rows that one row of the small grid covers.
struct Covered {
  const uint8_t* row;
  int64_t stride;
  const float* weights;
  int count;
};

// One mean in OpenCV's order of sums: first along x, then along y.
float mean_by_rows(const Covered& rows, const AreaAxis& columns, int x, int channel) {
  float total = 0.0f;
  for (int j = 0; j < rows.count; ++j) {
    const uint8_t* pixel = rows.row + j * rows.stride + 3 * columns.start[x] + channel;
    float sum = 0.0f;
    for (int i = columns.first[x]; i < columns.last[x]; ++i, pixel += 3)
      sum += static_cast<float>(*pixel) * columns.weights[i];
    total += sum * rows.weights[j];
  }
  return total;
}

FOR_EACH_PROCESSOR
void mean_of_columns(const float* sums, const AreaAxis& columns, float* means, int width) {
  for (int x = 0; x < width; ++x) {
    Four total = {0.0f, 0.0f, 0.0f, 0.0f};
    const float* pixel = sums + 3 * columns.start[x];
    for (int i = columns.first[x]; i < columns.last[x]; ++i, pixel += 3)
      total += *reinterpret_cast<const Four*>(pixel) * columns.weights[i];
    for (int channel = 0; channel < 3; ++channel) means[3 * x + channel] = total[channel];
  }
}

// Rounds means to levels and marks those between two levels. Returns whether there are any.
FOR_EACH_PROCESSOR
bool round_means(const float* ALONE means, float* ALONE levels, int32_t* ALONE is_between, int count) {
  int32_t any = 0;
  for (int i = 0; i < count; ++i) {
    levels[i] = std::nearbyint(means[i]);
    is_between[i] = std::fabs(std::fabs(means[i] - levels[i]) - 0.5f) < 1e-3f;
    any |= is_between[i];
  }
  return any != 0;
}

FOR_EACH_PROCESSOR
void write_levels(const float* ALONE levels, float scale, float shift, float* ALONE target, int width) {
  for (int x = 0; x < width; ++x) target[x] = levels[3 * x] * scale + shift;
}

}  // namespace
}  // namespace kernels

using namespace kernels;

extern "C" {

// (H, W, 3) uint8 with rows `stride` bytes apart to (3, h, w) float32: shrunk to the mean of the pixels that a cell
// covers, rounded to whole levels as OpenCV does, then times `scale` plus `shift` of each channel.
void shrink_image(const uint8_t* rgb, int32_t height, int32_t width, int64_t stride, const float* scale,
                  const float* shift, float* target, int32_t h, int32_t w) {
  const AreaAxis columns(width, w), rows(height, h);
  std::vector<float> sums(3 * static_cast<int64_t>(width) + 1), means(3 * static_cast<int64_t>(w)), levels(means.size());
  std::vector<int32_t> is_between(means.size());
  const int count = 3 * width;
  for (int y = 0; y < h; ++y) {
    const Covered covered{rgb + rows.start[y] * stride, stride, rows.weights.data() + rows.first[y],
                          rows.last[y] - rows.first[y]};
    set_row(covered.row, covered.weights[0], sums.data(), count);
    int j = 1;
    for (; j + 1 < covered.count; j += 2)
      add_two_rows(covered.row + j * stride, covered.row + (j + 1) * stride, covered.weights[j],
                   covered.weights[j + 1], sums.data(), count);
    if (j < covered.count) add_row(covered.row + j * stride, covered.weights[j], sums.data(), count);
    mean_of_columns(sums.data(), columns, means.data(), w);
    // Where a mean is between two levels its last bit decides, and so the order in which it was summed.
    if (round_means(means.data(), levels.data(), is_between.data(), 3 * w))
      for (int i = 0; i < 3 * w; ++i)
        if (is_between[i]) levels[i] = std::nearbyint(mean_by_rows(covered, columns, i / 3, i % 3));
    for (int channel = 0; channel < 3; ++channel) {
      float* row = target + (static_cast<int64_t>(channel) * h + y) * w;
      write_levels(levels.data() + channel, scale[channel], shift[channel], row, w);
    }
  }
}
}
