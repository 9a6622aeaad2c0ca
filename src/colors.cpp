// What is made of finished maps: limits of depth, colours for eyes, bytes, points. All arrays are contiguous.
#include <cstring>
#include <limits>

#include "enlarge.hpp"

namespace kernels {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

FOR_EACH_PROCESSOR
void limit(const float* depth, float low, float high, float* target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = depth[i] > high ? kInfinity : depth[i];
    target[i] = value < low ? kNan : value;
  }
}

FOR_EACH_PROCESSOR
void drop_unsure(const float* ALONE confidence, float least, float* ALONE target, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] = confidence[i] < least ? kNan : target[i];
}

FOR_EACH_PROCESSOR
void to_levels(const float* ALONE values, float factor, float offset, float missing, uint8_t* ALONE target,
               int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float level = values[i] * factor + offset;
    level = level == level ? level : missing;
    level = level < 0.0f ? 0.0f : level;
    level = level > 255.0f ? 255.0f : level;
    target[i] = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(level)));
  }
}

// Index of the colour of a depth, 256 = no value.
FOR_EACH_PROCESSOR
void to_colors(const float* ALONE depth, float low, float factor, uint16_t* ALONE index, int count) {
  for (int i = 0; i < count; ++i) {
    float level = (depth[i] - low) * factor;
    level = level < 0.0f ? 0.0f : level;
    level = level > 255.0f ? 255.0f : level;
    const int32_t rounded = static_cast<int32_t>(std::nearbyint(level == level ? level : 0.0f));
    index[i] = static_cast<uint16_t>(depth[i] == depth[i] ? rounded : 256);
  }
}

// Writes three bytes for each index. Four are stored at a time, the fourth is overwritten by the next pixel.
template <typename Index>
void look_up(const Index* index, const uint32_t* table, uint8_t* target, int64_t count) {
  for (int64_t i = 0; i + 1 < count; ++i) std::memcpy(target + 3 * i, table + index[i], 4);
  if (count > 0) std::memcpy(target + 3 * (count - 1), table + index[count - 1], 3);
}

std::vector<uint32_t> padded(const uint8_t* table, int64_t entries) {
  std::vector<uint32_t> words(entries, 0);
  for (int64_t i = 0; i < entries; ++i) std::memcpy(&words[i], table + 3 * i, 3);
  return words;
}

}  // namespace
}  // namespace kernels

using namespace kernels;

extern "C" {

// Infinity above `high`, NaN below `low` and where the confidence (may be null) is below `least`.
void limit_depth(const float* depth, const float* confidence, float low, float high, float least, float* target,
                 int64_t count) {
  const int64_t band = 4096;  // stays in the cache
  for (int64_t start = 0; start < count; start += band) {
    const int64_t size = std::min(band, count - start);
    limit(depth + start, low, high, target + start, size);
    if (confidence != nullptr) drop_unsure(confidence + start, least, target + start, size);
  }
}

// round(value * factor + offset) in 0 to 255; `missing` for NaN.
void scale_to_bytes(const float* values, float factor, float offset, float missing, uint8_t* target, int64_t count) {
  to_levels(values, factor, offset, missing, target, count);
}

// Colours (257, 3) of the levels 0 to 255 and of NaN. Level of a depth: (depth - low) * factor.
void color_depth(const float* depth, float low, float factor, const uint8_t* table, uint8_t* target, int64_t count) {
  const std::vector<uint32_t> colors = padded(table, 257);
  uint16_t index[1024];
  for (int64_t start = 0; start < count; start += 1024) {
    const int size = static_cast<int>(std::min<int64_t>(1024, count - start));
    to_colors(depth + start, low, factor, index, size);
    look_up(index, colors.data(), target + 3 * start, size);
  }
}

void color_labels_8(const uint8_t* ids, const uint8_t* table, uint8_t* target, int64_t count) {
  look_up(ids, padded(table, 256).data(), target, count);
}

void color_labels_16(const uint16_t* ids, const uint8_t* table, uint8_t* target, int64_t count) {
  look_up(ids, padded(table, 65536).data(), target, count);
}

// Organised points of `point_step` bytes: x, y, z, packed rgb, then confidence and label where their offsets are not
// negative. Rays are x / z of each column and y / z of each row, or of each pixel if `has_pixel_rays`.
void write_points(const float* depth, const uint8_t* rgb, int64_t rgb_stride, const float* ray_x, const float* ray_y,
                  int32_t has_pixel_rays, const float* confidence, int32_t confidence_offset, const void* labels,
                  int32_t label_size, int32_t label_offset, int32_t every, uint8_t* target, int32_t point_step,
                  int32_t height, int32_t width) {
  uint8_t* point = target;
  for (int64_t y = 0; y < height; y += every)
    for (int64_t x = 0; x < width; x += every, point += point_step) {
      const int64_t i = y * width + x;
      const float z = std::fabs(depth[i]) < kInfinity ? depth[i] : kNan;
      const float place[3] = {ray_x[has_pixel_rays ? i : x] * z, ray_y[has_pixel_rays ? i : y] * z, z};
      std::memcpy(point, place, sizeof place);
      const uint8_t* pixel = rgb + y * rgb_stride + 3 * x;
      const uint32_t color = static_cast<uint32_t>(pixel[0]) << 16 | static_cast<uint32_t>(pixel[1]) << 8 | pixel[2];
      std::memcpy(point + 12, &color, 4);
      if (confidence_offset >= 0) {
        const float sure = confidence ? confidence[i] : kNan;
        std::memcpy(point + confidence_offset, &sure, 4);
      }
      if (label_offset >= 0) {
        uint32_t label = 255;
        if (label_size == 1) label = static_cast<const uint8_t*>(labels)[i];
        if (label_size == 2) label = static_cast<const uint16_t*>(labels)[i];
        std::memcpy(point + label_offset, &label, 4);
      }
    }
}
}
