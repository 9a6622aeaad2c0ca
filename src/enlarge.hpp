// Enlarging maps of a network to an image, with the same places and weights as OpenCV's INTER_LINEAR.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// The hot loops are compiled twice on x86: for every processor, and for those with AVX2, chosen when loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define ALONE __restrict__  // nothing else points there: loops need not check before they are vectorised

namespace kernels {

// Where each place of the larger grid lies between two places of the smaller one, along one axis.
struct LinearAxis {
  std::vector<int32_t> lower, upper;
  std::vector<float> weight;  // of `upper`

  LinearAxis(int from, int to) : lower(to), upper(to), weight(to) {
    const double scale = static_cast<double>(from) / to;
    for (int place = 0; place < to; ++place) {
      float position = static_cast<float>((place + 0.5) * scale - 0.5);
      int below = static_cast<int>(std::floor(position));
      position -= static_cast<float>(below);
      if (below < 0) below = 0, position = 0.0f;
      if (below >= from - 1) below = from - 1, position = 0.0f;
      lower[place] = below;
      upper[place] = std::min(below + 1, from - 1);
      weight[place] = position;
    }
  }
};

// The nearest place of the smaller grid, as OpenCV's INTER_NEAREST (floor) or INTER_NEAREST_EXACT (centres) has it.
inline std::vector<int32_t> nearest_axis(int from, int to, bool exact) {
  std::vector<int32_t> index(to);
  const int64_t step = ((static_cast<int64_t>(from) << 16) + to / 2) / to;
  const int64_t first = from % 2 ? step / 2 : step / 2 - 1;
  const double scale = 1.0 / (static_cast<double>(to) / from);
  for (int place = 0; place < to; ++place) {
    const int64_t at = exact ? (step * place + first) >> 16 : static_cast<int64_t>(std::floor(place * scale));
    index[place] = static_cast<int32_t>(std::min<int64_t>(at, from - 1));
  }
  return index;
}

// One row of a small map, spread along x.
void spread_row(const float* ALONE source, const LinearAxis& axis, float* ALONE target);

// Rows of a small plane spread along x, made when they are needed for the first time; the last two are kept.
class SpreadRows {
 public:
  SpreadRows(const float* plane, int width, const LinearAxis& axis)
      : plane_(plane), width_(width), axis_(axis), rows_(2 * axis.lower.size()) {}

  const float* row(int index) {
    const int slot = index & 1;
    float* target = rows_.data() + slot * axis_.lower.size();
    if (held_[slot] != index) {
      spread_row(plane_ + static_cast<int64_t>(index) * width_, axis_, target);
      held_[slot] = index;
    }
    return target;
  }

 private:
  const float* plane_;
  int width_;
  const LinearAxis& axis_;
  std::vector<float> rows_;
  int held_[2] = {-1, -1};
};

}  // namespace kernels
