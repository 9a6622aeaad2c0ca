// Classes: which one wins, how probable it is, and both in the image's size.
#include <cstring>
#include <iterator>

#include "enlarge.hpp"

namespace kernels {
namespace {

// e^x for x <= 0 to within 1e-7 of its value; 0 below -87, NaN for NaN. Written out so that compilers vectorise it.
inline float exponential(float x) {
  const float limited = x < -87.0f ? -87.0f : x;
  const float n = std::nearbyint(limited * 1.44269504f);
  const float r = (limited - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n == n ? n : 0.0f) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  const float value = p * power;
  return x < -87.0f ? 0.0f : value;
}

// Highest score and its channel of one row of pixels; -1 where a score is not a number.
FOR_EACH_PROCESSOR
void find_winners(const float* ALONE logits, int64_t plane, int channels, int width, float* ALONE highest,
                  int32_t* ALONE winner) {
  for (int x = 0; x < width; ++x) highest[x] = logits[x], winner[x] = 0;
  for (int channel = 1; channel < channels; ++channel) {
    const float* scores = logits + channel * plane;
    for (int x = 0; x < width; ++x) {
      // A NaN is taken and then kept, as NumPy's maximum does.
      const bool wins = !(scores[x] <= highest[x]) && highest[x] == highest[x];
      winner[x] = wins ? channel : winner[x];
      highest[x] = wins ? scores[x] : highest[x];
    }
  }
  for (int x = 0; x < width; ++x) winner[x] = highest[x] == highest[x] ? winner[x] : -1;
}

FOR_EACH_PROCESSOR
bool wins_somewhere(const float* ALONE scores, const float* ALONE highest, int width) {
  int wins = 0;
  for (int x = 0; x < width; ++x) wins |= scores[x] == highest[x];
  return wins != 0;
}

FOR_EACH_PROCESSOR
void add_exponentials(const float* ALONE scores, const float* ALONE highest, int width, float* ALONE sum,
                      float* ALONE kept) {
  for (int x = 0; x < width; ++x) {
    const float value = exponential(scores[x] - highest[x]);
    sum[x] += value;
    kept[x] = value;
  }
}

FOR_EACH_PROCESSOR
void divide(float* ALONE values, const float* ALONE sum, int width) {
  for (int x = 0; x < width; ++x) {
    const float value = values[x] / sum[x];
    values[x] = value == value ? value : 0.0f;
  }
}

FOR_EACH_PROCESSOR
void blend_row(const float* ALONE above, const float* ALONE below, float weight, float* ALONE target, int count) {
  const float rest = 1.0f - weight;
  for (int x = 0; x < count; ++x) target[x] = above[x] * rest + below[x] * weight;
}

// Takes a class wherever it is more probable than what was taken before. `above` and `below` are its spread rows.
template <typename Id>
FOR_EACH_PROCESSOR void take_if_larger(const float* ALONE above, const float* ALONE below, float weight, Id label,
                                       float* ALONE confidence, Id* ALONE ids, int count) {
  const float rest = 1.0f - weight;
  for (int x = 0; x < count; ++x) {
    const float value = above[x] * rest + below[x] * weight;
    const bool wins = value > confidence[x];
    confidence[x] = wins ? value : confidence[x];
    ids[x] = wins ? label : ids[x];
  }
}

// Neighbouring cells of the small grid in which several classes may win, as pixels [left, right) of the image's row.
struct MixedRun {
  int left, right;
  size_t first, last;  // the classes that may win, ascending, in the list of all runs
  size_t rows;         // where their spread rows begin, two for each class
};

// The larger of two rows, at each place and the next one.
FOR_EACH_PROCESSOR
void largest_corner(const float* ALONE above, const float* ALONE below, float* ALONE target, int count) {
  for (int x = 0; x + 1 < count; ++x)
    target[x] = std::max(std::max(above[x], above[x + 1]), std::max(below[x], below[x + 1]));
  target[count - 1] = std::max(above[count - 1], below[count - 1]);
}

// The classes of one row of cells: most cells belong to one class, whose highest probability is all that is enlarged.
template <typename Id>
class CellRow {
 public:
  CellRow(const float* probabilities, int count, int h, int w, const int32_t* best, const LinearAxis& columns,
          const Id* ids, Id none)
      : probabilities_(probabilities), best_(best), plane_(static_cast<int64_t>(h) * w), count_(count), w_(w),
        columns_(columns), ids_(ids), none_(none), row_(columns.lower.size()), largest_(static_cast<size_t>(count) * w) {}

  // For pixels between two rows of the small grid.
  void prepare(int upper, int lower) {
    runs_.clear();
    classes_.clear();
    spread_.clear();
    for (int index = 0; index < count_; ++index) {
      const float* plane = probabilities_ + index * plane_;
      largest_corner(plane + static_cast<int64_t>(upper) * w_, plane + static_cast<int64_t>(lower) * w_,
                     largest_.data() + static_cast<int64_t>(index) * w_, w_);
    }
    const int width = static_cast<int>(columns_.lower.size());
    for (int left = 0; left < width;) {
      const int cell = columns_.lower[left], next = columns_.upper[left];
      int right = left + 1;
      while (right < width && columns_.lower[right] == cell && columns_.upper[right] == next) ++right;
      const int64_t at[4] = {static_cast<int64_t>(upper) * w_ + cell, static_cast<int64_t>(upper) * w_ + next,
                             static_cast<int64_t>(lower) * w_ + cell, static_cast<int64_t>(lower) * w_ + next};
      const int winner = best_[at[0]];
      if (winner == best_[at[1]] && winner == best_[at[2]] && winner == best_[at[3]]) {
        std::fill(row_.begin() + left, row_.begin() + right, winner < 0 ? none_ : ids_[winner]);
      } else {
        add_mixed(left, right, cell, at);
      }
      left = right;
    }
    for (MixedRun& run : runs_) {
      run.rows = spread_.size();
      for (size_t i = run.first; i < run.last; ++i)
        for (const int row : {upper, lower}) spread(probabilities_ + classes_[i] * plane_ + static_cast<int64_t>(row) * w_, run);
    }
  }

  // The pixels of one row; `confidence` holds the highest probability, which is right outside of the mixed cells.
  void write(float weight, Id* ids, float* confidence) const {
    std::memcpy(ids, row_.data(), row_.size() * sizeof(Id));
    for (const MixedRun& run : runs_) {
      const int count = run.right - run.left;
      std::fill(ids + run.left, ids + run.right, none_);
      std::fill(confidence + run.left, confidence + run.right, 0.0f);
      const float* rows = spread_.data() + run.rows;
      for (size_t i = run.first; i < run.last; ++i) {
        take_if_larger(rows, rows + count, weight, ids_[classes_[i]], confidence + run.left, ids + run.left, count);
        rows += 2 * count;
      }
    }
  }

 private:
  static constexpr size_t kMostMerged = 4;  // classes of a run; more would be compared in vain

  void add_mixed(int left, int right, int cell, const int64_t at[4]) {
    float least = 2.0f;  // no class that stays below this can be above the winners of the corners
    for (int corner = 0; corner < 4; ++corner)
      if (best_[at[corner]] >= 0)
        for (int i = 0; i < 4; ++i) least = std::min(least, probabilities_[best_[at[corner]] * plane_ + at[i]]);
    own_.clear();
    for (int index = 0; index < count_; ++index)
      if (largest_[static_cast<int64_t>(index) * w_ + cell] >= least && may_win(index, at)) own_.push_back(index);
    if (!runs_.empty() && runs_.back().right == left) {
      MixedRun& run = runs_.back();
      both_.clear();
      std::set_union(classes_.begin() + run.first, classes_.end(), own_.begin(), own_.end(), std::back_inserter(both_));
      if (both_.size() <= std::max(kMostMerged, std::max(run.last - run.first, own_.size()))) {
        classes_.resize(run.first);
        append(both_);
        run.right = right, run.last = classes_.size();
        return;
      }
    }
    runs_.push_back({left, right, classes_.size(), classes_.size() + own_.size(), 0});
    append(own_);
  }

  void append(const std::vector<int>& classes) { classes_.insert(classes_.end(), classes.begin(), classes.end()); }

  // Whether a class is above the winner of every corner at one of the four corners.
  bool may_win(int index, const int64_t at[4]) const {
    const float* own = probabilities_ + index * plane_;
    for (int corner = 0; corner < 4; ++corner) {
      const int other = best_[at[corner]];
      if (other < 0 || other == index) continue;
      const float* rival = probabilities_ + other * plane_;
      bool above = false, equal = false;  // of equals, as at a pixel right on a corner, the first class wins
      for (int i = 0; i < 4; ++i) {
        above |= own[at[i]] > rival[at[i]];
        equal |= own[at[i]] == rival[at[i]] && own[at[i]] > 0.0f;
      }
      if (!above && !(equal && index < other)) return false;
    }
    return true;
  }

  void spread(const float* source, const MixedRun& run) {
    for (int x = run.left; x < run.right; ++x)
      spread_.push_back(source[columns_.lower[x]] * (1.0f - columns_.weight[x]) +
                        source[columns_.upper[x]] * columns_.weight[x]);
  }

  const float* probabilities_;
  const int32_t* best_;
  int64_t plane_;
  int count_, w_;
  const LinearAxis& columns_;
  const Id* ids_;
  Id none_;
  std::vector<Id> row_;
  std::vector<float> largest_;  // (classes, w), probability at the corners of each cell
  std::vector<MixedRun> runs_;
  std::vector<int> classes_, own_, both_;
  std::vector<float> spread_;
};

template <typename Id>
void enlarge(const float* probabilities, int count, int h, int w, const Id* label_ids, Id none, Id* ids,
             float* confidence, int height, int width) {
  const int64_t plane = static_cast<int64_t>(h) * w;
  std::vector<int32_t> best(plane, -1);
  std::vector<float> highest(plane, 0.0f);
  for (int index = 0; index < count; ++index)
    for (int64_t i = 0; i < plane; ++i)
      if (probabilities[index * plane + i] > highest[i]) {
        highest[i] = probabilities[index * plane + i];
        best[i] = index;
      }
  const LinearAxis columns(w, width), rows(h, height);
  SpreadRows spread(highest.data(), w, columns);
  CellRow<Id> cells(probabilities, count, h, w, best.data(), columns, label_ids, none);
  for (int y = 0, upper = -1, lower = -1; y < height; ++y) {
    if (rows.lower[y] != upper || rows.upper[y] != lower) {
      upper = rows.lower[y], lower = rows.upper[y];
      cells.prepare(upper, lower);
    }
    float* sure = confidence + static_cast<int64_t>(y) * width;
    blend_row(spread.row(upper), spread.row(lower), rows.weight[y], sure, width);
    cells.write(rows.weight[y], ids + static_cast<int64_t>(y) * width, sure);
  }
}

}  // namespace
}  // namespace kernels

using namespace kernels;

extern "C" {

// Scores (C, h, w) to the softmax of the classes that win at least one pixel.
//   probabilities: room for (C, h, w); the first K planes are filled, in the order of `channels`.
//   channels: room for C; the classes that win somewhere, ascending.
//   winner: (h, w), the class with the highest score, -1 where the scores are not numbers.
// Returns K.
int32_t class_scores(const float* logits, int32_t classes, int32_t h, int32_t w, float* probabilities,
                     int32_t* channels, int32_t* winner) {
  const int64_t plane = static_cast<int64_t>(h) * w;
  std::vector<float> highest(plane), sum(w), unused(w);
  std::vector<int32_t> slot(classes, -1);
  for (int y = 0; y < h; ++y)
    find_winners(logits + static_cast<int64_t>(y) * w, plane, classes, w, highest.data() + static_cast<int64_t>(y) * w,
                 winner + static_cast<int64_t>(y) * w);
  for (int channel = 0; channel < classes; ++channel)  // of equals the first is the winner, but all of them count
    for (int y = 0; y < h && slot[channel] < 0; ++y) {
      const int64_t row = static_cast<int64_t>(y) * w;
      if (wins_somewhere(logits + channel * plane + row, highest.data() + row, w)) slot[channel] = 0;
    }
  int32_t count = 0;
  for (int channel = 0; channel < classes; ++channel)
    if (slot[channel] == 0) slot[channel] = count, channels[count++] = channel;
  for (int y = 0; y < h; ++y) {
    const int64_t row = static_cast<int64_t>(y) * w;
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int channel = 0; channel < classes; ++channel) {
      float* kept = slot[channel] < 0 ? unused.data() : probabilities + slot[channel] * plane + row;
      add_exponentials(logits + channel * plane + row, highest.data() + row, w, sum.data(), kept);
    }
    for (int index = 0; index < count; ++index) divide(probabilities + index * plane + row, sum.data(), w);
  }
  return count;
}

// Probabilities (K, h, w) to label ids and the probability of the label given, both (H, W).
void enlarge_classes_8(const float* probabilities, int32_t count, int32_t h, int32_t w, const uint8_t* label_ids,
                       uint8_t* ids, float* confidence, int32_t height, int32_t width) {
  enlarge<uint8_t>(probabilities, count, h, w, label_ids, UINT8_MAX, ids, confidence, height, width);
}

void enlarge_classes_16(const float* probabilities, int32_t count, int32_t h, int32_t w, const uint16_t* label_ids,
                        uint16_t* ids, float* confidence, int32_t height, int32_t width) {
  enlarge<uint16_t>(probabilities, count, h, w, label_ids, UINT16_MAX, ids, confidence, height, width);
}
}
