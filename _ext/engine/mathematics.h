// mathematics.h: functions of doubles in portable C++: the same bits on every machine, whatever its
// C library. Errors are a few units of the last place; rounded to f32, the result is the nearest
// float except where the exact value is all but halfway between two.
#pragma once

namespace lp {

double exp_of(double x);
double log_of(double x);
double sigmoid_of(double x);
double tanh_of(double x);
double sinh_of(double x);
double cosh_of(double x);
double asinh_of(double x);
double acosh_of(double x);
double atanh_of(double x);
double sin_of(double x);
double cos_of(double x);
double tan_of(double x);
double asin_of(double x);
double acos_of(double x);
double atan_of(double x);

}  // namespace lp
