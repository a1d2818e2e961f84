// Random inputs and comparisons for the programs that run CUDA kernels on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "scalar.h"

using detc::DType;

inline std::mt19937 generator(7);
inline int failures = 0;

template <class T>
constexpr DType dtype_of() {
  return sizeof(T) == 8 ? DType::f64 : DType::f32;
}

template <class T>
std::vector<T> randn(int64_t n, double scale = 1) {
  std::normal_distribution<double> normal;
  std::vector<T> out(static_cast<size_t>(n));
  for (auto& v : out) v = static_cast<T>(scale * normal(generator));
  return out;
}

template <class T>
std::vector<T> uniform(int64_t n, double low, double high) {
  std::uniform_real_distribution<double> spread(low, high);
  std::vector<T> out(static_cast<size_t>(n));
  for (auto& v : out) v = static_cast<T>(spread(generator));
  return out;
}

// Unwritten results are NaN, which no comparison accepts.
template <class T>
std::vector<T> unset(int64_t n) {
  return std::vector<T>(static_cast<size_t>(n), static_cast<T>(NAN));
}

template <class T>
void compare(const char* what, const std::vector<T>& got, const std::vector<T>& wanted) {
  double worst = 0, scale = 1e-12;
  bool sound = got.size() == wanted.size();
  for (size_t i = 0; sound && i < got.size(); ++i) {
    if (std::isnan(static_cast<double>(wanted[i])) != std::isnan(static_cast<double>(got[i]))) sound = false;
    if (std::isnan(static_cast<double>(wanted[i]))) continue;
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i])));
    scale = std::max(scale, std::abs(static_cast<double>(wanted[i])));
  }
  const bool good = sound && worst / scale <= (sizeof(T) == 8 ? 1e-9 : 1e-4);
  failures += !good;
  std::printf("%s %s: %g\n", good ? "same" : "DIFFERENT", what, sound ? worst / scale : INFINITY);
}
