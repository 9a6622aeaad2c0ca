// Instances out of votes for the centres of objects. The method and its constants: inference/instances.py.
#include <cstring>
#include <numeric>

#include "enlarge.hpp"

namespace kernels {
namespace {

struct Settings {  // as in inference/instances.py
  double smoothing, peak_distance, smallest, overlap;
};

struct Point {
  int32_t x, y;
};

// Part of the grid, [left, right) x [top, bottom).
struct Window {
  int left, top, right, bottom;
  int width() const { return right - left; }
  int height() const { return bottom - top; }
};

FOR_EACH_PROCESSOR
void add_scaled(const float* ALONE source, float factor, float* ALONE target, int count) {
  for (int i = 0; i < count; ++i) target[i] += source[i] * factor;
}

FOR_EACH_PROCESSOR
void take_larger(const float* ALONE source, float* ALONE target, int count) {
  for (int i = 0; i < count; ++i) target[i] = std::max(target[i], source[i]);
}

// OpenCV's getGaussianKernel for float32 images: about four standard deviations to each side.
std::vector<float> gaussian(double sigma) {
  const int size = static_cast<int>(std::lround(sigma * 8 + 1)) | 1;
  std::vector<float> kernel(size);
  double sum = 0;
  for (int i = 0; i < size; ++i) {
    const double x = i - (size - 1) * 0.5;
    kernel[i] = static_cast<float>(std::exp(-0.5 / (sigma * sigma) * x * x));
    sum += kernel[i];
  }
  for (float& value : kernel) value = static_cast<float>(value / sum);
  return kernel;
}

// Combines every row of a window with its shifted neighbours, first along x, then along y. Outside there is `border`.
template <typename Combine>
void separable(std::vector<float>& values, int width, int height, int radius, float border, Combine combine) {
  std::vector<float> padded(width + 2 * radius, border), along(values.size(), border), result(values.size(), border);
  for (int y = 0; y < height; ++y) {
    std::copy_n(values.begin() + static_cast<int64_t>(y) * width, width, padded.begin() + radius);
    for (int shift = 0; shift <= 2 * radius; ++shift)
      combine(padded.data() + shift, shift, along.data() + static_cast<int64_t>(y) * width, width);
  }
  for (int y = 0; y < height; ++y)
    for (int shift = 0; shift <= 2 * radius; ++shift) {
      const int row = y + shift - radius;
      if (row >= 0 && row < height)
        combine(along.data() + static_cast<int64_t>(row) * width, shift,
                result.data() + static_cast<int64_t>(y) * width, width);
    }
  values.swap(result);
}

class Grouping {
 public:
  Grouping(int width, int height, const Settings& settings)
      : width_(width), height_(height), overlap_(settings.overlap) {
    const double scale = std::sqrt(static_cast<double>(width) * height);
    const double sigma = std::max(0.7, settings.smoothing * scale);
    kernel_ = gaussian(sigma);
    reach_ = std::max(1, static_cast<int>(std::nearbyint(settings.peak_distance * scale)));
    least_ = std::max(1.0, settings.smallest * (static_cast<double>(width) * height));
    threshold_ = least_ / (2 * 3.14159265358979323846 * 10 * sigma * sigma);
  }

  double least() const { return least_; }

  // The number of the object of each vote, from 1, top to bottom; 0 everywhere if there is none.
  void group(const std::vector<Point>& votes, std::vector<int32_t>& objects) const {
    objects.assign(votes.size(), 0);
    std::vector<Point> peaks = find_peaks(votes);
    if (peaks.empty()) return;
    assign(votes, peaks, objects);
    std::vector<int64_t> sizes(peaks.size());
    for (const int32_t object : objects) ++sizes[object];
    std::vector<int> order(peaks.size()), kept;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sizes[a] > sizes[b]; });
    for (const int index : order) {
      const auto is_apart = [&](int other) {
        const double dx = peaks[other].x - peaks[index].x, dy = peaks[other].y - peaks[index].y;
        return std::sqrt(dx * dx + dy * dy) > overlap_ * std::sqrt(static_cast<double>(sizes[other]));
      };
      if (std::all_of(kept.begin(), kept.end(), is_apart)) kept.push_back(index);
    }
    if (kept.size() < peaks.size()) {
      std::sort(kept.begin(), kept.end());
      std::vector<Point> left;
      for (const int index : kept) left.push_back(peaks[index]);
      assign(votes, left, objects);
    }
    for (int32_t& object : objects) ++object;
  }

 private:
  // Local maxima of the smoothed votes, top to bottom. Only the votes' surroundings are looked at.
  std::vector<Point> find_peaks(const std::vector<Point>& votes) const {
    const int blur = static_cast<int>(kernel_.size()) / 2, margin = blur + reach_;
    Window window{width_, height_, 0, 0};
    for (const Point& vote : votes) {
      window.left = std::min(window.left, vote.x - margin), window.top = std::min(window.top, vote.y - margin);
      window.right = std::max(window.right, vote.x + margin + 1);
      window.bottom = std::max(window.bottom, vote.y + margin + 1);
    }
    window = {std::max(window.left, 0), std::max(window.top, 0), std::min(window.right, width_),
              std::min(window.bottom, height_)};
    std::vector<float> density(static_cast<int64_t>(window.width()) * window.height(), 0.0f);
    for (const Point& vote : votes)
      ++density[static_cast<int64_t>(vote.y - window.top) * window.width() + vote.x - window.left];
    separable(density, window.width(), window.height(), blur, 0.0f,
              [&](const float* source, int shift, float* target, int count) {
                add_scaled(source, kernel_[shift], target, count);
              });
    tilt(density, window);
    std::vector<float> highest = density;
    separable(highest, window.width(), window.height(), reach_, -1.0f,
              [](const float* source, int, float* target, int count) { take_larger(source, target, count); });
    std::vector<Point> peaks;
    const float threshold = static_cast<float>(threshold_);
    for (int y = 0; y < window.height(); ++y)
      for (int x = 0; x < window.width(); ++x) {
        const int64_t i = static_cast<int64_t>(y) * window.width() + x;
        if (density[i] >= highest[i] && density[i] >= threshold) peaks.push_back({x + window.left, y + window.top});
      }
    return peaks;
  }

  // A slope too faint to matter leaves one maximum on a plateau.
  void tilt(std::vector<float>& density, const Window& window) const {
    const double start = 1e-4 * threshold_;
    const int64_t last = static_cast<int64_t>(width_) * height_ - 1;
    const double step = last > 0 ? -start / last : 0.0;
    for (int y = 0; y < window.height(); ++y)
      for (int x = 0; x < window.width(); ++x) {
        const int64_t place = static_cast<int64_t>(y + window.top) * width_ + x + window.left;
        const double value = place == last && last > 0 ? 0.0 : place * step + start;
        density[static_cast<int64_t>(y) * window.width() + x] += static_cast<float>(value);
      }
  }

  static void assign(const std::vector<Point>& votes, const std::vector<Point>& peaks, std::vector<int32_t>& nearest) {
    for (size_t i = 0; i < votes.size(); ++i) {
      int64_t best = INT64_MAX;
      for (size_t peak = 0; peak < peaks.size(); ++peak) {
        const int64_t dx = votes[i].x - peaks[peak].x, dy = votes[i].y - peaks[peak].y;
        const int64_t distance = dx * dx + dy * dy;
        if (distance < best) best = distance, nearest[i] = static_cast<int32_t>(peak);
      }
    }
  }

  int width_, height_, reach_;
  double overlap_, least_, threshold_;
  std::vector<float> kernel_;
};

int32_t rounded(float value, int most) {
  if (!(value > 0.0f)) return 0;  // also NaN
  return value >= static_cast<float>(most) ? most : static_cast<int32_t>(std::nearbyint(value));
}

// For each of some classes its ids, with a border of one cell around them, which the smooth outline may reach.
std::vector<std::vector<uint16_t>> grown(const uint16_t* ids, const int32_t* channels, const std::vector<int32_t>& present,
                                         int h, int w) {
  std::vector<std::vector<uint16_t>> planes(present.size(), std::vector<uint16_t>(static_cast<int64_t>(h) * w, 0));
  const auto slot = [&](uint16_t id) {
    return std::lower_bound(present.begin(), present.end(), channels[id - 1]) - present.begin();
  };
  std::vector<int32_t> slot_at(static_cast<int64_t>(h) * w, -1);
  for (size_t i = 0; i < slot_at.size(); ++i)
    if (ids[i]) slot_at[i] = static_cast<int32_t>(slot(ids[i])), planes[slot_at[i]][i] = ids[i];
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x) {
      const int64_t place = static_cast<int64_t>(y) * w + x;
      if (slot_at[place] < 0) continue;
      std::vector<uint16_t>& plane = planes[slot_at[place]];
      for (int row = std::max(y - 1, 0); row <= std::min(y + 1, h - 1); ++row)
        for (int column = std::max(x - 1, 0); column <= std::min(x + 1, w - 1); ++column) {
          const int64_t near = static_cast<int64_t>(row) * w + column;
          if (slot_at[near] != slot_at[place]) plane[near] = std::max(plane[near], ids[place]);
        }
    }
  return planes;
}

template <typename Id>
void enlarge(const uint16_t* ids, int h, int w, const int32_t* channels, int count, const Id* semantic,
             const int32_t* label_ids, uint16_t* target, int height, int width) {
  std::vector<int16_t> slot_of(static_cast<size_t>(1) << (8 * sizeof(Id)), -1);
  std::vector<int32_t> present(channels, channels + count);
  std::sort(present.begin(), present.end());
  present.erase(std::unique(present.begin(), present.end()), present.end());
  const std::vector<std::vector<uint16_t>> planes = grown(ids, channels, present, h, w);
  std::vector<std::vector<uint16_t>> spread(present.size(), std::vector<uint16_t>(width));
  for (size_t i = 0; i < present.size(); ++i) slot_of[label_ids[present[i]]] = static_cast<int16_t>(i);
  std::vector<int32_t> held(present.size(), -1);  // row of the small grid that is spread along x
  const std::vector<int32_t> columns = nearest_axis(w, width, false), rows = nearest_axis(h, height, false);
  for (int y = 0; y < height; ++y) {
    const Id* labels = semantic + static_cast<int64_t>(y) * width;
    uint16_t* row = target + static_cast<int64_t>(y) * width;
    for (int x = 0; x < width;) {  // runs of one label
      const Id label = labels[x];
      int end = x + 1;
      while (end < width && labels[end] == label) ++end;
      const int16_t slot = slot_of[label];
      if (slot < 0) {
        std::memset(row + x, 0, (end - x) * sizeof(uint16_t));
      } else {
        if (held[slot] != rows[y]) {
          held[slot] = rows[y];
          const uint16_t* source = planes[slot].data() + static_cast<int64_t>(rows[y]) * w;
          for (int i = 0; i < width; ++i) spread[slot][i] = source[columns[i]];
        }
        std::copy(spread[slot].begin() + x, spread[slot].begin() + end, row + x);
      }
      x = end;
    }
  }
}

}  // namespace
}  // namespace kernels

using namespace kernels;

extern "C" {

// Groups the pixels of things.
//   winner: (h, w), class of every pixel.   offsets: (2, h, w), right and down, times `scale_x` and `scale_y`: cells.
//   things: (classes,), 1 where a class is countable.   settings: four constants, see `Settings`.
//   ids: (h, w), 0 or the number of an instance.   channels: room for 65535; class of each instance.
// Returns the number of instances.
int32_t find_instances(const int32_t* winner, const float* offsets, float scale_x, float scale_y, int32_t h, int32_t w,
                       const uint8_t* things, int32_t classes, const double* settings, uint16_t* ids,
                       int32_t* channels) {
  const Grouping grouping(w, h, {settings[0], settings[1], settings[2], settings[3]});
  const int64_t plane = static_cast<int64_t>(h) * w;
  std::vector<std::vector<Point>> votes(classes);
  std::vector<std::vector<int64_t>> places(classes);
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x) {
      const int64_t place = static_cast<int64_t>(y) * w + x;
      ids[place] = 0;
      const int32_t channel = winner[place];
      if (channel < 0 || !things[channel]) continue;
      // Centres outside the image (objects cut off by its border) collect at the border.
      votes[channel].push_back({rounded(static_cast<float>(x) + offsets[place] * scale_x, w - 1),
                                rounded(static_cast<float>(y) + offsets[plane + place] * scale_y, h - 1)});
      places[channel].push_back(place);
    }
  int32_t count = 0;
  std::vector<int32_t> objects;
  for (int channel = 0; channel < classes; ++channel) {
    if (votes[channel].empty()) continue;
    grouping.group(votes[channel], objects);
    std::vector<int64_t> sizes(*std::max_element(objects.begin(), objects.end()) + 1);
    for (const int32_t object : objects) ++sizes[object];
    std::vector<uint16_t> final(sizes.size(), 0);
    for (size_t object = 1; object < sizes.size() && count < UINT16_MAX; ++object)
      if (static_cast<double>(sizes[object]) >= grouping.least()) {
        channels[count] = channel;
        final[object] = static_cast<uint16_t>(++count);
      }
    for (size_t i = 0; i < objects.size(); ++i) ids[places[channel][i]] = final[objects[i]];
  }
  return count;
}

// Ids (h, w) to (H, W); an instance only covers pixels of its own class in `semantic` (H, W).
//   channels: class of each of `count` instances.   label_ids: label of each class.
void enlarge_instances_8(const uint16_t* ids, int32_t h, int32_t w, const int32_t* channels, int32_t count,
                         const uint8_t* semantic, const int32_t* label_ids, uint16_t* target, int32_t height,
                         int32_t width) {
  enlarge<uint8_t>(ids, h, w, channels, count, semantic, label_ids, target, height, width);
}

void enlarge_instances_16(const uint16_t* ids, int32_t h, int32_t w, const int32_t* channels, int32_t count,
                          const uint16_t* semantic, const int32_t* label_ids, uint16_t* target, int32_t height,
                          int32_t width) {
  enlarge<uint16_t>(ids, h, w, channels, count, semantic, label_ids, target, height, width);
}
}
