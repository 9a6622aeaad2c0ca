// Maps of numbers: depth, confidence, normals. All arrays are contiguous, row by row.
#include <limits>

#include "enlarge.hpp"

namespace kernels {

FOR_EACH_PROCESSOR
void spread_row(const float* ALONE source, const LinearAxis& axis, float* ALONE target) {
  const int32_t* ALONE lower = axis.lower.data();
  const int32_t* ALONE upper = axis.upper.data();
  const float* ALONE weight = axis.weight.data();
  const int count = static_cast<int>(axis.lower.size());
  for (int x = 0; x < count; ++x)
    target[x] = source[lower[x]] * (1.0f - weight[x]) + source[upper[x]] * weight[x];
}

namespace {

FOR_EACH_PROCESSOR
void blend(const float* ALONE above, const float* ALONE below, float weight, float* ALONE target, int count) {
  const float rest = 1.0f - weight;
  for (int x = 0; x < count; ++x) target[x] = above[x] * rest + below[x] * weight;
}

// Sums of known values over the weights of their neighbours; places whose own value is not finite keep that.
FOR_EACH_PROCESSOR
void blend_known(const float* const rows[4], float weight, const float* ALONE own, float* ALONE target, int count) {
  const float rest = 1.0f - weight, infinity = std::numeric_limits<float>::infinity();
  const float *ALONE above = rows[0], *ALONE below = rows[1];
  const float *ALONE known_above = rows[2], *ALONE known_below = rows[3];
  for (int x = 0; x < count; ++x) {
    const float sum = above[x] * rest + below[x] * weight;
    const float known = known_above[x] * rest + known_below[x] * weight;
    const float value = sum / std::max(known, 1e-6f);
    target[x] = std::fabs(own[x]) < infinity ? value : own[x];
  }
}

FOR_EACH_PROCESSOR
void blend_normals(const float* const rows[6], float weight, float* ALONE target, int count) {
  const float rest = 1.0f - weight;
  const float *ALONE x0 = rows[0], *ALONE x1 = rows[1], *ALONE y0 = rows[2];
  const float *ALONE y1 = rows[3], *ALONE z0 = rows[4], *ALONE z1 = rows[5];
  for (int i = 0; i < count; ++i) {
    const float x = x0[i] * rest + x1[i] * weight;
    const float y = y0[i] * rest + y1[i] * weight;
    const float z = z0[i] * rest + z1[i] * weight;
    const float scale = 1.0f / std::sqrt(x * x + y * y + z * z);
    target[3 * i] = x * scale;
    target[3 * i + 1] = y * scale;
    target[3 * i + 2] = z * scale;
  }
}

FOR_EACH_PROCESSOR
void normalise(const float* tensor, const int32_t* axes, const float* signs, int64_t count, float* planes) {
  const float *a = tensor, *b = tensor + count, *c = tensor + 2 * count;
  float *pa = planes + axes[0] * count, *pb = planes + axes[1] * count, *pc = planes + axes[2] * count;
  const float sa = signs[0], sb = signs[1], sc = signs[2];
  for (int64_t i = 0; i < count; ++i) {
    const float scale = 1.0f / std::sqrt(a[i] * a[i] + b[i] * b[i] + c[i] * c[i]);
    pa[i] = a[i] * scale * sa;
    pb[i] = b[i] * scale * sb;
    pc[i] = c[i] * scale * sc;
  }
}

FOR_EACH_PROCESSOR
bool all_finite(const float* values, int64_t count) {
  float sum = 0.0f;  // stays zero as long as every value is finite
  for (int64_t i = 0; i < count; ++i) sum += values[i] * 0.0f;
  return sum == 0.0f;
}

}  // namespace
}  // namespace kernels

using namespace kernels;

extern "C" {

// (h, w) to (H, W), linear; NaN and infinity do not spread but keep the cells that are nearest to them.
void enlarge_map(const float* values, int32_t h, int32_t w, float* target, int32_t height, int32_t width) {
  const LinearAxis columns(w, width), rows(h, height);
  const int64_t count = static_cast<int64_t>(h) * w;
  if (all_finite(values, count)) {
    SpreadRows spread(values, w, columns);
    for (int y = 0; y < height; ++y) {
      const float *above = spread.row(rows.lower[y]), *below = spread.row(rows.upper[y]);
      blend(above, below, rows.weight[y], target + static_cast<int64_t>(y) * width, width);
    }
    return;
  }
  std::vector<float> known(count), filled(count), own(width);
  for (int64_t i = 0; i < count; ++i) {
    known[i] = std::isfinite(values[i]) ? 1.0f : 0.0f;
    filled[i] = std::isfinite(values[i]) ? values[i] : 0.0f;
  }
  SpreadRows sums(filled.data(), w, columns), weights(known.data(), w, columns);
  const std::vector<int32_t> own_columns = nearest_axis(w, width, true), own_rows = nearest_axis(h, height, true);
  for (int y = 0, held = -1; y < height; ++y) {
    if (own_rows[y] != held) {
      held = own_rows[y];
      for (int x = 0; x < width; ++x) own[x] = values[static_cast<int64_t>(held) * w + own_columns[x]];
    }
    const int upper = rows.lower[y], lower = rows.upper[y];
    const float* const four[4] = {sums.row(upper), sums.row(lower), weights.row(upper), weights.row(lower)};
    blend_known(four, rows.weight[y], own.data(), target + static_cast<int64_t>(y) * width, width);
  }
}

// (3, h, w) of any length to unit vectors (H, W, 3). Channel c of the tensor becomes component axes[c], times signs[c].
void enlarge_normals(const float* tensor, int32_t h, int32_t w, const int32_t* axes, const float* signs, float* target,
                     int32_t height, int32_t width) {
  const LinearAxis columns(w, width), rows(h, height);
  const int64_t count = static_cast<int64_t>(h) * w;
  std::vector<float> planes(3 * count);
  normalise(tensor, axes, signs, count, planes.data());
  SpreadRows x(planes.data(), w, columns), y(planes.data() + count, w, columns), z(planes.data() + 2 * count, w, columns);
  for (int row = 0; row < height; ++row) {
    const int a = rows.lower[row], b = rows.upper[row];
    const float* const six[6] = {x.row(a), x.row(b), y.row(a), y.row(b), z.row(a), z.row(b)};
    blend_normals(six, rows.weight[row], target + 3 * static_cast<int64_t>(row) * width, width);
  }
}
}
